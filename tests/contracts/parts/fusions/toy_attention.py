"""Every step of the first stream attends to the steps of the others, whatever their rates."""

from __future__ import annotations

import torch
from torch import nn

from affuse.core.types import Encoded, Fused
from affuse.layers.masked import masked_mean, masked_softmax

CARD = {
    "summary": "a toy: steps of the first stream attend to those of the others",
    "source": "tests",
    "entry": "ToyAttention",
    "needs": ["tokens"],
    "gives": ["pooled", "tokens"],
    "licence": "Apache-2.0",
}


class ToyAttention(nn.Module):
    """tokens [N, T, dim] at the first stream's rate; pooled: their mean, where it is absent that of the others."""

    def __init__(self, dims: dict[str, int], *, dim: int = 8) -> None:
        super().__init__()
        self.dim = dim
        self.project = nn.ModuleDict({name: nn.Linear(d, dim) for name, d in dims.items()})

    def forward(self, encoded: Encoded) -> Fused:
        first, *others = encoded.streams
        shown = {s: encoded.mask[s] & encoded.present[:, i, None] for i, s in enumerate(encoded.streams)}
        steps = {s: self.project[s](encoded.tokens[s]) * shown[s].unsqueeze(-1) for s in encoded.streams}
        tokens = steps[first]
        for s in others:
            weights = masked_softmax(
                steps[first] @ steps[s].transpose(1, 2), shown[s].unsqueeze(1).expand(-1, steps[first].shape[1], -1)
            )
            tokens = tokens + weights @ steps[s]
        tokens = tokens * shown[first].unsqueeze(-1)
        alone = torch.stack([masked_mean(steps[s], shown[s]) for s in others]).sum(0)
        pooled = torch.where(shown[first].any(1, keepdim=True), masked_mean(tokens, shown[first]), alone)
        return Fused(pooled, tokens, shown[first], encoded.rate[first], encoded.t0[first])
