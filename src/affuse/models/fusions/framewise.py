"""Any fusion of vectors, step by step on one grid of time."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from affuse.core import registry
from affuse.core.errors import BadConfig
from affuse.core.types import Encoded, Fused
from affuse.layers.masked import masked_mean

CARD = {
    "summary": "a fusion of vectors at every step of a grid that all streams share: a prediction per frame",
    "source": "common practice",
    "entry": "Framewise",
    "needs": ["grid"],
    "gives": ["pooled", "tokens"],
    "licence": "Apache-2.0",
}


class Framewise(nn.Module):
    """tokens [N, T, dim]: the fusion `of` on the vectors of each step; pooled [N, dim]: their mean.

    `of` is a part; gated where it names none. A stream is absent at the steps outside its mask; only steps with at
    least one stream are computed. Raises BadConfig for a fusion that does not take vectors, or joins decisions.
    """

    def __init__(self, dims: dict[str, int], *, of: dict[str, Any] | str = "gated") -> None:
        super().__init__()
        options = {"name": of} if isinstance(of, str) else dict(of)
        name = options.pop("name", "gated")
        card = registry.cards("fusions").get(name, {})
        if card and (card["needs"] != ["pooled"] or card.get("level")):
            message = f"fusion.of = '{name}' does not fuse the vectors of one step"
            raise BadConfig(message, "choose gated, concat or sum")
        self.of = registry.build("fusions", name, dims, **registry.resolve("fusions", name, options, "fusion.of"))
        self.dim: int = self.of.dim

    def forward(self, encoded: Encoded) -> Fused:
        """Streams on one grid -> pooled [N, dim], tokens [N, T, dim], mask [N, T]."""
        there = torch.stack([encoded.mask[s] for s in encoded.streams], -1) & encoded.present.unsqueeze(1)
        mask = there.any(-1)
        present = there[mask]
        rows = {s: h[mask] * present[:, i, None] for i, (s, h) in enumerate(encoded.tokens.items())}
        steps = Encoded(encoded.streams, {}, {}, rows, present)
        fused = self.of(steps).pooled if len(steps) else next(iter(rows.values())).new_zeros(0, self.dim)
        tokens = fused.new_zeros(*mask.shape, self.dim)
        tokens[mask] = fused
        first = encoded.streams[0]
        return Fused(masked_mean(tokens, mask), tokens, mask, encoded.rate[first], encoded.t0[first])
