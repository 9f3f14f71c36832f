"""mean F1 over the classes that occur in truth or prediction."""

from __future__ import annotations

import numpy as np

from affuse.metrics import confusion

CARD = {
    "summary": "mean F1 over the classes that occur in truth or prediction",
    "source": "scikit-learn: f1_score(average='macro')",
    "entry": "MacroF1",
    "tasks": ["classes"],
    "better": "higher",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}


class MacroF1:
    """mean over classes of 2 n_cc / (truth_c + predicted_c)."""

    statistics = staticmethod(confusion.statistics)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., C * C] -> metric [...]."""
        counts = confusion.matrix(sums)
        occurs = (counts.sum(-1) + counts.sum(-2)) > 0
        return confusion.mean_present(confusion.per_class(counts)["f1"], occurs)
