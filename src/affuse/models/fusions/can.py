"""Channel attention: every feature of every stream weighted by a softmax over all of them, step by step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from affuse.core.types import Encoded, Fused
from affuse.layers.masked import MaskedBatchNorm, masked_mean, masked_softmax

CARD = {
    "summary": "CAN: a softmax over the features of all streams weighs them within each step",
    "source": "Zhang et al., Audio-visual Leader-follower Attentive Fusion, ICCV-W 2021; CAN of its code",
    "entry": "CAN",
    "needs": ["grid"],
    "gives": ["pooled", "tokens"],
    "licence": "Apache-2.0",
}


class CAN(nn.Module):
    """tokens = lrelu(BN(W_1 (a * c))), c = [p_1; ...; p_M], p_m = W_m x_m, a = softmax of W c over its M * `dim`
    features.

    The features of an absent stream are 0 and have no weight. Padding reaches no statistic of the normalisation.
    """

    def __init__(self, dims: dict[str, int], *, dim: int = 128) -> None:
        super().__init__()
        width = len(dims) * dim
        self.dim, self.part = width, dim
        self.project = nn.ModuleDict({name: nn.Linear(d, dim) for name, d in dims.items()})
        self.attention, self.hidden = nn.Linear(width, width), nn.Linear(width, width)
        self.norm, self.act = MaskedBatchNorm(width), nn.LeakyReLU(0.01)

    def forward(self, encoded: Encoded) -> Fused:
        """Streams on one grid -> pooled [N, dim], tokens [N, T, dim], mask [N, T]."""
        there = torch.stack([encoded.mask[s] for s in encoded.streams], -1) & encoded.present.unsqueeze(1)
        mask = there.any(-1)
        parts = [self.project[s](h) * there[..., i, None] for i, (s, h) in enumerate(encoded.tokens.items())]
        c = torch.cat(parts, -1)
        weights = masked_softmax(self.attention(c), there.repeat_interleave(self.part, -1))
        hidden: Tensor = self.norm(self.hidden(weights * c).transpose(1, 2), mask).transpose(1, 2)
        tokens = self.act(hidden) * mask.unsqueeze(-1)
        first = encoded.streams[0]
        return Fused(masked_mean(tokens, mask), tokens, mask, encoded.rate[first], encoded.t0[first])
