"""Sentiment as classes: confusion counts of each dimension as additive statistics, and the scores of these.

Truth and prediction are values [N, D], the truth NaN where it is unknown. Published evaluations differ in what an
utterance of sentiment 0 is: each convention has its own file.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from affuse.metrics import confusion


def rounded(truth: np.ndarray, predicted: np.ndarray, limit: int) -> np.ndarray:
    """2 limit + 1 classes: both clipped to [-limit, limit], then rounded, halves to the even number (0.5 to 0)."""
    t, p = (np.round(np.clip(np.nan_to_num(v), -limit, limit)).astype(int) + limit for v in (truth, predicted))
    return cells(t, p, ~np.isnan(truth), 2 * limit + 1)


def cells(truth: np.ndarray, predicted: np.ndarray, known: np.ndarray, classes: int) -> np.ndarray:
    """Classes [N, D] -> the cell of each dimension's confusion matrix, one-hot [N, D * C * C]; zeros where unknown."""
    cell = np.where(known, truth * classes + predicted, -1)
    return (cell[..., None] == np.arange(classes**2)).astype(float).reshape(len(truth), -1)


def score(of: Any, sums: np.ndarray, classes: int) -> np.ndarray:
    """A metric `of` confusion counts, mean over the dimensions with any item: sums [..., D * C * C] -> [...]."""
    each = sums.reshape(*sums.shape[:-1], -1, classes**2)
    return confusion.mean_present(of.compute(each), each.sum(-1) > 0)
