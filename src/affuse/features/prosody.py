"""How something is said: pitch, loudness and voicing, frame by frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from affuse.core.errors import BadConfig
from affuse.core.types import Feature, StreamSpec

if TYPE_CHECKING:
    from affuse.media.clip import Clip

CARD = {
    "summary": "pitch in semitones, energy in dB and voicing strength, 100 frames per second",
    "source": "affuse; pitch after Boersma 1993 (autocorrelation and best path)",
    "entry": "Prosody",
    "modalities": ["audio"],
    "licence": "Apache-2.0",
    "version": 1,
    "download": "nothing",
    "rate": "100",
    "dim": "3: pitch, energy, voicing",
}
REFERENCE = 27.5  # Hz at 0 semitones (A0, as in eGeMAPS): below any voice, so that 0 can mean unvoiced
FLOOR = 1e-10  # power; -100 dB

# Costs and thresholds of Boersma 1993, for frames 10 ms apart
SILENCE, VOICING = 0.03, 0.45
OCTAVE, OCTAVE_JUMP, VOICED_UNVOICED = 0.01, 0.35, 0.14
CANDIDATES = 8
BLOCK = 1000  # frames analysed at a time, which bounds the memory of long recordings


class Pitch(NamedTuple):
    """Frames of a pitch track, frame t centred at t * hop samples.

    f0 [T] Hz, 0 where unvoiced; strength [T] 0..1, the normalised autocorrelation at the period (where
    unvoiced: at the likeliest period); power [T] mean square about the mean, under the window.
    """

    f0: np.ndarray
    strength: np.ndarray
    power: np.ndarray

    @property
    def semitones(self) -> np.ndarray:
        """Pitch in semitones above REFERENCE [T], 0 where unvoiced."""
        return np.asarray(12 * np.log2(np.where(self.f0 > 0, self.f0, REFERENCE) / REFERENCE))


class Prosody:
    """Clip -> [T, 3] at 100 Hz: pitch, energy, voicing.

    Pitch: semitones above 27.5 Hz, exactly 0 where unvoiced (a voiced frame is above 10). Energy: dB re full
    scale, at least -100. Voicing: 0..1, near 1 where the sound repeats itself. A frame is valid where its
    centre was recorded; any recorded sample makes at least one frame. `floor` and `ceiling` bound F0 in Hz.
    """

    def __init__(self, *, floor: float = 75.0, ceiling: float = 600.0) -> None:
        if not 50 <= floor <= ceiling / 2 <= 1000:
            raise BadConfig(
                f"no pitch range from floor={floor} to ceiling={ceiling}", "use 50 <= floor <= ceiling / 2 <= 1000 (Hz)"
            )
        self.floor, self.ceiling = floor, ceiling
        self.rate, self.hop = 16000, 160

    @property
    def spec(self) -> StreamSpec:
        """One frame per step."""
        return StreamSpec("prosody", "audio", (3,), self.rate / self.hop)

    def __call__(self, clip: Clip) -> Feature:
        """The prosody of the clip's sound."""
        audio = clip.read_audio(self.rate)
        if audio is None or not audio.valid.any():
            return Feature(np.zeros((0, 3), np.float32))
        track = track_pitch(audio.samples, self.rate, self.hop, self.floor, self.ceiling)
        energy = 10 * np.log10(np.maximum(track.power.astype(np.float64), FLOOR))
        values = np.stack([track.semitones, energy, track.strength], axis=1).astype(np.float32)
        valid = audio.valid[np.maximum(np.arange(len(values)) * self.hop - 1, 0)]
        return Feature(values, None if valid.all() else valid)


def track_pitch(
    samples: np.ndarray, rate: int = 16000, hop: int = 160, floor: float = 75.0, ceiling: float = 600.0
) -> Pitch:
    """Fundamental frequency of speech, samples [n] -> 1 + n // hop frames.

    Each frame (three periods of `floor` long) proposes the peaks of its autocorrelation, divided by the
    window's own; the path of least cost through the proposals decides pitch and voicing (P. Boersma,
    "Accurate short-term analysis of the fundamental frequency...", IFA Proceedings 17, 1993).
    """
    size = int(3 * rate / floor) // 2 * 2
    count = 1 + len(samples) // hop
    padded = np.pad(np.asarray(samples, np.float32), (size // 2, size // 2 + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][:count]
    blocks = [_analyse(frames[i : i + BLOCK], rate, floor, ceiling) for i in range(0, count, BLOCK)]
    lags, height, peak, power = (np.concatenate(part) for part in zip(*blocks, strict=True))
    f0 = np.where(lags > 0, rate / np.maximum(lags, 1), 0)
    path = _best_path(f0, _scores(lags * floor / rate, height, peak))
    rows = np.arange(count)
    voiced = path < f0.shape[1]
    chosen = np.where(voiced, path, 0)
    f0 = np.where(voiced, f0[rows, chosen], 0)
    return Pitch(f0, np.clip(height[rows, chosen], 0, 1), power)


def _analyse(frames: np.ndarray, rate: int, floor: float, ceiling: float) -> tuple[np.ndarray, ...]:
    """Frames [T, size] -> their best lags and heights [T, K] (0 where there are fewer), peak and power [T]."""
    size = frames.shape[1]
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    x = frames - frames.mean(axis=1, keepdims=True)
    peak = np.abs(x).max(axis=1)
    x *= window
    n_fft = 1 << (size + int(rate / floor) + 2).bit_length()
    own = _autocorrelation(window[None], n_fft)[0]
    r = _autocorrelation(x, n_fft)
    power = r[:, 0] / own[0]
    low, high = int(rate / ceiling), int(np.ceil(rate / floor)) + 1
    silent = power <= FLOOR
    r = r[:, low - 1 : high + 2] / (own[low - 1 : high + 2] / own[0]) / np.where(silent, 1, r[:, 0])[:, None]
    r[silent] = 0
    return *_peaks(r, low, rate / ceiling, rate / floor), peak, power


def _autocorrelation(x: np.ndarray, n_fft: int) -> np.ndarray:
    spectrum = np.fft.rfft(x, n_fft)
    return np.fft.irfft(spectrum.real**2 + spectrum.imag**2, n_fft)


def _peaks(r: np.ndarray, first: int, shortest: float, longest: float) -> tuple[np.ndarray, np.ndarray]:
    """The CANDIDATES likeliest maxima of r [T, lags first - 1 ...]: lag in samples and height, [T, K] each."""
    left, middle, right = r[:, :-2], r[:, 1:-1], r[:, 2:]
    rank = np.where((middle > left) & (middle >= right) & (middle > VOICING / 2), middle, 0)
    rank = rank * (1 - OCTAVE * np.log2(first + np.arange(rank.shape[1])))
    best = np.argpartition(-rank, CANDIDATES - 1, axis=1)[:, :CANDIDATES]
    best = np.take_along_axis(best, np.argsort(-np.take_along_axis(rank, best, 1), axis=1), 1)
    found = np.take_along_axis(rank, best, 1) > 0
    a, b, c = (np.take_along_axis(side, best, 1) for side in (left, middle, right))
    shift = np.where(found, (a - c) / np.where(found, 2 * (a - 2 * b + c), 1), 0)
    lag = first + best + shift
    found &= (lag >= shortest) & (lag <= longest)
    return np.where(found, lag, 0), np.where(found, b - (a - c) * shift / 4, 0)


def _scores(periods: np.ndarray, height: np.ndarray, peak: np.ndarray) -> np.ndarray:
    """Strength of each proposal and, last, of being unvoiced (eq. 23, 24): [T, K + 1]; periods in 1 / floor."""
    voiced = np.where(periods > 0, height - OCTAVE * np.log2(np.maximum(periods, 1e-3)), -np.inf)
    loudness = peak / max(float(peak.max()), 1e-9)
    unvoiced = VOICING + np.maximum(0, 2 - loudness * (1 + VOICING) / SILENCE)
    return np.concatenate([voiced, unvoiced[:, None]], axis=1)


def _best_path(f0: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Viterbi over proposals f0 [T, K] Hz and the unvoiced state K (eq. 26, 27): the state of each frame [T]."""
    octaves = np.log2(np.maximum(f0, 1))
    jumps = OCTAVE_JUMP * np.abs(octaves[1:, None, :] - octaves[:-1, :, None])
    cost = np.pad(jumps, ((0, 0), (0, 1), (0, 1)), constant_values=VOICED_UNVOICED)
    cost[:, -1, -1] = 0
    came = np.zeros(score.shape, dtype=np.intp)
    states, total = np.arange(score.shape[1]), score[0]
    for t in range(1, len(score)):
        through = total[:, None] - cost[t - 1]
        came[t] = through.argmax(axis=0)
        total = through[came[t], states] + score[t]
    path = np.empty(len(score), dtype=np.intp)
    path[-1] = total.argmax()
    for t in range(len(score) - 1, 0, -1):
        path[t - 1] = came[t, path[t]]
    return path
