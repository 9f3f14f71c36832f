"""Concatenation of streams."""

from __future__ import annotations

import torch
from torch import nn

from affuse.core.types import Encoded, Fused

CARD = {
    "summary": "streams concatenated, a learned vector in place of an absent one, then one hidden layer or none",
    "source": "common practice",
    "entry": "Concat",
    "needs": ["pooled"],
    "licence": "Apache-2.0",
}


class Concat(nn.Module):
    """fused = dropout(GELU(W [h_1; ...; h_S])), with a learned vector where a stream is absent.

    `dim` 0: no hidden layer, fused = dropout([h_1; ...; h_S]); `widths` are then the widths of the streams, else empty.
    """

    def __init__(self, dims: dict[str, int], *, dim: int = 64, dropout: float = 0.1) -> None:
        super().__init__()
        self.dim = dim or sum(dims.values())
        self.widths: dict[str, int] = {} if dim else dict(dims)
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.zeros(d)) for name, d in dims.items()})
        hidden = [nn.Linear(sum(dims.values()), dim), nn.GELU()] if dim else []
        self.net = nn.Sequential(*hidden, nn.Dropout(dropout))

    def forward(self, encoded: Encoded) -> Fused:
        """pooled[s] [N, d_s] of the streams -> pooled [N, dim], or [N, sum d_s] without a hidden layer."""
        there = encoded.present.unsqueeze(-1).unbind(1)
        parts = [torch.where(t, h, self.absent[s]) for t, (s, h) in zip(there, encoded.pooled.items(), strict=True)]
        return Fused(self.net(torch.cat(parts, dim=1)))
