"""Where somebody speaks: segments of speech from a probability of voice per 32 ms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from affuse.core.errors import BadConfig
from affuse.media.audio import iter_audio
from affuse.media.probe import probe
from affuse.media.voice import CHUNK, QUIET, RATE, STEP, Detector, steps, voice_activity


def speech_segments(
    probability: np.ndarray,
    *,
    threshold: float = 0.5,
    release: float = 0.35,
    min_speech: float = 0.25,
    min_silence: float = 0.4,
    pad: float = 0.1,
    longest: float = 12.0,
    step: float = STEP,
) -> list[tuple[float, float]]:
    """(start, end) in s of the segments of speech, in order and without overlap, from probabilities [T] per step.

    Speech begins at `threshold` and ends below `release`; pauses shorter than `min_silence` are bridged, then what is
    shorter than `min_speech` is dropped. Segments get `pad` at either side (at most half of the pause between
    two), and those longer than `longest` are cut where voice is least probable in their middle half.
    Raises BadConfig for limits that contradict each other.
    """
    if not 0 <= release <= threshold <= 1:
        raise BadConfig(f"speech cannot begin at {threshold} and end below {release}", "0 <= release <= threshold <= 1")
    if longest < 4 * step or min(min_speech, min_silence, pad) < 0:
        limits = f"min_speech {min_speech}, min_silence {min_silence}, pad {pad}, longest {longest} s"
        remedy = f"none may be negative, and longest must be at least {4 * step:g}"
        raise BadConfig(f"cannot cut speech with {limits}", remedy)
    starts, ends = _active(probability, threshold, release) * step
    joined = starts[1:] - ends[:-1] < min_silence - 1e-9
    starts, ends = starts[np.r_[True, ~joined][: len(starts)]], ends[np.r_[~joined, True][: len(ends)]]
    long_enough = ends - starts >= min_speech - 1e-9
    starts, ends = starts[long_enough], ends[long_enough]
    room = np.concatenate([starts[:1], (starts[1:] - ends[:-1]) / 2, len(probability) * step - ends[-1:]])
    starts, ends = starts - np.minimum(pad, room[:-1]), ends + np.minimum(pad, room[1:])
    return [piece for a, b in zip(starts, ends, strict=True) for piece in _cut(probability, a, b, longest, step)]


def _active(probability: np.ndarray, threshold: float, release: float) -> np.ndarray:
    """First step and step after the last [2, N] of the N segments of speech, with hysteresis."""
    decided = (probability >= threshold) | (probability < release)
    latest = np.maximum.accumulate(np.where(decided, np.arange(len(probability)), -1))
    active = (latest >= 0) & (probability[latest] >= threshold)
    return np.flatnonzero(np.diff(active, prepend=False, append=False)).reshape(-1, 2).T


def _cut(probability: np.ndarray, start: float, end: float, longest: float, step: float) -> list[tuple[float, float]]:
    """[start, end) s in pieces of at most `longest`, cut at the weakest step of the middle half (again and again)."""
    if end - start <= longest + 1e-9:
        return [(float(start), float(end))]
    quarter = (end - start) / 4
    first, last = math.ceil((start + quarter) / step), math.floor((end - quarter) / step)
    middle = probability[first : last + 1]
    # A saturated detector has no weakest step: the slight slope then prefers the centre.
    weakest = np.argmin(middle + 1e-3 * np.abs(np.linspace(-1, 1, len(middle))))
    at = (first + weakest) * step
    return _cut(probability, start, at, longest, step) + _cut(probability, at, end, longest, step)


class Speech(NamedTuple):
    """`voice` [T]: its probability per 32 ms; `segments` of speech (s); `audible` [T] bool: sound above -60 dB."""

    voice: np.ndarray
    segments: list[tuple[float, float]]
    audible: np.ndarray


def find_speech(
    path: Path | str,
    start: float = 0.0,
    end: float | None = None,
    *,
    detector: Detector = "auto",
    longest: float = 12.0,
) -> Speech:
    """Where somebody speaks in [start, end) s of a clip.

    Times are seconds on the clip's clock; what was not recorded (late sound, gaps) is no speech. A clip
    without sound has no steps. Sound is read in bounded blocks, so hours need no more memory than minutes.
    Raises MissingFile, BadMedia.
    """
    info = probe(path)
    end = info.duration if end is None else end
    if info.audio is None or end <= start:
        return Speech(np.zeros(0, np.float32), [], np.zeros(0, bool))
    recorded: list[np.ndarray] = []
    power: list[np.ndarray] = []

    def blocks() -> Iterator[np.ndarray]:
        for block in iter_audio(path, RATE, start, end, seconds=CHUNK / RATE):
            recorded.append(steps(block.valid).mean(1) >= 0.5)
            power.append(np.square(steps(block.samples)).mean(1))
            yield block.samples

    probability = voice_activity(blocks(), detector)
    if not recorded:  # shorter than a sample
        return Speech(np.zeros(0, np.float32), [], np.zeros(0, bool))
    probability *= np.concatenate(recorded)
    audible = np.concatenate(recorded) & (np.concatenate(power) > 10 ** (QUIET / 10))
    found = speech_segments(probability, longest=longest)
    segments = [(start + a, min(start + b, end)) for a, b in found if start + a < end]
    return Speech(probability, segments, audible)
