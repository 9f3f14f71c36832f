"""Mel cepstra with their slopes in time, the classical features of speech."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from affuse.core.errors import BadConfig
from affuse.core.types import Feature, StreamSpec

if TYPE_CHECKING:
    from affuse.layers.log_mel import MFCC
    from affuse.media.clip import Clip

CARD = {
    "summary": "mel cepstral coefficients with first and second derivatives, 100 frames per second",
    "source": "affuse; Davis and Mermelstein 1980, equal to librosa's",
    "entry": "MFCCs",
    "modalities": ["audio"],
    "licence": "Apache-2.0",
    "version": 1,
    "download": "nothing",
    "rate": "100",
    "dim": "n_mfcc with its deltas: 60 by default",
}


class MFCCs:
    """Clip -> [T, n_mfcc * (1 + derivatives)]: coefficients, then deltas, then delta-deltas.

    Frames and their validity are those of `log_mel`; `width` frames (odd) enter a derivative. Where nothing
    was recorded, derivatives see the nearest recorded frame.
    """

    def __init__(
        self,
        *,
        rate: int = 16000,
        n_mfcc: int = 20,
        derivatives: Literal[0, 1, 2] = 2,
        width: int = 9,
        n_mels: int = 64,
        window: int = 400,
        hop: int = 160,
    ) -> None:
        if min(rate, n_mels, window, hop) < 1 or not 1 <= n_mfcc <= n_mels:
            found = f"rate={rate}, n_mfcc={n_mfcc}, n_mels={n_mels}, window={window}, hop={hop}"
            raise BadConfig(f"no cepstrum has {found}", "give numbers of 1 or more, and n_mfcc up to n_mels")
        if width < 3 or width % 2 == 0:
            raise BadConfig(f"mfcc.width = {width} frames have no middle one with neighbours", "give 3, 5, 7...")
        self.rate, self.n_mfcc, self.derivatives, self.width = rate, n_mfcc, derivatives, width
        self.n_mels, self.window, self.hop = n_mels, window, hop

    @property
    def spec(self) -> StreamSpec:
        """One frame per step."""
        return StreamSpec("mfcc", "audio", (self.n_mfcc * (1 + self.derivatives),), self.rate / self.hop)

    @cached_property
    def _layer(self) -> MFCC:
        from affuse.layers.log_mel import MFCC

        return MFCC(self.rate, self.n_mfcc, self.n_mels, self.window, self.hop)

    def __call__(self, clip: Clip) -> Feature:
        """The cepstra of the clip's sound."""
        import torch

        audio = clip.read_audio(self.rate)
        if audio is None or not audio.valid.any():
            return Feature(np.zeros((0, *self.spec.shape), np.float32))
        with torch.inference_mode():
            static = self._layer(torch.as_tensor(audio.samples).unsqueeze(0))[0].numpy()
            valid = self._layer.log_mel.frame_mask(torch.as_tensor(audio.valid).unsqueeze(0))[0].numpy()
        filled = static[_nearest(valid)] if valid.any() else static
        slopes = [delta(filled, order, self.width) for order in range(1, self.derivatives + 1)]
        return Feature(np.concatenate([static, *slopes], axis=1), None if valid.all() else valid)


def _nearest(valid: np.ndarray) -> np.ndarray:
    """Index of the valid frame nearest to each frame: [T]; at least one is valid."""
    at = np.flatnonzero(valid)
    middles = (at[1:] + at[:-1]) / 2
    return at[np.searchsorted(middles, np.arange(len(valid)))]


def delta(x: np.ndarray, order: int = 1, width: int = 9) -> np.ndarray:
    """Derivative in time of x [T, F] per frame: slope (or curvature) of a polynomial fitted to `width` frames.

    Ends repeat the outer frame, so any length works: equals librosa.feature.delta(..., mode="nearest")
    (Savitzky and Golay 1964 with a polynomial of degree `order`).
    """
    offsets = np.arange(width) - width // 2
    fit = np.linalg.pinv(np.vander(offsets, order + 1, increasing=True))[order] * math.factorial(order)
    padded = np.pad(x, ((width // 2, width // 2), (0, 0)), mode="edge")
    slopes: np.ndarray = np.lib.stride_tricks.sliding_window_view(padded, width, axis=0) @ fit
    return slopes.astype(x.dtype)
