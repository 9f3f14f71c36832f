"""Convolutions over a log-mel spectrogram, pooled over time by attention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import Encoding, StreamSpec
from affuse.layers.log_mel import LogMel, spec_augment, stretch, trim_silence
from affuse.layers.masked import (
    AttentionPool,
    MaskedBatchNorm,
    masked_max_pool,
    masked_mean,
    pool_mask,
)
from affuse.layers.standardise import Standardise

CARD = {
    "summary": "convolutions over a log-mel spectrogram, attention and maximum over time",
    "source": "affuse; SpecAugment after Park et al. 2019",
    "entry": "LogMelCNN",
    "modalities": ["audio"],
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0",
}


class LogMelInput(nn.Module):
    """A waveform or stored log-mel frames -> normalised image [N, channels, T', F] and its mask [N, T'].

    Channels: the level standardised by the training split (`fit`), and this less the utterance's own mean. Levels are
    cut at `range_db` under the utterance's loudest, and quiet ends are left out at `trim_db` under it (0: not done). In
    training, rows are stretched in time and shifted in frequency, and intervals of both are set to 0 (SpecAugment).
    """

    mean: Tensor
    std: Tensor
    channels = 2

    def __init__(
        self,
        spec: StreamSpec,
        n_mels: int,
        window: int,
        hop: int,
        trim_db: float,
        range_db: float,
        vary: Mapping[str, float],
    ) -> None:
        super().__init__()
        if len(spec.shape) > 1:
            raise BadConfig(
                f"stream '{spec.name}' has steps of shape {spec.shape}, no waveform and no log-mel frames",
                "give the encoder a stream of shape () or (n_mels,)",
            )
        self.log_mel = None if spec.shape else LogMel(int(spec.rate), n_mels, window, hop)
        self.bands = spec.shape[0] if spec.shape else n_mels
        self.trim_db, self.range_db, self.vary = trim_db, range_db, dict(vary)
        self.register_buffer("mean", torch.full((self.bands,), -50.0))
        self.register_buffer("std", torch.full((self.bands,), 20.0))

    def frames(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel dB [N, T', F] without quiet ends, and the frame mask."""
        if self.log_mel is not None:
            x, mask = self.log_mel(x * mask), self.log_mel.frame_mask(mask)
        x = torch.where(x.isnan(), self.mean, x)  # missing numbers of stored frames
        if self.range_db > 0:
            loudest = x.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax((1, 2), keepdim=True)
            x = torch.maximum(x, torch.where(loudest.isfinite(), loudest - self.range_db, 0.0))
        return trim_silence(x, mask, self.trim_db) if self.trim_db > 0 else (x, mask)

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set mean and std of each band from the training split's (x, mask)."""
        norm = Standardise(self.bands).to(self.mean.device)
        norm.fit(self.frames(x, mask) for x, mask in batches)
        self.mean.copy_(norm.mean)
        self.std.copy_(norm.std.clamp_min(1e-2))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Image and mask; 0 outside the mask."""
        x, mask = self.frames(x, mask)
        level = (x - self.mean) / self.std
        if self.training and (self.vary["stretch"] > 0 or self.vary["shift"] > 0):
            level, mask = stretch(level, mask, time=self.vary["stretch"], shift=self.vary["shift"])
        level = level * mask.unsqueeze(-1)
        own = (level - masked_mean(level, mask).unsqueeze(1)) * mask.unsqueeze(-1)
        image = torch.stack([level, own], dim=-1).movedim(-1, 1)  # channels last in memory
        if self.training:
            shares = {"time_share": self.vary["time_mask"], "freq_share": self.vary["freq_mask"]}
            image = spec_augment(image, mask, time_masks=1, freq_masks=1, **shares)
        return image, mask


class ConvBlock(nn.Module):
    """Convolution, masked batch normalisation, ReLU, max pooling or stride, dropout of whole channels."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, step: tuple[int, int], pool: bool, dropout: float
    ) -> None:
        super().__init__()
        self.step, self.pool = step, pool
        self.conv = nn.Conv2d(inputs, outputs, kernel, 1 if pool else step, padding=kernel // 2, bias=False)
        self.norm, self.dropout = MaskedBatchNorm(outputs), nn.Dropout2d(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, C, T, F], 0 outside mask -> the same, `step` times smaller."""
        x = self.conv(x)
        x, mask = masked_max_pool(x, mask, self.step) if self.pool else (x, pool_mask(mask, self.step[0]))
        x = nn.functional.relu(self.norm(x, mask))  # norm's zeros outside the mask stay zeros
        return self.dropout(x), mask


class ConvFrames(nn.Module):
    """A 5x5 convolution that halves the bands, 3x3 blocks with max pooling, then one projection of all bands.

    `channels`: one number per block. Every block halves the bands; all but the first and the last halve the time.
    """

    def __init__(self, bands: int, inputs: int, dim: int, channels: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        widths, last = (inputs, *channels), len(channels) - 1
        self.blocks = nn.ModuleList(
            ConvBlock(widths[k], width, 3 if k else 5, (2 if 0 < k < last else 1, 2), k > 0, dropout)
            for k, width in enumerate(channels)
        )
        for _ in channels:
            bands = -(-bands // 2)
        self.project = nn.Linear(bands * channels[-1], dim)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, C, T, F], 0 outside mask -> tokens [N, T', dim] and their mask."""
        for block in self.blocks:
            x, mask = block(x, mask)
        return self.project(x.transpose(1, 2).flatten(2)).relu() * mask.unsqueeze(-1), mask


class TimePool(nn.Module):
    """Attention pooling and the maximum over time, concatenated and projected: tokens [N, T, D] -> [N, D]."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.attention = AttentionPool(dim)
        self.project = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """One vector per row; zeros for a row without content."""
        highest = x.masked_fill(~mask.unsqueeze(-1), torch.finfo(x.dtype).min).amax(1) * mask.any(1, keepdim=True)
        return self.project(torch.cat([self.attention(x, mask), highest], dim=1)) * mask.any(1, keepdim=True)


class LogMelCNN(nn.Module):
    """Encoder of a waveform [N, T] (or stored log-mel dB [N, T, n_mels]) by convolutions.

    `trim_db`: quiet ends are left out; `range_db`: lower levels are raised to this far under the utterance's loudest
    band (codecs remove them anyway); `stretch` (share), `shift` (bands), `time_mask`, `freq_mask` (shares):
    augmentation in training. Call `fit` on the training split first. In eval mode the result depends neither on padding
    nor on the other rows; a row without content gives zeros.
    """

    def __init__(
        self,
        spec: StreamSpec,
        *,
        dim: int = 128,
        n_mels: int = 64,
        window: int = 640,
        hop: int = 320,
        trim_db: float = 35.0,
        range_db: float = 60.0,
        channels: tuple[int, ...] = (16, 32, 64, 96),
        dropout: float = 0.3,
        conv_dropout: float = 0.05,
        stretch: float = 0.15,
        shift: float = 0.0,
        time_mask: float = 0.1,
        freq_mask: float = 0.12,
    ) -> None:
        super().__init__()
        if dim % 2 or len(channels) < 2:
            message = f"dim = {dim}, {len(channels)} channel sizes"
            raise BadConfig(message, "give an even dim and at least two channel sizes")
        vary = {"stretch": stretch, "shift": shift, "time_mask": time_mask, "freq_mask": freq_mask}
        if not 0 <= vary["stretch"] < 1:
            raise BadConfig(f"stretch = {vary['stretch']}", "give a share from 0 up to 1, such as 0.15")
        self.dim = dim
        frames = spec.rate if spec.shape else spec.rate / hop
        timed = trim_db <= 0 and vary["stretch"] <= 0  # otherwise tokens have no known time
        self.rate = frames / 2 ** (len(channels) - 2) if timed else 0.0
        self.input = LogMelInput(spec, n_mels, window, hop, trim_db, range_db, vary)
        self.frames = ConvFrames(self.input.bands, self.input.channels, dim, channels, conv_dropout)
        self.dropout, self.pool = nn.Dropout(dropout), TimePool(dim, dropout)
        self.recurrent = self._recurrent()

    def _recurrent(self) -> nn.Module | None:
        """What runs over the convolved frames."""
        return None

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the normalisation of each band on the training split's (x, mask)."""
        self.input.fit(batches)

    def forward(self, x: Tensor, mask: Tensor) -> Encoding:
        """x [N, T] or [N, T, n_mels] with mask [N, T] -> tokens [N, T', dim], mask [N, T'], pooled [N, dim]."""
        tokens, mask = self.frames(*self.input(x, mask))
        if self.recurrent is not None:
            tokens = self.recurrent(self.dropout(tokens), mask)
        return Encoding(tokens, mask, self.pool(tokens, mask))
