"""F1 averaged with the classes' shares."""

from __future__ import annotations

import numpy as np

from affuse.metrics import confusion

CARD = {
    "summary": "F1 averaged with the classes' shares",
    "source": "scikit-learn: f1_score(average='weighted')",
    "entry": "WeightedF1",
    "tasks": ["classes"],
    "better": "higher",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}


class WeightedF1:
    """sum_c support_c F1_c / n."""

    statistics = staticmethod(confusion.statistics)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., C * C] -> metric [...]."""
        counts = confusion.matrix(sums)
        scores = confusion.per_class(counts)
        return confusion.ratio((scores["f1"] * scores["support"]).sum(-1), scores["support"].sum(-1).astype(float))
