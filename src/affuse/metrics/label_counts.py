"""What metrics of labels that may hold together share: counts per label."""

from __future__ import annotations

import numpy as np

from affuse.metrics.confusion import ratio


def statistics(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """truth, predicted [N, C] -> [N, C * 4]: hit, missed, false alarm, rightly absent; nothing where truth is NaN.

    A label is predicted from a probability of 0.5 on.
    """
    known, t, p = ~np.isnan(truth), truth > 0, predicted >= 0.5
    each = np.stack([t & p, t & ~p, ~t & p, ~t & ~p], -1) & known[..., None]
    return each.astype(float).reshape(len(truth), -1)


def counts(sums: np.ndarray) -> np.ndarray:
    """Summed statistics [..., C * 4] -> [..., C, 4]."""
    return sums.reshape(*sums.shape[:-1], -1, 4)


def per_label(found: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall, F1, balance (mean of recall and specificity) [..., C] of counts; 0 where undefined."""
    hit, missed, false, absent = np.moveaxis(found, -1, 0)
    recall, specificity = ratio(hit, hit + missed), ratio(absent, absent + false)
    return {
        "precision": ratio(hit, hit + false),
        "recall": recall,
        "f1": ratio(2 * hit, 2 * hit + missed + false),
        "balance": (recall + specificity) / 2,
    }
