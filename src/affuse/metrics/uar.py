"""unweighted average recall: mean recall over the classes that occur."""

from __future__ import annotations

import numpy as np

from affuse.metrics import confusion

CARD = {
    "summary": "unweighted average recall: mean recall over the classes that occur",
    "source": "scikit-learn: balanced_accuracy_score",
    "entry": "UAR",
    "tasks": ["classes"],
    "better": "higher",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}


class UAR:
    """mean over classes with support of n_cc / n_c."""

    statistics = staticmethod(confusion.statistics)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., C * C] -> metric [...]."""
        counts = confusion.matrix(sums)
        scores = confusion.per_class(counts)
        return confusion.mean_present(scores["recall"], scores["support"] > 0)
