"""Confusion counts as additive statistics: what most classification metrics are computed from."""

from __future__ import annotations

import numpy as np


def statistics(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """One-hot cell of the confusion matrix per item: truth [N] int, predicted [N, C] -> [N, C * C]."""
    n, classes = predicted.shape
    cells = np.zeros((n, classes * classes))
    cells[np.arange(n), truth.astype(int) * classes + predicted.argmax(1)] = 1
    return cells


def matrix(sums: np.ndarray) -> np.ndarray:
    """Sums [..., C * C] -> confusion matrices [..., C, C], rows = truth."""
    classes = round(sums.shape[-1] ** 0.5)
    return sums.reshape(*sums.shape[:-1], classes, classes)


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, 0 where bottom is 0."""
    return np.divide(top, bottom, out=np.zeros_like(top, dtype=float), where=bottom != 0)


def per_class(counts: np.ndarray) -> dict[str, np.ndarray]:
    """precision, recall, f1, support [..., C] of confusion matrices [..., C, C]."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1).astype(float)
    support, predicted = counts.sum(-1), counts.sum(-2)
    return {
        "precision": ratio(hits, predicted),
        "recall": ratio(hits, support),
        "f1": ratio(2 * hits, support + predicted),
        "support": support,
    }


def mean_present(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Mean of values [..., C] over the classes that occur (present [..., C])."""
    return ratio((values * present).sum(-1), present.sum(-1).astype(float))
