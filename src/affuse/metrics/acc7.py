"""Accuracy in 7 classes: both clipped to [-3, 3] and rounded."""

from __future__ import annotations

import numpy as np

from affuse.metrics import sentiment
from affuse.metrics.accuracy import Accuracy

CARD = {
    "summary": "accuracy in 7 classes: both clipped to [-3, 3] and rounded",
    "source": "MulT's evaluation (Tsai et al., ACL 2019), MMSA's",
    "entry": "Acc7",
    "tasks": ["values"],
    "labels": ["sentiment"],
    "range": [-3, 3],
    "better": "higher",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}


class Acc7:
    """Share of utterances whose sentiment, clipped to [-3, 3] and rounded (halves to the even number), is right."""

    @staticmethod
    def statistics(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """truth, predicted [N, D] -> [N, D * 49]: the cell of the confusion matrix."""
        return sentiment.rounded(truth, predicted, 3)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., D * 49] -> metric [...]."""
        return sentiment.score(Accuracy, sums, 7)
