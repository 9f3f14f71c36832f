"""Weighted F1 in two classes, negative / non-negative: 0 counts as non-negative."""

from __future__ import annotations

import numpy as np

from affuse.metrics import sentiment
from affuse.metrics.acc2_nonneg import Acc2NonNegative
from affuse.metrics.weighted_f1 import WeightedF1

CARD = {
    "summary": "weighted F1 in two classes, negative / non-negative: 0 counts as non-negative",
    "source": "MMSA's Has0",
    "entry": "WeightedF1NonNegative",
    "tasks": ["values"],
    "labels": ["sentiment"],
    "better": "higher",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}


class WeightedF1NonNegative:
    """Weighted F1 of sentiment as negative / non-negative; 0 counts as non-negative."""

    statistics = staticmethod(Acc2NonNegative.statistics)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., D * 4] -> metric [...]."""
        return sentiment.score(WeightedF1, sums, 2)
