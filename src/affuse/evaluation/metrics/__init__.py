"""One metric a file; a file without a card holds what several of them share."""

from __future__ import annotations

from affuse.core import registry
from affuse.core.labels import LabelSpace


def fitting(space: LabelSpace) -> list[str]:
    """Names of the metrics that mean something for a label space: of its kind and, where a card names them, its labels and range."""
    limits = {"labels": list(space.labels), "range": [space.low, space.high]}
    cards = registry.cards("metrics").items()
    return [n for n, card in cards if space.kind in card["tasks"] and all(card.get(k, v) == v for k, v in limits.items())]
