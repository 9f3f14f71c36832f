"""Sum of projected streams."""

from __future__ import annotations

from torch import Tensor, nn

CARD = {
    "summary": "streams projected to one size and averaged over those present",
    "source": "common practice; BCGM's CREMA-D baseline",
    "entry": "Sum",
    "needs": ["pooled"],
    "licence": "Apache-2.0",
}


class Sum(nn.Module):
    """fused = mean over present streams of W_s h_s; absent streams take no part."""

    def __init__(self, dims: dict[str, int], *, dim: int = 64) -> None:
        super().__init__()
        self.dim = dim
        self.project = nn.ModuleDict({name: nn.Linear(d, dim) for name, d in dims.items()})

    def forward(self, pooled: dict[str, Tensor], present: Tensor) -> Tensor:
        """pooled[s] [N, d_s], present [N, S] -> [N, dim]; zeros where nothing is present."""
        total = sum(self.project[s](h) * present[:, i, None] for i, (s, h) in enumerate(pooled.items()))
        return total / present.sum(1, keepdim=True).clamp_min(1)
