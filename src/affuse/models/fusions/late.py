"""Late fusion: every stream decides, the decisions are averaged."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from affuse.layers.masked import masked_softmax

CARD = {
    "summary": "one head per stream; logits averaged over the streams present with learned weights",
    "source": "common practice (decision-level fusion)",
    "entry": "Late",
    "needs": ["pooled"],
    "level": "decisions",
    "licence": "Apache-2.0",
}


class Late(nn.Module):
    """logits = sum over present s of w_s z_s with w = softmax over present streams of one learned number each."""

    level = "decisions"

    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__()
        self.dim = sum(dims.values())
        self.score = nn.Parameter(torch.zeros(len(dims)))

    def forward(self, pooled: dict[str, Tensor], present: Tensor) -> Tensor:
        """Features for those who ask: the streams side by side, zeros where absent; [N, sum d_s]."""
        return torch.cat([h * present[:, i, None] for i, h in enumerate(pooled.values())], dim=1)

    def combine(self, logits: Tensor, present: Tensor) -> Tensor:
        """logits [N, S, C], present [N, S] -> [N, C]; zeros (no opinion) where nothing is present."""
        weights = masked_softmax(self.score.expand(len(logits), -1), present)
        return (weights.unsqueeze(-1) * logits).sum(1)
