"""xLSTM over the steps of one stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import Encoding, StreamSpec
from affuse.layers.masked import AttentionPool, masked_mean
from affuse.layers.standardise import Standardise
from affuse.layers.xlstm import XLSTM, Kind

CARD = {
    "summary": "standardised vectors through mLSTM or sLSTM blocks, both ways or forward only; a token per step",
    "source": "Beck et al., xLSTM: Extended Long Short-Term Memory, NeurIPS 2024",
    "entry": "XLSTMEncoder",
    "modalities": ["audio", "vision", "text"],
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0",
}


class XLSTMEncoder(nn.Module):
    """x [N, T, D] (NaN = missing number), mask [N, T] -> Encoding with dim, a token per step.

    `blocks`: mlstm (time in parallel) or slstm (a loop over time), from the first to the last. `causal`: forward only;
    else each block has a second cell for the other direction. `pool`: attention, mean, or the last valid step, which a
    causal one has read everything at. Inputs are standardised by the training split. Raises BadConfig for steps that
    are no vectors and a `dim` that does not divide by `heads`.
    """

    def __init__(
        self,
        spec: StreamSpec,
        *,
        dim: int = 64,
        blocks: tuple[Kind, ...] = ("mlstm",),
        heads: int = 4,
        expand: int = 2,
        kernel: int = 4,
        causal: bool = False,
        dropout: float = 0.1,
        pool: Literal["attention", "mean", "last"] = "attention",
        standardise: bool = True,
    ) -> None:
        super().__init__()
        if len(spec.shape) != 1:
            raise BadConfig(f"stream '{spec.name}' has steps of shape {spec.shape}", "xlstm needs vectors (D,)")
        self.dim, self.rate, self.how = dim, spec.rate, pool
        self.norm = Standardise(spec.shape[0]) if standardise else None
        self.project = nn.Linear(spec.shape[0], dim)
        self.over = XLSTM(
            dim, kinds=blocks, heads=heads, expand=expand, kernel=kernel, both=not causal, dropout=dropout
        )
        self.pool = AttentionPool(dim) if pool == "attention" else None

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the normalisation on (x, mask) of the training split."""
        if self.norm is not None:
            self.norm.fit(batches)

    def forward(self, x: Tensor, mask: Tensor) -> Encoding:
        """Encoding with tokens [N, T, dim], mask [N, T], pooled [N, dim]."""
        h = self.project(x.nan_to_num(0.0, 0.0, 0.0) if self.norm is None else self.norm(x))
        tokens = self.over(h, mask)
        if self.pool is not None:
            return Encoding(tokens, mask, self.pool(tokens, mask))
        return Encoding(tokens, mask, masked_mean(tokens, mask) if self.how == "mean" else _last(tokens, mask))


def _last(tokens: Tensor, mask: Tensor) -> Tensor:
    """The last valid step [N, d] of tokens [N, T, d]; zeros where there is none."""
    steps = mask.cumsum(1).argmax(1)
    return tokens.gather(1, steps.view(-1, 1, 1).expand(-1, 1, tokens.shape[2])).squeeze(1)
