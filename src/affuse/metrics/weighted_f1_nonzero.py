"""Weighted F1 in two classes, negative / positive: truths of 0 are left out."""

from __future__ import annotations

import numpy as np

from affuse.metrics import sentiment
from affuse.metrics.acc2_nonzero import Acc2NonZero
from affuse.metrics.weighted_f1 import WeightedF1

CARD = {
    "summary": "weighted F1 in two classes, negative / positive: truths of 0 are left out",
    "source": "MMSA's Non0, MulT's",
    "entry": "WeightedF1NonZero",
    "tasks": ["values"],
    "labels": ["sentiment"],
    "better": "higher",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}


class WeightedF1NonZero:
    """Weighted F1 of sentiment as negative / positive; truths of 0 are left out."""

    statistics = staticmethod(Acc2NonZero.statistics)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., D * 4] -> metric [...]."""
        return sentiment.score(WeightedF1, sums, 2)
