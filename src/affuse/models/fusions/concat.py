"""Concatenation of streams."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CARD = {
    "summary": "streams side by side, a learned vector in place of an absent one, then one hidden layer or none",
    "source": "common practice",
    "entry": "Concat",
    "needs": ["pooled"],
    "licence": "Apache-2.0",
}


class Concat(nn.Module):
    """fused = dropout(GELU(W [h_1; ...; h_S])), with a learned vector where a stream is absent.

    `dim` 0: no hidden layer, fused = dropout([h_1; ...; h_S]); `widths` are then the parts of it by stream, else empty.
    """

    def __init__(self, dims: dict[str, int], *, dim: int = 64, dropout: float = 0.1) -> None:
        super().__init__()
        self.dim = dim or sum(dims.values())
        self.widths: dict[str, int] = {} if dim else dict(dims)
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.zeros(d)) for name, d in dims.items()})
        hidden = [nn.Linear(sum(dims.values()), dim), nn.GELU()] if dim else []
        self.net = nn.Sequential(*hidden, nn.Dropout(dropout))

    def forward(self, pooled: dict[str, Tensor], present: Tensor) -> Tensor:
        """pooled[s] [N, d_s], present [N, S] -> [N, dim], or [N, sum d_s] without a hidden layer."""
        parts = [torch.where(present[:, i, None], h, self.absent[s]) for i, (s, h) in enumerate(pooled.items())]
        return self.net(torch.cat(parts, dim=1))
