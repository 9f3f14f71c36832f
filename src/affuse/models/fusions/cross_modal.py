"""The steps of one stream attend to themselves, then to those of all others."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.core.errors import BadConfig, UnknownName
from affuse.core.types import Encoded, Fused
from affuse.layers.positions import in_time

CARD = {
    "summary": "pre-norm blocks in which one stream's steps attend to themselves, then to all other streams' steps",
    "source": "Li et al., ALBEF, NeurIPS 2021 (multimodal encoder); audio over video: Ding et al., Learning Aligned "
    "Audiovisual Representations for Multimodal Sentiment Analysis, MRAC 2023",
    "entry": "CrossModal",
    "needs": ["tokens"],
    "gives": ["pooled", "tokens"],
    "licence": "Apache-2.0",
}


class Attention(nn.Module):
    """Multi-head attention of the normalised x over kv; adds nothing where there is nothing to attend to."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.p = heads, dropout
        self.norm = nn.LayerNorm(dim)
        self.query, self.key_value, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, kv: Tensor | None, attended: Tensor) -> Tensor:
        """x [N, T, d], kv [N, K, d] (None: the normalised x itself), attended [N, K] -> x + what was found."""
        own = self.norm(x)
        heads = (self.heads, -1)
        query = self.query(own).unflatten(-1, heads).transpose(1, 2)
        key, value = self.key_value(own if kv is None else kv).unflatten(-1, (2, *heads)).permute(2, 0, 3, 1, 4)
        some = attended.any(-1)[:, None, None]
        allowed = attended[:, None, None] | ~some.unsqueeze(-1)  # a softmax over nothing would be NaN
        found = F.scaled_dot_product_attention(query, key, value, allowed, self.p if self.training else 0.0)
        return x + self.dropout(self.out(found.transpose(1, 2).flatten(2))) * some


class Block(nn.Module):
    """x + self-attention(norm x), + attention(norm x, others), + W_2 gelu(W_1 norm x)."""

    def __init__(self, dim: int, heads: int, expand: int, dropout: float) -> None:
        super().__init__()
        self.own, self.cross = Attention(dim, heads, dropout), Attention(dim, heads, dropout)
        inner = [nn.Linear(dim, expand * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(expand * dim, dim)]
        self.feed = nn.Sequential(nn.LayerNorm(dim), *inner, nn.Dropout(dropout))

    def forward(self, x: Tensor, mask: Tensor, others: Tensor, there: Tensor) -> Tensor:
        """x [N, T, d] with mask [N, T] over others [N, K, d] with mask `there` [N, K] -> [N, T, d]."""
        x = self.cross(self.own(x, None, mask), others, there)
        found: Tensor = x + self.feed(x)
        return found


class CrossModal(nn.Module):
    """pooled: a learned token among the steps of the stream `query`, after `layers` blocks over all other streams.

    Every stream is projected to `dim`, with sinusoids of its time (streams without one: of the step's number) and a
    learned vector per stream. tokens [N, T, dim]: the query's own steps. Where the query is absent the learned token
    attends to the others alone, where these are absent the query to itself.

    Raises UnknownName for a `query` that is no stream (default: the first one), BadConfig for a `dim` that does not
    divide by `heads`.
    """

    def __init__(
        self,
        dims: dict[str, int],
        *,
        query: str = "",
        dim: int = 128,
        layers: int = 2,
        heads: int = 4,
        expand: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if min(dim, layers, heads, expand) < 1 or dim % heads:
            raise BadConfig(f"no cross_modal has dim={dim}, heads={heads}, layers={layers}", "dim: a multiple of heads")
        self.query = query or next(iter(dims))
        if self.query not in dims:
            raise UnknownName.among("stream in fusion.query:", query, dims)
        self.dim = dim
        self.project = nn.ModuleDict({name: nn.Linear(d, dim) for name, d in dims.items()})
        self.stream = nn.ParameterDict({name: nn.Parameter(torch.randn(dim) * 0.02) for name in dims})
        self.first = nn.Parameter(torch.randn(dim) * 0.02)
        self.blocks = nn.ModuleList(Block(dim, heads, expand, dropout) for _ in range(layers))
        self.over, self.last = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, encoded: Encoded) -> Fused:
        """Tokens of any rate -> pooled [N, dim], tokens [N, T, dim], mask [N, T] of the query's steps."""
        shown = {s: encoded.mask[s] & encoded.present[:, i, None] for i, s in enumerate(encoded.streams)}
        steps = {s: self._placed(encoded, s) for s in encoded.streams}
        rest = [s for s in encoded.streams if s != self.query]
        n = len(encoded)
        others = torch.cat([steps[s] for s in rest] or [steps[self.query][:, :0]], 1)
        there = torch.cat([shown[s] for s in rest] or [shown[self.query][:, :0]], 1)
        x = torch.cat([self.first.to(others.dtype).expand(n, 1, -1), steps[self.query]], 1)
        mask = torch.cat([shown[self.query].new_ones(n, 1), shown[self.query]], 1)
        others = self.over(others)
        for block in self.blocks:
            x = block(x, mask, others, there)
        x = self.last(x)
        pooled = x[:, 0] * encoded.present.any(1, keepdim=True)
        tokens = x[:, 1:] * shown[self.query].unsqueeze(-1)
        return Fused(pooled, tokens, shown[self.query], encoded.rate[self.query], encoded.t0[self.query])

    def _placed(self, encoded: Encoded, stream: str) -> Tensor:
        """The steps of a stream in `dim` numbers, with their place in time and their stream."""
        x = self.project[stream](encoded.tokens[stream])
        return x + (in_time(encoded, stream, self.dim) + self.stream[stream]).to(x.dtype)
