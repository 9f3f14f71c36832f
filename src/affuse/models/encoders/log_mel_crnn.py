"""Convolutions over a log-mel spectrogram, then a bidirectional GRU over time."""

from __future__ import annotations

from affuse.layers.masked import MaskedGRU
from affuse.models.encoders.log_mel_cnn import LogMelCNN

CARD = {
    "summary": "convolutions over a log-mel spectrogram, a bidirectional GRU, attention and maximum over time",
    "source": "affuse; SpecAugment after Park et al. 2019",
    "entry": "LogMelCRNN",
    "modalities": ["audio"],
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0",
}


class LogMelCRNN(LogMelCNN):
    """LogMelCNN with a bidirectional GRU between its convolutions and its pooling; the same options."""

    def _recurrent(self) -> MaskedGRU:
        """What runs over the convolved frames."""
        return MaskedGRU(self.dim, self.dim // 2)
