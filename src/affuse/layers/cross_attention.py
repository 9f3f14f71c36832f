"""One layer in which the steps of one sequence attend to those of another."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class CrossLayer(nn.Module):
    """Post-norm: x = LN(q + attention(q, kv)), then LN(x + W_2 relu(W_1 x)), over the steps of kv that exist."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.p = heads, dropout
        self.query, self.key_value, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.feed = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.first, self.second, self.dropout = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.Dropout(dropout)

    def forward(self, q: Tensor, kv: Tensor, attended: Tensor) -> Tensor:
        """q [N, T, d], kv [N, K, d], attended [N, 1 or T, K] bool -> [N, T, d]; no neighbour adds nothing."""
        heads = (self.heads, -1)
        query = self.query(q).unflatten(-1, heads).transpose(1, 2)
        key, value = (x.unflatten(-1, heads).transpose(1, 2) for x in self.key_value(kv).chunk(2, -1))
        some = attended.any(-1, keepdim=True)
        allowed = (attended | ~some).unsqueeze(1)  # a softmax over nothing would be NaN
        mixed = F.scaled_dot_product_attention(query, key, value, allowed, self.p if self.training else 0.0)
        mixed = self.out(mixed.transpose(1, 2).flatten(2)) * some
        h = self.first(q + self.dropout(mixed))
        return self.second(h + self.dropout(self.feed(h)))
