"""Log-magnitude spectrograms, plain or as published audio-visual models on CREMA-D take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from affuse.core.types import Feature, StreamSpec

if TYPE_CHECKING:
    from affuse.media.clip import Clip

CARD = {
    "summary": "log-magnitude short-time Fourier transform, 257 bands; plain or in a published input variant",
    "source": "OGM-GE (Peng et al., CVPR 2022), BCGM (SoICT 2025) and LFM (NeurIPS 2024) on CREMA-D; equal to "
    "librosa's stft",
    "entry": "LogSTFT",
    "modalities": ["audio"],
    "licence": "Apache-2.0",
    "version": 1,
    "download": "nothing",
    "rate": "62.5; published presets 62.46",
    "dim": "257",
}
WINDOW = 512  # samples
FLOOR = 1e-7  # magnitude
# Sampling rate (Hz), hop and length (samples); 0: as long as the clip.
PRESETS = {
    "plain": (16000, 256, 0),
    "ogm": (22050, 353, 66150),
    "bcgm": (22050, 353, 105706),
    "lfm": (22050, 353, 441000),
}


class LogSTFT:
    """Clip -> log(|S| + 1e-7) [T, 257], frame t centred at t * hop samples, valid where its centre was recorded.

    `preset`: `plain` is the clip as it is, at 16 kHz with hop 256. The others are at 22.05 kHz with hop 353, the clip
    repeated from its beginning until it fills a fixed length, longer ones cut: `ogm` 3 s (188 frames; AGM and
    ReconBoost too), `bcgm` 4.8 s (300), `lfm` 20 s (1250); after the clip's end their frames are repeats. Samples are
    clipped to -1..1. The window (Hann, 512 samples) reaches over zeros at both ends.
    """

    def __init__(self, *, preset: Literal["plain", "ogm", "bcgm", "lfm"] = "plain") -> None:
        self.rate, self.hop, self.length = PRESETS[preset]

    @property
    def spec(self) -> StreamSpec:
        """One frame per step."""
        return StreamSpec("log_stft", "audio", (WINDOW // 2 + 1,), self.rate / self.hop)

    def __call__(self, clip: Clip) -> Feature:
        """The spectrogram of the clip's sound; T = 0 where none was recorded."""
        audio = clip.read_audio(self.rate)
        if audio is None or not audio.valid.any():
            return Feature(np.zeros((0, *self.spec.shape), np.float32))
        length = self.length or len(audio.samples)
        samples, valid = np.resize(audio.samples, length), np.resize(audio.valid, length)  # both repeat
        values = log_stft(samples.clip(-1, 1), self.hop)
        centres = np.minimum(np.arange(len(values)) * self.hop, length - 1)
        return Feature(values, None if valid[centres].all() else valid[centres])


def log_stft(samples: np.ndarray, hop: int) -> np.ndarray:
    """Samples float32 [n] -> log magnitudes float32 [1 + n // hop, 257]; as librosa.stft(pad_mode="constant")."""
    padded = np.pad(samples, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::hop]
    hann = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    magnitude: np.ndarray = np.abs(np.fft.rfft(frames * hann))
    return np.log(magnitude + np.float32(FLOOR))
