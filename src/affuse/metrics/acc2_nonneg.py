"""Accuracy in two classes, negative / non-negative: 0 counts as non-negative."""

from __future__ import annotations

import numpy as np

from affuse.metrics import sentiment
from affuse.metrics.accuracy import Accuracy

CARD = {
    "summary": "accuracy in two classes, negative / non-negative: 0 counts as non-negative",
    "source": "MMSA's Has0",
    "entry": "Acc2NonNegative",
    "tasks": ["values"],
    "labels": ["sentiment"],
    "better": "higher",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}


class Acc2NonNegative:
    """Accuracy of sentiment as negative / non-negative; 0 counts as non-negative."""

    @staticmethod
    def statistics(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """truth, predicted [N, D] -> [N, D * 4]: the cell of the confusion matrix of below 0, and the rest."""
        return sentiment.cells(truth >= 0, predicted >= 0, ~np.isnan(truth), 2)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., D * 4] -> metric [...]."""
        return sentiment.score(Accuracy, sums, 2)
