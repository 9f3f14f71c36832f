"""Share of right decisions, mean over the labels."""

from __future__ import annotations

import numpy as np

from affuse.metrics import label_counts
from affuse.metrics.confusion import mean_present, ratio

CARD = {
    "summary": "share of right decisions, mean over the labels",
    "source": "scikit-learn: 1 - hamming_loss where every label is known",
    "entry": "LabelAccuracy",
    "tasks": ["multilabel"],
    "better": "higher",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}


class LabelAccuracy:
    """mean over labels of (hits + rightly absent) / known."""

    statistics = staticmethod(label_counts.statistics)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., C * 4] -> metric [...]."""
        found = label_counts.counts(sums)
        known = found.sum(-1)
        return mean_present(ratio(found[..., 0] + found[..., 3], known), known > 0)
