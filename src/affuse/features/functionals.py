"""One vector of statistics per utterance: how its timbre, pitch and loudness lie and move."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from affuse.core.errors import BadConfig
from affuse.core.types import Feature, StreamSpec
from affuse.features.prosody import track_pitch

if TYPE_CHECKING:
    from affuse.layers.log_mel import LogMel
    from affuse.media.clip import Clip

CARD = {
    "summary": "statistics of cepstra, pitch and loudness over an utterance, and their course in six parts",
    "source": "affuse; in the tradition of Schuller et al., INTERSPEECH 2009 emotion challenge",
    "entry": "Functionals",
    "modalities": ["audio"],
    "licence": "Apache-2.0",
    "version": 1,
    "download": "nothing",
    "rate": "utterance",
    "dim": "276",
}
RATE, HOP, WINDOW, BANDS, CEPSTRA = 16000, 160, 400, 64, 20
RANGE, QUIET = 60.0, 35.0  # dB under the loudest band: what is further down counts as that; ends below are cut
PARTS = 6
RHYTHM = 14  # bands of the loudness contour's spectrum, 0.2 to 11 Hz
MODULATION = 512  # frames of its transform


class Functionals:
    """Clip -> [1, 276]: 140 of the cepstra, 17 of the pitch, 29 of the loudness, 90 of the course.

    Quiet ends are left out; nothing audible, or nothing recorded, means an absent stream. Levels are dB; with
    `relative` they are taken against the utterance's loudest band, which makes the vector blind to gain.
    """

    def __init__(self, *, floor: float = 75.0, ceiling: float = 600.0, relative: bool = False) -> None:
        if not 50 <= floor <= ceiling / 2 <= 1000:
            raise BadConfig(
                f"no pitch range from floor={floor} to ceiling={ceiling}", "use 50 <= floor <= ceiling / 2 <= 1000 (Hz)"
            )
        self.floor, self.ceiling, self.relative = floor, ceiling, relative

    @property
    def spec(self) -> StreamSpec:
        """One vector per utterance."""
        return StreamSpec("functionals", "audio", (7 * CEPSTRA + 46 + PARTS * 15,))

    @cached_property
    def _log_mel(self) -> LogMel:
        from affuse.layers.log_mel import LogMel

        return LogMel(RATE, BANDS, WINDOW, HOP)

    def __call__(self, clip: Clip) -> Feature:
        """The functionals of the clip's sound."""
        audio = clip.read_audio(RATE)
        if audio is None or not audio.samples[audio.valid].any():
            return Feature(np.zeros((0, *self.spec.shape), np.float32))
        level, semitones, strength = self._frames(audio.samples, audio.valid)
        if not len(level):  # what was recorded lies between the middles of two frames
            return Feature(np.zeros((0, *self.spec.shape), np.float32))
        voiced = semitones > 0
        cepstra = level.reshape(len(level), -1, 2).mean(2) @ _dct(BANDS // 2, CEPSTRA)
        loudness = 10 * np.log10((10 ** (level / 10)).sum(1))
        pitch = semitones[voiced] if voiced.sum() > 5 else np.zeros(6)
        slopes = np.gradient(cepstra, axis=0) if len(cepstra) > 1 else np.zeros_like(cepstra)
        vector = np.concatenate(
            [
                cepstra.mean(0), cepstra.std(0), *np.percentile(cepstra, [10, 50, 90], axis=0),
                slopes.std(0), np.abs(slopes).mean(0),
                contour(pitch), [voiced.mean(), strength.mean(), strength.std(), _onsets(voiced)],
                contour(loudness), [len(level) * HOP / RATE, (loudness > loudness.max() - 20).mean()], rhythm(loudness),
                course(np.column_stack([cepstra[:, :13], loudness]), semitones, voiced, float(pitch.mean())),
            ]
        )  # fmt: skip
        return Feature(vector[None].astype(np.float32))

    def _frames(self, samples: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log-mel dB [T, BANDS], semitones [T] (0: unvoiced), voicing [T] of the recorded frames between quiet ends."""
        import torch

        with torch.inference_mode():
            level = self._log_mel(torch.as_tensor(samples).unsqueeze(0))[0].numpy()
            kept = self._log_mel.frame_mask(torch.as_tensor(valid).unsqueeze(0))[0].numpy()
        if not kept.any():
            return np.zeros((0, level.shape[1]), np.float32), np.zeros(0), np.zeros(0)
        track = track_pitch(samples, RATE, HOP, self.floor, self.ceiling)
        level, semitones, strength = (x[: len(level)][kept] for x in (level, track.semitones, track.strength))
        top = level.max()
        level = np.maximum(level, top - RANGE)
        loud = np.flatnonzero(level.max(1) > top - QUIET)
        span = slice(loud[0], loud[-1] + 1)
        return level[span] - (top if self.relative else 0), semitones[span], strength[span]


def contour(x: np.ndarray) -> np.ndarray:
    """13 numbers about a contour [T]: moments, percentiles, its parabola over time -1..1, how it changes, its skew."""
    steps = np.diff(x) if len(x) > 1 else np.zeros(1)
    parabola = np.polyfit(np.linspace(-1, 1, len(x)), x, 2) if len(x) > 2 else np.zeros(3)
    deviation = x - x.mean()
    skew = (deviation**3).mean() / max(x.std() ** 3, 1e-9)
    percentiles = np.percentile(x, [5, 25, 50, 75, 95])
    return np.concatenate([[x.mean(), x.std()], percentiles, parabola, [np.abs(steps).mean(), steps.std(), skew]])


def rhythm(loudness: np.ndarray) -> np.ndarray:
    """Strength of the loudness contour's modulations in its first 5.1 s, [RHYTHM] bands of 0.8 Hz."""
    spectrum = np.abs(np.fft.rfft(loudness - loudness.mean(), MODULATION)) / len(loudness)
    bands: np.ndarray = spectrum[1 : 1 + 4 * RHYTHM].reshape(RHYTHM, 4).mean(1)
    return bands


def course(x: np.ndarray, semitones: np.ndarray, voiced: np.ndarray, pitch: float) -> np.ndarray:
    """Means of x [T, D] and of the pitch in PARTS equal parts of the utterance (`pitch` where none is voiced)."""
    edges = np.linspace(0, len(x), PARTS + 1).astype(int)
    starts = np.minimum(edges[:-1], len(x) - 1)
    count = np.maximum(edges[1:] - starts, 1)[:, None]
    contours = (x, voiced[:, None] * 1.0, (semitones * voiced)[:, None])
    sums, sounding, tones = (_sums(v, starts, edges[-1]) for v in contours)
    means = sums / count
    return np.column_stack([means, np.where(sounding > 0, tones / np.maximum(sounding, 1), pitch)]).ravel()


def _sums(x: np.ndarray, starts: np.ndarray, end: int) -> np.ndarray:
    """Sums of x [T, D] from each start up to the next; a part shorter than a frame takes that one frame."""
    return np.add.reduceat(x[:end], starts, axis=0)


def _onsets(voiced: np.ndarray) -> float:
    """Voiced segments begun per second."""
    return float((np.diff(voiced.astype(int)) > 0).sum() / (len(voiced) * HOP / RATE))


def _dct(n: int, k: int) -> np.ndarray:
    """The first k columns of the orthonormal DCT-II over n points, [n, k]."""
    from affuse.layers.log_mel import dct_matrix

    matrix: np.ndarray = dct_matrix(n, k).numpy()
    return matrix
