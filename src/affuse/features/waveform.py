"""The sound itself, for encoders that learn their own filters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from affuse.core.types import Feature, StreamSpec

if TYPE_CHECKING:
    from affuse.media.clip import Clip

CARD = {
    "summary": "mono waveform at 16 kHz, stored as 16-bit integers",
    "source": "affuse",
    "entry": "Waveform",
    "modalities": ["audio"],
    "licence": "Apache-2.0",
    "version": 1,
}
FULL_SCALE = 32767


class Waveform:
    """Clip -> int16 samples [T]; times the spec's scale they are -1..1, louder is clipped.

    A clip without any recorded sample is absent; silence is data.
    """

    def __init__(self, *, rate: int = 16000) -> None:
        self.rate = rate

    @property
    def spec(self) -> StreamSpec:
        """One sample per step."""
        return StreamSpec("waveform", "audio", (), float(self.rate), 1 / FULL_SCALE)

    def __call__(self, clip: Clip) -> Feature:
        """The samples, and which of them were recorded unless all were."""
        audio = clip.read_audio(self.rate)
        if audio is None or not audio.valid.any():
            return Feature(np.zeros(0, np.int16))
        samples = np.rint(np.clip(audio.samples, -1, 1) * FULL_SCALE).astype(np.int16)
        return Feature(samples, None if audio.valid.all() else audio.valid)
