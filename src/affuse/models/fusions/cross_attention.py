"""Every stream's steps attend to the steps of every other stream."""

from __future__ import annotations

from itertools import permutations
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.core.errors import BadConfig
from affuse.core.types import Encoded, Fused
from affuse.layers.cross_attention import CrossLayer
from affuse.layers.masked import AttentionPool, masked_mean
from affuse.layers.positions import in_time

CARD = {
    "summary": "all ordered pairs of streams: one's steps attend to the other's; pooled over time, then one layer",
    "source": "Tsai et al., Multimodal Transformer (MulT), ACL 2019; system of MMER with bidirectional xLSTM, made to "
    "attend to sequences",
    "entry": "CrossAttention",
    "needs": ["tokens"],
    "keys": "many",
    "gives": ["pooled"],
    "licence": "Apache-2.0",
}


class CrossAttention(nn.Module):
    """pooled = dropout(gelu((sum of W_ab r_ab + sum of W_a r_a) / S)) of the S streams present and their pairs.

    Every stream is projected to `dim`, with sinusoids of its time (streams without one: of the step's number). r_ab:
    the steps of a after `layers` layers over those of b, pooled over the steps of a by attention or their mean; r_a:
    the steps of a themselves, pooled. What is there answers as if an absent stream did not exist. Attention over one
    key has the weight 1 whatever asks, so that training refuses streams stored as one vector per utterance. Raises
    BadConfig for fewer than two streams and a `dim` that does not divide by `heads`.
    """

    def __init__(
        self,
        dims: dict[str, int],
        *,
        dim: int = 64,
        layers: int = 1,
        heads: int = 4,
        expand: int = 2,
        dropout: float = 0.1,
        pool: Literal["attention", "mean"] = "attention",
    ) -> None:
        super().__init__()
        if min(dim, layers, heads, expand) < 1 or dim % heads:
            message = f"no cross_attention has dim={dim}, heads={heads}, layers={layers}"
            raise BadConfig(message, "dim: a multiple of heads")
        if len(dims) < 2:
            raise BadConfig("a fusion by cross-attention of one stream", "add a stream, or choose fusion=concat")
        self.dim, self.pairs = dim, {f"{a} over {b}": (a, b) for a, b in permutations(dims, 2)}
        self.project = nn.ModuleDict({name: nn.Linear(d, dim) for name, d in dims.items()})

        def stack() -> nn.ModuleList:
            return nn.ModuleList(CrossLayer(dim, heads, expand * dim, dropout) for _ in range(layers))

        self.layers = nn.ModuleDict({pair: stack() for pair in self.pairs})
        parts = [*self.pairs, *(f"{name} alone" for name in dims)]
        self.pool = nn.ModuleDict({part: AttentionPool(dim) for part in parts} if pool == "attention" else {})
        self.join, self.dropout = nn.ModuleDict({part: nn.Linear(dim, dim) for part in parts}), nn.Dropout(dropout)

    def forward(self, encoded: Encoded) -> Fused:
        """Tokens of any rate -> pooled [N, dim]."""
        there = dict(zip(encoded.streams, encoded.present.unbind(1), strict=True))
        shown = {s: encoded.mask[s] & here.unsqueeze(1) for s, here in there.items()}
        steps = {s: self._placed(encoded, s) * shown[s].unsqueeze(-1) for s in encoded.streams}
        found = [self._joined(f"{s} alone", x, shown[s], there[s]) for s, x in steps.items()]
        for pair, (a, b) in self.pairs.items():
            x = steps[a]
            for layer in self.layers[pair]:  # type: ignore[attr-defined]
                x = layer(x, steps[b], shown[b].unsqueeze(1))
            found.append(self._joined(pair, x, shown[a], there[a] & there[b]))
        parts = encoded.present.sum(1, keepdim=True).clamp_min(1)  # squared: how many of them exist
        return Fused(self.dropout(F.gelu(torch.stack(found).sum(0) / parts)))

    def _joined(self, part: str, x: Tensor, mask: Tensor, there: Tensor) -> Tensor:
        """x [N, T, dim] over its valid steps, through the part's own layer; 0 where it does not exist: [N, dim]."""
        pooled = self.pool[part](x, mask) if len(self.pool) else masked_mean(x, mask)
        joined: Tensor = self.join[part](pooled) * there.unsqueeze(1)
        return joined

    def _placed(self, encoded: Encoded, stream: str) -> Tensor:
        """The steps of a stream in `dim` numbers, with their place in time."""
        x = self.project[stream](encoded.tokens[stream])
        return x + in_time(encoded, stream, self.dim).to(x.dtype)
