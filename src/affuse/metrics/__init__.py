"""One metric a file; a file without a card holds what several of them share.

A metric has `statistics(truth, predicted) -> [N, K]` per item, additive, and `compute(sums [..., K]) -> [...]`. A
metric of ranks, which no sum gives, has `weighted(truth, predicted, weights [R, N]) -> [R]` instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from affuse.core import registry


def metric(name: str) -> Any:
    """The metric of that name. Raises UnknownName with the closest names."""
    return registry.load("metrics", name)


def value(name: str, truth: np.ndarray, predicted: np.ndarray) -> float:
    """The metric of that name of these predictions: truth [N] or [N, D], predicted [N, C] or [N, D]."""
    chosen = metric(name)
    if hasattr(chosen, "weighted"):
        return float(chosen.weighted(truth, predicted, np.ones((1, len(truth))))[0])
    return float(chosen.compute(chosen.statistics(truth, predicted).sum(0)))
