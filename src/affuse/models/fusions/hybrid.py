"""Hybrid fusion: the prediction from the fused features, mixed with those of the single streams."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from affuse.core import registry
from affuse.core.errors import BadConfig
from affuse.core.types import Encoded, Fused
from affuse.models.fusions.late import Late

CARD = {
    "summary": "early and late at once: logits of a fusion of features, averaged with the streams' own",
    "source": "common practice; Atrey et al., Multimedia Systems 2010, section 3.3",
    "entry": "Hybrid",
    "needs": ["pooled"],
    "level": "both",
    "licence": "Apache-2.0",
}


class Hybrid(nn.Module):
    """logits = (1 - share) * (head on the features fused by `how`) + share * (mean over present s of z_s).

    Raises BadConfig for a `share` outside 0..1, both ends excluded.
    """

    level = "both"

    def __init__(
        self,
        dims: dict[str, int],
        *,
        how: Literal["concat", "gated", "sum", "attention"] = "concat",
        dim: int = 64,
        share: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0 < share < 1:
            remedy = f"give 0 < share < 1, or choose fusion={how} or late"
            raise BadConfig(f"fusion.share = {share} leaves one half out", remedy)
        self.dim, self.share = dim, share
        self.early = registry.build("fusions", how, dims, dim=dim)
        self.late = Late(dims, how="mean")

    def forward(self, encoded: Encoded) -> Fused:
        """The features fused by `how`, pooled [N, dim]."""
        fused: Fused = self.early(encoded)
        return fused

    def combine(self, logits: Tensor, encoded: Encoded, joint: Tensor) -> Tensor:
        """The streams' own logits [N, S, C] and those of the fused features [N, C] -> [N, C]."""
        return (1 - self.share) * joint + self.share * self.late.combine(logits, encoded)
