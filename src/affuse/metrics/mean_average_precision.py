"""Mean average precision over the classes that occur."""

from __future__ import annotations

import numpy as np

from affuse.metrics.confusion import mean_present, ratio

CARD = {
    "summary": "mAP: average precision of each class against the rest, mean over the classes that occur",
    "source": "scikit-learn: average_precision_score",
    "entry": "MeanAveragePrecision",
    "tasks": ["classes", "multilabel"],
    "better": "higher",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}


class MeanAveragePrecision:
    """AP_c = sum_k (R_k - R_k-1) P_k over the thresholds k of class c; the number of classes is the task's.

    Ranks are no sums over items, so that a resample is given as the items' weights.
    """

    @classmethod
    def weighted(cls, truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """truth [N] int or labels [N, C], probabilities [N, C], weights [R, N] of the items -> metric [R]."""
        each = cls.each(truth, predicted, weights)
        return mean_present(np.nan_to_num(each), ~np.isnan(each))

    @staticmethod
    def each(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The average precision of every class, [R, C]; NaN where a class does not occur."""
        found, occurs = [], []
        for c in range(predicted.shape[1]):
            is_label = truth.ndim == 2
            positive = truth[:, c] > 0 if is_label else truth == c
            counted = weights * ~np.isnan(truth[:, c]) if is_label else weights
            found.append(_average_precision(positive, predicted[:, c], counted))
            occurs.append(counted @ positive)
        return np.where(np.stack(occurs, 1) > 0, np.stack(found, 1), np.nan)


def _average_precision(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of one class, [R]; items of equal score share a threshold."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    taken = weights[:, order]
    hits = (taken * positive[order]).cumsum(1)[:, last]
    precision, found = ratio(hits, taken.cumsum(1)[:, last]), np.diff(hits, axis=1, prepend=0)
    return ratio((found * precision).sum(1), hits[:, -1])
