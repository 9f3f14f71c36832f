"""Learned filters on the raw waveform, convolutions over time and frequency, and what runs over the frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import Encoding, StreamSpec
from affuse.layers.filterbank import Filterbank
from affuse.layers.log_mel import spec_augment, trim_silence
from affuse.layers.masked import MaskedBatchNorm, even, masked_mean
from affuse.layers.over_time import OverTime, over_time
from affuse.models.encoders.log_mel_cnn import ConvFrames, TimePool

CARD = {
    "summary": "learned band-pass filters that start as mel bands, 2-D convolutions, then xLSTM, LSTM or others",
    "source": "Zeghidour et al., Learning Filterbanks from Raw Speech for Phone Recognition, ICASSP 2018; xLSTM: Beck "
    "et al., NeurIPS 2024",
    "entry": "FilterbankCNN",
    "modalities": ["audio"],
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0",
}


class FilterbankCNN(nn.Module):
    """Samples x [N, T], mask [N, T] -> Encoding with a token every 10 ms * 2^(len(channels) - 2).

    Every utterance is scaled to mean 0 and variance 1. `bands` pairs of filters give energies in dB every 10 ms;
    `trim_db`: ends that are so far below the loudest band are left out, and tokens then have no known time (0: nothing
    is). These, and these less their mean over the utterance, go through a block of 2-D convolutions for each of
    `channels` and a projection to `dim`; then what runs `over` the frames in both directions, and attention and the
    maximum over time. In training an interval of up to `hide_time` of the steps and `hide_bands` of the bands is
    hidden. Raises BadConfig for steps that are no samples, and sizes or shares that do not exist.
    """

    def __init__(
        self,
        spec: StreamSpec,
        *,
        bands: int = 48,
        channels: tuple[int, ...] = (16, 32, 64, 96),
        dim: int = 96,
        over: OverTime = "xlstm",
        layers: int = 1,
        heads: int = 4,
        dropout: float = 0.3,
        conv_dropout: float = 0.05,
        trim_db: float = 0.0,
        hide_time: float = 0.1,
        hide_bands: float = 0.12,
    ) -> None:
        super().__init__()
        if spec.shape != () or spec.rate <= 0:
            message = f"stream '{spec.name}' has steps of shape {spec.shape} at {spec.rate:g} Hz"
            raise BadConfig(message, "filterbank_cnn needs samples: extractor `waveform`")
        if bands < 2 or len(channels) < 2 or not (0 <= hide_time <= 1 and 0 <= hide_bands <= 1):
            message = f"bands={bands}, {len(channels)} channel sizes, hide_time={hide_time}, hide_bands={hide_bands}"
            raise BadConfig(message, "give two bands and two channel sizes or more, and shares from 0 to 1")
        self.dim, self.trim_db, self.hide = dim, trim_db, (hide_time, hide_bands)
        self.front, self.norm = Filterbank(spec.rate, bands), MaskedBatchNorm(bands)
        self.rate = 0.0 if trim_db > 0 else spec.rate / self.front.hop / 2 ** (len(channels) - 2)
        self.frames = ConvFrames(bands, 2, dim, channels, conv_dropout)
        self.dropout = nn.Dropout(dropout)
        self.over = over_time(over, dim, layers=layers, heads=heads, dropout=dropout)
        self.pool = TimePool(dim, dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Encoding:
        """Encoding with tokens [N, T', dim], mask [N, T'], pooled [N, dim]."""
        level, mask = self.front(even(x, mask), mask)
        if self.trim_db > 0:
            level, mask = trim_silence(level, mask, self.trim_db)
        level = self.norm(level.mT, mask).mT
        own = (level - masked_mean(level, mask).unsqueeze(1)) * mask.unsqueeze(-1)
        image = torch.stack([level, own], 1)
        if self.training:
            time, bands = self.hide
            image = spec_augment(image, mask, time_masks=1, time_share=time, freq_masks=1, freq_share=bands)
        tokens, mask = self.frames(image, mask)
        if self.over is not None:
            tokens = self.over(self.dropout(tokens), mask)
        return Encoding(tokens, mask, self.pool(tokens, mask))
