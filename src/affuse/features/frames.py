"""Whole pictures of a clip, for networks that look at more than a face."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from affuse.core.errors import BadConfig
from affuse.core.types import Feature, StreamSpec
from affuse.features.face_crops import LONGEST_SIDE
from affuse.features.networks.pictures import Preparation

if TYPE_CHECKING:
    from affuse.media.clip import Clip

CARD = {
    "summary": "whole frames resized to a square: at a rate, or the one to three of a published audio-visual model",
    "source": "OGM-GE, BCGM, PMR, MLB, MMPareto on CREMA-D; their frames are drawn at random, here they are fixed",
    "entry": "Frames",
    "modalities": ["vision"],
    "licence": "Apache-2.0",
    "version": 1,
    "download": "nothing",
    "rate": "fps, 1 by default; none with a published number of frames",
    "dim": "size x size x 3, 224 by default",
}
COUNTS = {"every": 0, "ogm": 1, "bcgm": 1, "mmpareto": 2, "pmr": 3, "mlb": 3}  # frames per clip; 0: all


class Frames:
    """Clip -> uint8 [T, size, size, 3], whole frames squeezed into a square (bilinear, antialiased).

    `preset`: `every` has the frame at k / fps s as step k, valid where there is a picture. The others take the frames
    at 0, 1, 2... s, divide them into as many equal segments as the model has frames and keep the one in the middle of
    each: `ogm` and `bcgm` 1, `mmpareto` 2, `pmr` and `mlb` 3 (fewer where there are fewer). A clip without a picture
    has T = 0.
    """

    def __init__(
        self,
        *,
        preset: Literal["every", "ogm", "bcgm", "mmpareto", "pmr", "mlb"] = "every",
        fps: float = 1.0,
        size: int = 224,
    ) -> None:
        if not 0 < fps < math.inf or size < 1:
            raise BadConfig(f"no frames have fps={fps}, size={size}", "give fps above 0, and a size of 1 pixel or more")
        self.count, self.size = COUNTS[preset], size
        self.fps = 1.0 if self.count else fps

    @property
    def spec(self) -> StreamSpec:
        """One frame per step, 0..1 for a model; chosen frames stand on no clock (rate 0)."""
        return StreamSpec("frames", "vision", (self.size, self.size, 3), 0.0 if self.count else self.fps, 1 / 255)

    def __call__(self, clip: Clip) -> Feature:
        """The frames of the clip's picture."""
        steps = clip.steps(self.fps) if clip.has_video else 0
        values, valid = np.zeros((steps, self.size, self.size, 3), np.uint8), np.zeros(steps, bool)
        ready = Preparation(self.size, (self.size, self.size), "bilinear", 1 / 255, (0.0,) * 3, (1.0,) * 3)
        for frame in clip.frames(self.fps, max(LONGEST_SIDE, self.size)):
            values[frame.index], valid[frame.index] = ready.to_square(frame.image), True
        if not self.count:
            return Feature(values, valid)
        there = np.flatnonzero(valid)
        return Feature(values[there[centres(len(there), self.count)]])


def centres(n: int, count: int) -> np.ndarray:
    """The places of `count` equal segments' middles among n things, each once: centres(5, 1) is [2]."""
    middles = (np.arange(count) + 0.5) * n / count
    return np.unique(middles.astype(int)) if n else np.zeros(0, int)
