"""One metric a file; a file without a card holds what several of them share.

A metric has `statistics(truth, predicted) -> [N, K]` per item, additive, and `compute(sums [..., K]) -> [...]`. A metric of
ranks, which no sum gives, has `weighted(truth, predicted, weights [R, N]) -> [R]` instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from affuse.core import registry
from affuse.core.labels import LabelSpace


def fitting(space: LabelSpace) -> list[str]:
    """Names of the metrics that fit a label space: its kind and, where a card names them, its labels and its range."""
    limits = {"labels": list(space.labels), "range": [space.low, space.high]}

    def fits(card: dict[str, Any]) -> bool:
        return space.kind in card["tasks"] and all(card.get(key, limit) == limit for key, limit in limits.items())

    return [name for name, card in registry.cards("metrics").items() if fits(card)]


def metric(name: str) -> Any:
    """The metric of that name. Raises UnknownName with the closest names."""
    return registry.load("metrics", name)


def value(name: str, truth: np.ndarray, predicted: np.ndarray) -> float:
    """The metric of that name of these predictions: truth [N] or [N, D], predicted [N, C] or [N, D]."""
    chosen = metric(name)
    if hasattr(chosen, "weighted"):
        return float(chosen.weighted(truth, predicted, np.ones((1, len(truth))))[0])
    return float(chosen.compute(chosen.statistics(truth, predicted).sum(0)))
