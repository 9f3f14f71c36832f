"""Temporal convolutional network: dilated convolutions over the steps of one stream, causal or not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from affuse.core.errors import BadConfig
from affuse.core.types import Encoding, StreamSpec
from affuse.layers.masked import MaskedBatchNorm, masked_mean
from affuse.layers.standardise import Standardise

CARD = {
    "summary": "dilated convolutions with weight normalisation over time, causal or centred; a token per step",
    "source": "Bai et al., An Empirical Evaluation of Generic Convolutional and Recurrent Networks, 2018; "
    "layout after LFAN (Zhang et al., CVPR-W 2023)",
    "entry": "TCN",
    "modalities": ["audio", "vision", "text"],
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0",
}


class Level(nn.Module):
    """y = lrelu(v + P x), v = drop(lrelu(conv(u))), u = drop(lrelu(conv(x))); P: 1x1 where the width changes."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int, dropout: float, causal: bool) -> None:
        super().__init__()
        reach = (kernel - 1) * dilation
        self.before = reach if causal else reach // 2
        self.after = reach - self.before
        self.first = convolution(inputs, outputs, kernel, dilation)
        self.second = convolution(outputs, outputs, kernel, dilation)
        self.skip = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.act, self.dropout = nn.LeakyReLU(0.01), nn.Dropout(dropout)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """x [N, C, T], 0 outside keep [N, 1, T] -> the same."""
        v = self._step(self.second, self._step(self.first, x) * keep)
        return self.act(v + self.skip(x)) * keep

    def _step(self, conv: nn.Module, x: Tensor) -> Tensor:
        found: Tensor = self.dropout(self.act(conv(nn.functional.pad(x, (self.before, self.after)))))
        return found


def convolution(inputs: int, outputs: int, kernel: int, dilation: int) -> nn.Module:
    """A convolution with weight normalisation, whose length starts as that of the Xavier-uniform weight."""
    conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return weight_norm(conv)  # what was set before is kept: g = ||v||


class TCN(nn.Module):
    """x [N, T, D] (NaN = missing number), mask [N, T] -> Encoding with dim = the last of `channels`, a token per step.

    Level i has dilation 2^i; a causal answer depends on 1 + 2 (kernel - 1) (2^levels - 1) steps up to its own, a
    centred one on as many around it. What lies outside the mask is 0 at every level and in no statistic of the last
    normalisation. Inputs are standardised by the training split. Raises BadConfig for steps that are no vectors and for
    an even `kernel` that looks both ways.
    """

    def __init__(
        self,
        spec: StreamSpec,
        *,
        channels: tuple[int, ...] = (64, 64, 32, 32),
        kernel: int = 5,
        dropout: float = 0.1,
        causal: bool = True,
        norm: Literal["batch", "none"] = "batch",
        standardise: bool = True,
    ) -> None:
        super().__init__()
        if len(spec.shape) != 1:
            raise BadConfig(f"stream '{spec.name}' has steps of shape {spec.shape}", "tcn needs vectors (D,)")
        if not channels or kernel < 1 or (not causal and kernel % 2 == 0):
            raise BadConfig(
                f"no tcn has channels={channels}, kernel={kernel}, causal={causal}", "centred ones need an odd kernel"
            )
        self.dim, self.rate, self.causal = channels[-1], spec.rate, causal
        self.standardise = Standardise(spec.shape[0]) if standardise else None
        widths = (spec.shape[0], *channels)
        self.levels = nn.ModuleList(
            Level(a, b, kernel, 2**i, dropout, causal) for i, (a, b) in enumerate(zip(widths, channels, strict=False))
        )
        self.norm = MaskedBatchNorm(self.dim) if norm == "batch" else None

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the normalisation on (x, mask) of the training split."""
        if self.standardise is not None:
            self.standardise.fit(batches)

    def forward(self, x: Tensor, mask: Tensor) -> Encoding:
        """Encoding with tokens [N, T, dim], mask [N, T], pooled [N, dim]."""
        x = x.nan_to_num() if self.standardise is None else self.standardise(x)
        keep = mask.unsqueeze(1).to(x.dtype)
        h = x.transpose(1, 2) * keep
        for level in self.levels:
            h = level(h, keep)
        if self.norm is not None:
            h = self.norm(h, mask)
        tokens = h.transpose(1, 2) * mask.unsqueeze(-1)
        return Encoding(tokens, mask, masked_mean(tokens, mask))


def receptive_field(levels: int, kernel: int) -> int:
    """Steps that a token depends on, its own counted."""
    return 1 + 2 * (kernel - 1) * (2**levels - 1)
