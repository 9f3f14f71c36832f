"""One stream modulates the others."""

from __future__ import annotations

from torch import Tensor, nn

from affuse.core.errors import BadConfig
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

    Stream c is `by` (the first where empty). Where it is absent, g = b = 0; where it is alone, b speaks for it. With
    two streams this is the baselines' FiLM, its scale written as 1 + g. Raises BadConfig when `by` is no stream.
    """

    def __init__(self, dims: dict[str, int], *, dim: int = 64, by: str = "") -> None:
        super().__init__()
        self.dim, self.by = dim, by or next(iter(dims))
        if self.by not in dims:
            raise BadConfig(f"fusion.by = '{by}' is no stream", f"choose one of {', '.join(dims)}")
        self.column = list(dims).index(self.by)
        self.rest = Sum({name: d for name, d in dims.items() if name != self.by}, dim=dim)
        self.modulate = nn.Linear(dims[self.by], 2 * dim)

    def forward(self, pooled: dict[str, Tensor], present: Tensor) -> Tensor:
        """pooled[s] [N, d_s], present [N, S] -> [N, dim]; zeros where nothing is present."""
        others = [i for i in range(present.shape[1]) if i != self.column]
        scale, shift = (self.modulate(pooled[self.by]) * present[:, self.column, None]).chunk(2, dim=1)
        if not others:
            return shift
        v = self.rest({s: h for s, h in pooled.items() if s != self.by}, present[:, others])
        return (1 + scale) * v + shift
