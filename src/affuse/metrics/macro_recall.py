"""mean recall over the classes that occur in truth or prediction."""

from __future__ import annotations

import numpy as np

from affuse.metrics import confusion

CARD = {
    "summary": "mean recall over the classes that occur in truth or prediction",
    "source": "scikit-learn: recall_score(average='macro')",
    "entry": "MacroRecall",
    "tasks": ["classes"],
    "better": "higher",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}


class MacroRecall:
    """mean over classes of n_cc / truth_c, 0 where nothing is of class c; UAR leaves such a class out."""

    statistics = staticmethod(confusion.statistics)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., C * C] -> metric [...]."""
        counts = confusion.matrix(sums)
        occurs = (counts.sum(-1) + counts.sum(-2)) > 0
        return confusion.mean_present(confusion.per_class(counts)["recall"], occurs)
