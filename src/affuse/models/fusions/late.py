"""Late fusion: every stream decides, the decisions are added."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from affuse.core.types import Encoded

CARD = {
    "summary": "one head per stream; the logits of the streams present are added (or averaged)",
    "source": "common practice (decision-level fusion; a sum of logits is a product of experts)",
    "entry": "Late",
    "needs": ["pooled"],
    "level": "decisions",
    "licence": "Apache-2.0",
}


class Late(nn.Module):
    """logits = sum over present s of z_s, or their mean; fused features are the streams side by side."""

    level = "decisions"

    def __init__(self, dims: dict[str, int], *, how: Literal["sum", "mean"] = "sum") -> None:
        super().__init__()
        self.dim, self.how = sum(dims.values()), how

    def forward(self, pooled: dict[str, Tensor], present: Tensor) -> Tensor:
        """The streams side by side, zeros where absent; [N, sum d_s]."""
        return torch.cat([h * present[:, i, None] for i, h in enumerate(pooled.values())], dim=1)

    def combine(self, logits: Tensor, encoded: Encoded) -> Tensor:
        """logits [N, S, C] -> [N, C]; zeros (no opinion) where nothing is present."""
        present = encoded.present
        total = (logits * present.unsqueeze(-1)).sum(1)
        return total if self.how == "sum" else total / present.sum(1, keepdim=True).clamp_min(1)
