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
    "version": 2,
    "download": "nothing",
    "rate": "16000",
    "dim": "samples",
}
FULL_SCALE = 32767


class Waveform:
    """Clip -> int16 samples [T]; times the spec's scale they are -1..1, louder is clipped.

    Silence is data, but a second or more of exact zeros is a muted track, and counts as not recorded.
    A clip without any recorded sample is absent.
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
        if audio is None:
            return Feature(np.zeros(0, np.int16))
        samples = np.rint(np.clip(audio.samples, -1, 1) * FULL_SCALE).astype(np.int16)
        valid = audio.valid & ~muted(samples, self.rate)
        if not valid.any():
            return Feature(np.zeros(0, np.int16))
        return Feature(samples, None if valid.all() else valid)


def muted(samples: np.ndarray, least: int) -> np.ndarray:
    """Which samples [T] belong to a run of at least `least` exact zeros."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], samples == 0, [0]]).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    long = ends - starts >= least
    steps = np.zeros(len(samples) + 1, np.int8)
    steps[starts[long]], steps[ends[long]] = 1, -1
    return np.cumsum(steps[:-1]).astype(bool)
