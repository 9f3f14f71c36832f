"""Log-mel spectrograms on disk, for encoders that need no gradient into the sound."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from affuse.core.errors import BadConfig
from affuse.core.types import Feature, StreamSpec

if TYPE_CHECKING:
    from affuse.layers.log_mel import LogMel
    from affuse.media.clip import Clip

CARD = {
    "summary": "log-mel power in dB, 100 frames per second",
    "source": "affuse; mel scale after Slaney 1998, equal to librosa's",
    "entry": "LogMelSpectrogram",
    "modalities": ["audio"],
    "licence": "Apache-2.0",
    "version": 1,
    "download": "nothing",
    "rate": "100",
    "dim": "n_mels, 64 by default",
}


class LogMelSpectrogram:
    """Clip -> dB [T, n_mels], frame t centred at t * hop samples, -100 dB where nothing sounds.

    The window reaches over zeros at both ends, so any recorded sample makes at least one frame. A frame is
    valid where its centre was recorded. `window` and `hop` are in samples, `f_min` and `f_max` in Hz.
    """

    def __init__(
        self,
        *,
        rate: int = 16000,
        n_mels: int = 64,
        window: int = 400,
        hop: int = 160,
        f_min: float = 0.0,
        f_max: float | None = None,
    ) -> None:
        if min(rate, n_mels, window, hop) < 1:
            raise BadConfig(
                f"no spectrogram has rate={rate}, n_mels={n_mels}, window={window}, hop={hop}",
                "give numbers of 1 or more",
            )
        self.rate, self.n_mels, self.window, self.hop = rate, n_mels, window, hop
        self.f_min, self.f_max = f_min, f_max

    @property
    def spec(self) -> StreamSpec:
        """One frame per step."""
        return StreamSpec("log_mel", "audio", (self.n_mels,), self.rate / self.hop)

    @cached_property
    def _layer(self) -> LogMel:
        from affuse.layers.log_mel import LogMel

        return LogMel(self.rate, self.n_mels, self.window, self.hop, self.f_min, self.f_max)

    def __call__(self, clip: Clip) -> Feature:
        """The spectrogram of the clip's sound."""
        import torch

        audio = clip.read_audio(self.rate)
        if audio is None or not audio.valid.any():
            return Feature(np.zeros((0, self.n_mels), np.float32))
        with torch.inference_mode():
            values = self._layer(torch.as_tensor(audio.samples).unsqueeze(0))[0].numpy()
            valid = self._layer.frame_mask(torch.as_tensor(audio.valid).unsqueeze(0))[0].numpy()
        return Feature(values, None if valid.all() else valid)
