"""Pre-norm transformer layers, with stochastic depth for deep ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.core.errors import BadConfig


class DropPath(nn.Module):
    """Stochastic depth: in training each row of x [N, ...] is 0 with probability p, and else x / (1 - p).

    Source: Huang et al., Deep Networks with Stochastic Depth, ECCV 2016. Raises BadConfig for a p outside 0 <= p < 1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise BadConfig(f"drop_path = {p} is no probability", "give 0 <= drop_path < 1, such as 0.1")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x with some rows dropped; x itself in evaluation."""
        if not self.training or self.p == 0:
            return x
        keep = torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device) >= self.p
        return x * keep / (1 - self.p)


class Layer(nn.Module):
    """h + attention(norm(h)), then + W2 activation(W1 norm(.)); `drop_path` leaves out either of the two."""

    def __init__(
        self,
        dim: int,
        heads: int,
        expand: int,
        attention: float,
        inner: float,
        residual: float,
        *,
        activation: type[nn.Module] = nn.ReLU,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads, self.attention, self.dropout = heads, attention, nn.Dropout(residual)
        self.before, self.between = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.feed = nn.Sequential(
            nn.Linear(dim, expand * dim), activation(), nn.Dropout(inner), nn.Linear(expand * dim, dim)
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, h: Tensor, attended: Tensor | None = None) -> Tensor:
        """h [N, T, dim] -> [N, T, dim]; attended [N, 1, 1, T] bool: which steps are attended to (None: all)."""
        q, k, v = self.project(self.before(h)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.attention if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attended, dropout).transpose(1, 2).flatten(2)
        h = h + self.drop_path(self.dropout(self.out(mixed)))
        return h + self.drop_path(self.dropout(self.feed(self.between(h))))


class Layers(nn.Module):
    """Pre-norm layers as vision transformers have them, and a last normalisation: h [N, T, dim] -> [N, T, dim].

    GELU; dropout after every dense layer but those to queries, keys and values (Dosovitskiy et al., ICLR 2021). The
    probability of stochastic depth rises evenly from 0 in the first layer to `drop_path` in the last. Raises BadConfig
    for sizes below 1 and a `dim` that does not divide by `heads`.
    """

    def __init__(self, dim: int, heads: int, layers: int, expand: int, dropout: float, drop_path: float) -> None:
        super().__init__()
        if min(dim, heads, layers, expand) < 1 or dim % heads:
            message = f"no transformer has dim={dim}, heads={heads}, layers={layers}, expand={expand}"
            raise BadConfig(message, "give at least 1 of each, and dim as a multiple of heads")
        self.layers = nn.ModuleList(
            Layer(
                dim,
                heads,
                expand,
                0.0,
                dropout,
                dropout,
                activation=nn.GELU,
                drop_path=drop_path * i / max(1, layers - 1),
            )
            for i in range(layers)
        )
        self.last = nn.LayerNorm(dim)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """mask [N, T]: the steps that are attended to (None: all); what comes out at other steps means nothing."""
        attended = None if mask is None else can_attend(mask)
        for layer in self.layers:
            h = layer(h, attended)
        normed: Tensor = self.last(h)
        return normed


def can_attend(mask: Tensor) -> Tensor:
    """mask [N, T] as attention wants it, [N, 1, 1, T]; all of an empty row: a softmax over nothing would be NaN."""
    return (mask | ~mask.any(1, keepdim=True))[:, None, None]
