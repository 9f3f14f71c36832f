"""share of items whose most probable class is right."""

from __future__ import annotations

import numpy as np

from affuse.metrics import confusion

CARD = {
    "summary": "share of items whose most probable class is right",
    "source": "scikit-learn: accuracy_score",
    "entry": "Accuracy",
    "tasks": ["classes"],
    "better": "higher",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}


class Accuracy:
    """sum_c n_cc / n."""

    statistics = staticmethod(confusion.statistics)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., C * C] -> metric [...]."""
        counts = confusion.matrix(sums)
        return confusion.ratio(np.trace(counts, axis1=-2, axis2=-1), counts.sum((-2, -1)))
