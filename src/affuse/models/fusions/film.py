"""One stream modulates the others."""

from __future__ import annotations

from torch import nn

from affuse.core.errors import BadConfig
from affuse.core.types import Encoded, Fused
from affuse.models.fusions.sum import Sum

CARD = {
    "summary": "feature-wise linear modulation: one stream scales and shifts the sum of the others",
    "source": "Perez et al., AAAI 2018; as a fusion of modalities: BCGM's and OGM-GE's baseline",
    "entry": "Film",
    "needs": ["pooled"],
    "licence": "Apache-2.0",
}


class Film(nn.Module):
    """v = mean over present s != c of W_s h_s; (g, b) = W h_c + w; fused = (1 + g) v + b.

    Stream c is `by` (the first where empty). Where it is absent, g = b = 0; where no other is present, fused = b.
    With two streams this is the baselines' FiLM, its scale written as 1 + g. Raises BadConfig when `by` is no stream.
    """

    def __init__(self, dims: dict[str, int], *, dim: int = 64, by: str = "") -> None:
        super().__init__()
        self.dim, self.by = dim, by or next(iter(dims))
        if self.by not in dims:
            raise BadConfig(f"fusion.by = '{by}' is no stream", f"choose one of {', '.join(dims)}")
        self.column = list(dims).index(self.by)
        self.rest = Sum({name: d for name, d in dims.items() if name != self.by}, dim=dim)
        self.modulate = nn.Linear(dims[self.by], 2 * dim)

    def forward(self, encoded: Encoded) -> Fused:
        """pooled[s] [N, d_s] of the streams -> pooled [N, dim]; zeros where nothing is present."""
        there = encoded.present[:, self.column, None]
        scale, shift = (self.modulate(encoded.pooled[self.by]) * there).chunk(2, dim=1)
        others = [s for s in encoded.streams if s != self.by]
        if not others:
            return Fused(shift)
        v = self.rest(encoded.select(others)).pooled
        return Fused((1 + scale) * v + shift)
