"""The score of MER-MULTI and MER-NOISE, over a task of emotions and one of valence."""

from __future__ import annotations

import numpy as np

from affuse.metrics import confusion
from affuse.metrics.weighted_f1 import WeightedF1

CARD = {
    "summary": "weighted F1 of the emotion - 0.25 mean squared error of the valence, over clips that have both labels",
    "source": "Lian et al., MER 2023: Multi-label Learning, Modality Robustness, and Semi-Supervised Learning, MM 2023",
    "entry": "MerScore",
    "tasks": ["classes"],
    "labels": ["neutral", "angry", "happy", "sad", "worried", "surprise"],
    "with": {"tasks": ["values"], "labels": ["valence"], "range": [-5.0, 5.0]},
    "better": "higher",
    "bounds": [None, 1],
    "licence": "Apache-2.0",
}
PENALTY = 0.25  # of the squared error


class MerScore:
    """weighted F1 - 0.25 sum (t - p)^2 / n; the last column of truth and prediction is the valence."""

    @staticmethod
    def statistics(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """truth [N, 2]: class, valence; predicted [N, C + 1] -> [N, C * C + 1]: cell of the matrix, squared error."""
        cells = confusion.statistics(truth[:, 0], predicted[:, :-1])
        return np.column_stack([cells, (truth[:, -1] - predicted[:, -1].astype(float)) ** 2])

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., C * C + 1] -> metric [...]."""
        cells, error = sums[..., :-1], sums[..., -1]
        return WeightedF1.compute(cells) - PENALTY * confusion.ratio(error, cells.sum(-1))
