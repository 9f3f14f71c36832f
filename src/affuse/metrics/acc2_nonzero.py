"""Accuracy in two classes, negative / positive: truths of 0 are left out."""

from __future__ import annotations

import numpy as np

from affuse.metrics import sentiment
from affuse.metrics.accuracy import Accuracy

CARD = {
    "summary": "accuracy in two classes, negative / positive: truths of 0 are left out",
    "source": "MMSA's Non0, MulT's",
    "entry": "Acc2NonZero",
    "tasks": ["values"],
    "labels": ["sentiment"],
    "better": "higher",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}


class Acc2NonZero:
    """Accuracy of sentiment as negative / positive; truths of 0 are left out."""

    @staticmethod
    def statistics(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """truth, predicted [N, D] -> [N, D * 4]: the cell of the confusion matrix of positive and negative.

        A prediction of 0 is negative.
        """
        return sentiment.cells(truth > 0, predicted > 0, ~np.isnan(truth) & (truth != 0), 2)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., D * 4] -> metric [...]."""
        return sentiment.score(Accuracy, sums, 2)
