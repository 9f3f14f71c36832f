"""Mean absolute error."""

from __future__ import annotations

import numpy as np

from affuse.metrics.confusion import mean_present, ratio

CARD = {
    "summary": "mean absolute error, mean over the dimensions",
    "source": "scikit-learn: mean_absolute_error",
    "entry": "MAE",
    "tasks": ["values"],
    "better": "lower",
    "bounds": [0, None],
    "licence": "Apache-2.0",
}


class MAE:
    """sum |t - p| / n over items with a known truth."""

    @staticmethod
    def statistics(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """truth, predicted [N, D] -> [N, D * 2]: known, |t - p|."""
        known = ~np.isnan(truth)
        error = np.where(known, np.abs(truth - predicted), 0.0)
        return np.stack([known.astype(float), error], -1).reshape(len(truth), -1)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., D * 2] -> MAE [...]."""
        count, error = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 2), -1, 0)
        return mean_present(ratio(error, count), count > 0)
