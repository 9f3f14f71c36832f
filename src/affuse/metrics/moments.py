"""Joint moments as additive statistics: what CCC and Pearson are computed from."""

from __future__ import annotations

import numpy as np


def statistics(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """truth, predicted [N, D] -> [N, D * 6]: 1, t, p, t^2, p^2, t p; zeros where the truth is NaN."""
    known = ~np.isnan(truth)
    # squares of float32 lose small variances
    t, p = (np.where(known, v, 0.0).astype(float) for v in (truth, predicted))
    return np.stack([known.astype(float), t, p, t * t, p * p, t * p], axis=-1).reshape(len(truth), -1)


def moments(sums: np.ndarray) -> tuple[np.ndarray, ...]:
    """Sums [..., D * 6] -> (mean truth, mean predicted, variances, covariance), each [..., D]."""
    n, t, p, tt, pp, tp = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 6), -1, 0)
    n = np.maximum(n, 1)
    mt, mp = t / n, p / n
    return mt, mp, tt / n - mt**2, pp / n - mp**2, tp / n - mt * mp
