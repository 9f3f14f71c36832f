"""Accuracy in two classes, positive / the rest: 0 counts as negative."""

from __future__ import annotations

import numpy as np

from affuse.metrics import sentiment
from affuse.metrics.accuracy import Accuracy

CARD = {
    "summary": "accuracy in two classes, positive / the rest: 0 counts as negative",
    "source": "CGGM's and BCGM's, CH-SIMS'",
    "entry": "Acc2Positive",
    "tasks": ["values"],
    "labels": ["sentiment"],
    "better": "higher",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}


class Acc2Positive:
    """Accuracy of sentiment as positive / the rest; 0 counts as negative."""

    @staticmethod
    def statistics(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """truth, predicted [N, D] -> [N, D * 4]: the cell of the confusion matrix of above 0, and the rest."""
        return sentiment.cells(truth > 0, predicted > 0, ~np.isnan(truth), 2)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., D * 4] -> metric [...]."""
        return sentiment.score(Accuracy, sums, 2)
