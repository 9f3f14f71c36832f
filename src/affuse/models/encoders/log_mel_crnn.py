"""Convolutions over a log-mel spectrogram, then a bidirectional GRU over time."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import Encoding, StreamSpec
from affuse.layers.masked import MaskedGRU
from affuse.models.encoders.log_mel_cnn import ConvFrames, LogMelInput, TimePool

CARD = {
    "summary": "3x3 convolutions over a log-mel spectrogram, then a BiGRU, attention and statistics pooling",
    "source": "affuse; SpecAugment after Park et al. 2019",
    "entry": "LogMelCRNN",
    "modalities": ["audio"],
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0",
}


class LogMelCRNN(nn.Module):
    """Encoder of a waveform [N, T] (or stored log-mel dB [N, T, n_mels]) by convolutions and a BiGRU.

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
        if dim % 2:
            raise BadConfig(f"dim={dim} cannot be shared by two directions", "choose an even dim")
        self.dim = dim
        self.input = LogMelInput(
            spec, n_mels=n_mels, window=window, hop=hop, range_db=range_db,
            time_masks=time_masks, time_share=time_share, freq_masks=freq_masks, freq_share=freq_share,
        )  # fmt: skip
        self.frames = ConvFrames(self.input.bands, self.input.channels, dim, channels, pools, dropout, pooled)
        self.dropout = nn.Dropout(dropout)
        self.gru = MaskedGRU(dim, dim // 2)
        self.pool = TimePool(dim, dropout)

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the normalisation of each band on the training split's (x, mask)."""
        self.input.fit(batches)

    def forward(self, x: Tensor, mask: Tensor) -> Encoding:
        """x [N, T] or [N, T, n_mels] with mask [N, T] -> tokens [N, T', dim], mask [N, T'], pooled [N, dim]."""
        tokens, mask = self.frames(*self.input(x, mask))
        tokens = self.gru(self.dropout(tokens), mask)
        return Encoding(tokens, mask, self.pool(tokens, mask))
