"""Sum of projected streams."""

from __future__ import annotations

from torch import nn

from affuse.core.types import Encoded, Fused

CARD = {
    "summary": "streams projected to one size and averaged over those present",
    "source": "common practice; BCGM's CREMA-D baseline",
    "entry": "Sum",
    "needs": ["pooled"],
    "licence": "Apache-2.0",
}


class Sum(nn.Module):
    """fused = mean over present streams of W_s h_s; absent streams do not count."""

    def __init__(self, dims: dict[str, int], *, dim: int = 64) -> None:
        super().__init__()
        self.dim = dim
        self.project = nn.ModuleDict({name: nn.Linear(d, dim) for name, d in dims.items()})

    def forward(self, encoded: Encoded) -> Fused:
        """pooled[s] [N, d_s] of the streams -> pooled [N, dim]; zeros where nothing is present."""
        there = encoded.present.unsqueeze(-1).unbind(1)
        total = sum(self.project[s](h) * t for t, (s, h) in zip(there, encoded.pooled.items(), strict=True))
        return Fused(total / encoded.present.sum(1, keepdim=True).clamp_min(1))
