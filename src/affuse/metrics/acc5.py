"""Accuracy in 5 classes: both clipped to [-2, 2] and rounded."""

from __future__ import annotations

import numpy as np

from affuse.metrics import sentiment
from affuse.metrics.accuracy import Accuracy

CARD = {
    "summary": "accuracy in 5 classes: both clipped to [-2, 2] and rounded",
    "source": "MulT's evaluation (Tsai et al., ACL 2019), MMSA's",
    "entry": "Acc5",
    "tasks": ["values"],
    "labels": ["sentiment"],
    "range": [-3, 3],
    "better": "higher",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}


class Acc5:
    """Share of utterances whose sentiment, clipped to [-2, 2] and rounded (halves to the even number), is right."""

    @staticmethod
    def statistics(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """truth, predicted [N, D] -> [N, D * 25]: the cell of the confusion matrix."""
        return sentiment.rounded(truth, predicted, 2)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., D * 25] -> metric [...]."""
        return sentiment.score(Accuracy, sums, 5)
