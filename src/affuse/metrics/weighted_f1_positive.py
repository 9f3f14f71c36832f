"""Weighted F1 in two classes, positive / the rest: 0 counts as negative."""

from __future__ import annotations

import numpy as np

from affuse.metrics import sentiment
from affuse.metrics.acc2_positive import Acc2Positive
from affuse.metrics.weighted_f1 import WeightedF1

CARD = {
    "summary": "weighted F1 in two classes, positive / the rest: 0 counts as negative",
    "source": "CGGM's and BCGM's, CH-SIMS'",
    "entry": "WeightedF1Positive",
    "tasks": ["values"],
    "labels": ["sentiment"],
    "better": "higher",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}


class WeightedF1Positive:
    """Weighted F1 of sentiment as positive / the rest; 0 counts as negative."""

    statistics = staticmethod(Acc2Positive.statistics)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., D * 4] -> metric [...]."""
        return sentiment.score(WeightedF1, sums, 2)
