"""Concordance correlation coefficient."""

from __future__ import annotations

import numpy as np

from affuse.metrics import moments
from affuse.metrics.confusion import mean_present, ratio

CARD = {
    "summary": "concordance correlation coefficient, mean over the dimensions",
    "source": "Lin, A concordance correlation coefficient to evaluate reproducibility, Biometrics 1989",
    "entry": "CCC",
    "tasks": ["values"],
    "better": "higher",
    "bounds": [-1, 1],
    "licence": "Apache-2.0",
}


class CCC:
    """2 cov(t, p) / (var t + var p + (mean t - mean p)^2)."""

    statistics = staticmethod(moments.statistics)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., D * 6] -> CCC [...]."""
        mt, mp, vt, vp, cov = moments.moments(sums)
        return mean_present(ratio(2 * cov, vt + vp + (mt - mp) ** 2), sums[..., ::6] > 0)
