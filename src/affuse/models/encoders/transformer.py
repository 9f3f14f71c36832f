"""Pre-norm transformer over the steps of one stream, as word-aligned sentiment models use it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import Encoding, StreamSpec
from affuse.layers.masked import masked_mean
from affuse.layers.positions import sinusoids
from affuse.layers.standardise import Standardise
from affuse.layers.transformer import Layer, can_attend

CARD = {
    "summary": "standardised vectors through a pre-norm transformer, then its first step or the mean over time",
    "source": "Vaswani et al. 2017; layout after MulT (Tsai et al., ACL 2019) and BCGM (CMU-MOSI)",
    "entry": "Transformer",
    "modalities": ["audio", "vision", "text"],
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0",
}


class Transformer(nn.Module):
    """x [N, T, D] (NaN = missing number), mask [N, T] -> Encoding; steps outside the mask are not attended to.

    z = sqrt(dim) W x + sinusoids, then `layers` pre-norm layers and a last normalisation. `pool`: the `first` valid
    step (as published) or the `mean` of all. Inputs are standardised by the training split (`fit`). Raises BadConfig
    for steps that are no vectors and for a `dim` that does not divide by `heads`.
    """

    def __init__(
        self,
        spec: StreamSpec,
        *,
        dim: int = 40,
        layers: int = 5,
        heads: int = 5,
        expand: int = 4,
        attention_dropout: float = 0.15,
        relu_dropout: float = 0.15,
        residual_dropout: float = 0.1,
        embedding_dropout: float = 0.2,
        pool: Literal["first", "mean"] = "first",
    ) -> None:
        super().__init__()
        if len(spec.shape) != 1:
            raise BadConfig(f"stream '{spec.name}' has steps of shape {spec.shape}", "transformer needs vectors (D,)")
        if min(dim, layers, heads) < 1 or dim % heads:
            raise BadConfig(f"no transformer has dim={dim}, heads={heads}, layers={layers}", "dim: a multiple of heads")
        self.dim, self.rate, self.pool = dim, spec.rate, pool
        self.norm = Standardise(spec.shape[0])
        self.project, self.dropout = nn.Linear(spec.shape[0], dim), nn.Dropout(embedding_dropout)
        dropouts = (attention_dropout, relu_dropout, residual_dropout)
        self.layers = nn.ModuleList(Layer(dim, heads, expand, *dropouts) for _ in range(layers))
        self.last = nn.LayerNorm(dim)

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the normalisation on (x, mask) of the training split."""
        self.norm.fit(batches)

    def forward(self, x: Tensor, mask: Tensor) -> Encoding:
        """Encoding with tokens [N, T, dim], mask [N, T], pooled [N, dim]."""
        h = self.project(self.norm(x)) * self.dim**0.5
        h = self.dropout(h + sinusoids(torch.arange(x.shape[1], device=x.device), self.dim).to(h.dtype))
        attended = can_attend(mask)
        for layer in self.layers:
            h = layer(h, attended)
        tokens = self.last(h) * mask.unsqueeze(-1)
        return Encoding(tokens, mask, masked_mean(tokens, mask) if self.pool == "mean" else _first(tokens, mask))


def _first(tokens: Tensor, mask: Tensor) -> Tensor:
    """The first valid step [N, d] of tokens [N, T, d]."""
    return tokens[torch.arange(len(tokens), device=tokens.device), mask.int().argmax(1)]
