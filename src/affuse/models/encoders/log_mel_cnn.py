"""Convolutions over a log-mel spectrogram, pooled over time by attention."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import Encoding, StreamSpec
from affuse.layers.log_mel import LogMel, deltas, spec_augment
from affuse.layers.masked import (
    AttentionPool,
    MaskedBatchNorm,
    masked_max_pool,
    masked_mean,
    masked_std,
    pool_mask,
)

CARD = {
    "summary": "3x3 convolutions over a log-mel spectrogram, attention and statistics pooling",
    "source": "affuse; SpecAugment after Park et al. 2019",
    "entry": "LogMelCNN",
    "modalities": ["audio"],
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0",
}


class LogMelInput(nn.Module):
    """A waveform or stored log-mel frames -> normalised image [N, channels, T', F] and its mask [N, T'].

    Channels: the level against the training split (`fit`), the level against the utterance's own mean, and
    the change in time. In training, time and frequency stretches are blanked (SpecAugment).
    """

    mean: Tensor
    std: Tensor
    channels = 3

    def __init__(
        self,
        spec: StreamSpec,
        *,
        n_mels: int,
        window: int,
        hop: int,
        range_db: float,
        time_masks: int,
        time_share: float,
        freq_masks: int,
        freq_share: float,
    ) -> None:
        super().__init__()
        if len(spec.shape) > 1:
            raise BadConfig(
                f"stream '{spec.name}' has steps of shape {spec.shape}, no waveform and no log-mel frames",
                "give the encoder a stream of shape () or (n_mels,)",
            )
        self.log_mel = None if spec.shape else LogMel(int(spec.rate), n_mels, window, hop)
        self.range_db = range_db
        self.bands = spec.shape[0] if spec.shape else n_mels
        self.masking = {
            "time_masks": time_masks, "time_share": time_share, "freq_masks": freq_masks, "freq_share": freq_share
        }
        self.register_buffer("mean", torch.full((self.bands,), -50.0))
        self.register_buffer("std", torch.full((self.bands,), 20.0))

    def frames(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel dB [N, T', F], no lower than `range_db` below the row's loudest element, and the frame mask."""
        if self.log_mel is not None:
            x, mask = self.log_mel(x * mask), self.log_mel.frame_mask(mask)
        loudest = x.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax((1, 2), keepdim=True)
        return torch.maximum(x, loudest - self.range_db), mask

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set mean and std of each band from the training split's (x, mask), in double precision."""
        count, first, second = 0, 0.0, 0.0
        for x, mask in batches:
            frames, valid = self.frames(x, mask)
            levels = frames[valid].double()
            count, first, second = count + len(levels), first + levels.sum(0), second + levels.square().sum(0)
        if count:
            mean = first / count
            self.mean.copy_(mean)
            self.std.copy_((second / count - mean.square()).clamp_min(1e-4).sqrt())

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Image and mask; 0 outside the mask."""
        x, mask = self.frames(x, mask)
        heard = (x - self.mean).mean(2)
        loud = mask & (heard > heard.masked_fill(~mask, -torch.inf).amax(1, keepdim=True) - 30)
        level = (x - self.mean) / self.std * mask.unsqueeze(-1)
        own = (level - masked_mean(level, loud).unsqueeze(1)) * mask.unsqueeze(-1)
        image = torch.stack([level, own, 2 * deltas(level, mask)], dim=-1).movedim(-1, 1)  # channels last in memory
        return spec_augment(image, mask, **self.masking) if self.training else image, mask


class ConvBlock(nn.Module):
    """3x3 convolution, max pooling, masked batch normalisation, ReLU, dropout of whole channels."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int], pool: bool, dropout: float) -> None:
        super().__init__()
        self.stride, self.pool = stride, pool
        self.conv = nn.Conv2d(inputs, outputs, 3, 1 if pool else stride, padding=1, bias=False)
        self.norm, self.dropout = MaskedBatchNorm(outputs), nn.Dropout2d(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, C, T, F], 0 outside mask -> the same, pooled."""
        x = self.conv(x)
        x, mask = masked_max_pool(x, mask, self.stride) if self.pool else (x, pool_mask(mask, self.stride[0]))
        x = nn.functional.relu(self.norm(x, mask))  # norm's zeros outside the mask stay zeros
        return self.dropout(x), mask


class ConvFrames(nn.Module):
    """Blocks of convolutions over the image, then one projection of all bands: -> tokens [N, T'', dim].

    `channels` and `pools` (time, frequency) have one entry per block.
    """

    def __init__(
        self,
        bands: int,
        inputs: int,
        dim: int,
        channels: tuple[int, ...],
        pools: tuple[tuple[int, int], ...],
        dropout: float,
        pooled: tuple[int, ...],
    ) -> None:
        super().__init__()
        if len(channels) != len(pools):
            raise BadConfig(
                f"{len(channels)} channel sizes and {len(pools)} pool sizes", "give one of each per conv block"
            )
        widths = (inputs, *channels)
        self.blocks = nn.ModuleList(
            ConvBlock(i, o, tuple(s), k in pooled, dropout) for k, (i, o, s) in enumerate(zip(widths, channels, pools))
        )
        for _, f in pools:
            bands = -(-bands // f)
        self.project = nn.Linear(bands * channels[-1], dim, bias=False)
        self.norm = MaskedBatchNorm(dim)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, C, T, F], 0 outside mask -> tokens and their mask."""
        for block in self.blocks:
            x, mask = block(x, mask)
        x = self.project(x.transpose(1, 2).flatten(2))
        return nn.functional.relu(self.norm(x.transpose(1, 2), mask)).transpose(1, 2), mask


class TimePool(nn.Module):
    """Attention pooling beside mean and deviation, projected back: tokens [N, T, D] -> [N, D]."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.attention = AttentionPool(dim)
        self.project = nn.Sequential(nn.Linear(3 * dim, dim), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """One vector per row; zeros for a row without content."""
        summary = torch.cat([self.attention(x, mask), masked_mean(x, mask), masked_std(x, mask)], dim=1)
        return self.project(summary) * mask.any(1, keepdim=True)


class LogMelCNN(nn.Module):
    """Encoder of a waveform [N, T] (or stored log-mel dB [N, T, n_mels]) by convolutions.

    Call `fit` on the training split before training. In eval mode the result depends neither on padding nor
    on the other rows; a row without content gives zeros.
    """

    def __init__(
        self,
        spec: StreamSpec,
        *,
        dim: int = 128,
        n_mels: int = 64,
        window: int = 512,
        hop: int = 320,
        range_db: float = 60.0,
        channels: tuple[int, ...] = (24, 48, 64, 96),
        pools: tuple[tuple[int, int], ...] = ((1, 2), (2, 2), (2, 2), (1, 2)),
        dropout: float = 0.2,
        pooled: tuple[int, ...] = (),
        time_masks: int = 2,
        time_share: float = 0.1,
        freq_masks: int = 2,
        freq_share: float = 0.15,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.input = LogMelInput(
            spec, n_mels=n_mels, window=window, hop=hop, range_db=range_db,
            time_masks=time_masks, time_share=time_share, freq_masks=freq_masks, freq_share=freq_share,
        )  # fmt: skip
        self.frames = ConvFrames(self.input.bands, self.input.channels, dim, channels, pools, dropout, pooled)
        self.pool = TimePool(dim, dropout)

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the normalisation of each band on the training split's (x, mask)."""
        self.input.fit(batches)

    def forward(self, x: Tensor, mask: Tensor) -> Encoding:
        """x [N, T] or [N, T, n_mels] with mask [N, T] -> tokens [N, T', dim], mask [N, T'], pooled [N, dim]."""
        tokens, mask = self.frames(*self.input(x, mask))
        return Encoding(tokens, mask, self.pool(tokens, mask))
