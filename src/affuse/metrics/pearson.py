"""Pearson correlation."""

from __future__ import annotations

import numpy as np

from affuse.metrics import moments
from affuse.metrics.confusion import mean_present, ratio

CARD = {
    "summary": "Pearson correlation of truth and prediction, mean over the dimensions; 0 where one of them is constant",
    "source": "scipy: pearsonr",
    "entry": "Pearson",
    "tasks": ["values"],
    "better": "higher",
    "bounds": [-1, 1],
    "licence": "Apache-2.0",
}
CONSTANT = 1e-12  # of a variance, as a share of the mean square: what rounding leaves of a constant


class Pearson:
    """cov(t, p) / (sd t sd p)."""

    statistics = staticmethod(moments.statistics)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., D * 6] -> correlation [...]."""
        mt, mp, vt, vp, cov = moments.moments(sums)
        varies = (vt > CONSTANT * (vt + mt**2)) & (vp > CONSTANT * (vp + mp**2))
        r = ratio(cov, np.sqrt(np.where(varies, vt * vp, 0.0)))
        return mean_present(r, sums[..., ::6] > 0)
