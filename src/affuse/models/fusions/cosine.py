"""Decisions by angle, so that no stream dominates by the norm of its features or weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from affuse.core.errors import BadConfig
from affuse.models.fusions.late import Late

CARD = {
    "summary": "MMCosine: late fusion of cosines between features and class weights, scaled and added",
    "source": "Xu et al., ICASSP 2023",
    "entry": "Cosine",
    "needs": ["pooled"],
    "level": "decisions",
    "licence": "Apache-2.0",
}


class Cosine(Late):
    """logits_c = scale * sum over present s of cos(h_s, W_sc); each term is the logits of its stream. Classes only.

    Raises BadConfig for a `scale` of 0 or less.
    """

    def __init__(self, dims: dict[str, int], *, scale: float = 15.0) -> None:
        super().__init__(dims)
        if scale <= 0:
            raise BadConfig(f"fusion.scale = {scale}", "give a number above 0, such as 15")
        self.scale, self.tasks = scale, ("classes",)

    def make_head(self, dim: int, width: int) -> nn.Module:
        """The head of one stream and task."""
        return CosineHead(dim, width, self.scale)


class CosineHead(nn.Linear):
    """z_c = scale * cos(x, W_c): x [..., d] -> [..., C]; zeros for a row of zeros."""

    def __init__(self, dim: int, width: int, scale: float) -> None:
        super().__init__(dim, width, bias=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Scaled cosines of x [..., d] with every class, [..., C]."""
        return self.scale * linear(normalize(x, dim=-1), normalize(self.weight, dim=-1))
