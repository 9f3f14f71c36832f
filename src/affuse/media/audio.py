"""Sound of a clip as mono float samples, placed by timestamp: what was not recorded is masked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from affuse.core.errors import BadConfig, BadMedia
from affuse.media.probe import AudioTrack, ClipInfo, decode, open_media, probe, seconds

JITTER = 0.010  # s by which timestamps may wander before sound counts as interrupted


@dataclass
class Audio:
    """Mono sound: samples float32 [n] (zero where not `valid`), valid bool [n], `rate` Hz, `start` s of sample 0."""

    samples: np.ndarray
    valid: np.ndarray
    rate: int
    start: float = 0.0

    @property
    def duration(self) -> float:
        """Length in seconds, recorded or not."""
        return len(self.samples) / self.rate

    @property
    def coverage(self) -> float:
        """Share of samples that were recorded, 0..1."""
        return float(self.valid.mean()) if len(self.valid) else 0.0


def read_audio(path: Path | str, rate: int = 16000, start: float = 0.0, end: float | None = None) -> Audio:
    """The sound of [start, end) s of the clip's clock: round((end - start) * rate) samples; `end` = clip duration.

    A clip without sound gives samples of which none is valid. Raises MissingFile, BadMedia.
    """
    end = probe(path).duration if end is None else end
    blocks = iter_audio(path, rate, start, end, seconds=max(end - start, 1.0) + 1.0)
    try:
        return next(blocks, Audio(np.zeros(0, np.float32), np.zeros(0, bool), rate, start))
    except MemoryError as error:
        what = f"{(end - start) / 3600:.3g} hours of sound of {path} do not fit into memory"
        raise BadMedia(what, "cut it into segments (start, end)") from error


def iter_audio(
    path: Path | str, rate: int = 16000, start: float = 0.0, end: float | None = None, seconds: float = 10.0
) -> Iterator[Audio]:
    """The same samples as `read_audio`, in consecutive blocks of `seconds` (the last is shorter); bounded memory."""
    if rate < 1 or seconds <= 0:
        raise BadConfig(f"cannot read sound at {rate} Hz in blocks of {seconds} s", "both must be above 0")
    info = probe(path)
    total = round(((info.duration if end is None else end) - start) * rate)
    size = max(1, round(seconds * rate))
    pieces = _placed(info, rate, start, total)
    piece = next(pieces, None)
    for offset in range(0, total, size):
        n = min(size, total - offset)
        block = Audio(np.zeros(n, np.float32), np.zeros(n, bool), rate, start + offset / rate)
        while piece is not None and piece[0] < offset + n:
            at, x = piece
            head, rest = x[: offset + n - at], x[offset + n - at :]
            span = slice(at - offset, at - offset + len(head))
            block.valid[span] = np.isfinite(head)
            block.samples[span] = np.where(block.valid[span], head, 0.0)
            piece = (at + len(head), rest) if len(rest) else next(pieces, None)
        yield block


def _placed(info: ClipInfo, rate: int, start: float, total: int) -> Iterator[tuple[int, np.ndarray]]:
    """(position, samples) within [0, total), in order and without overlap."""
    if info.audio is None or total <= 0:
        return
    written = 0
    for run in _runs(info, info.audio, rate, start, start + total / rate):
        for at, x in run:
            at, x = max(at, written), x[max(0, written - at) :]
            if len(x):
                written = at + len(x)
                yield at, x


def _runs(info: ClipInfo, track: AudioTrack, rate: int, start: float, end: float) -> Iterator[Any]:
    """Resampled stretches of uninterrupted sound."""
    run: _Run | None = None
    with open_media(info.path) as container:
        for frame in decode(container, info, track, start, []):
            time = seconds(frame, info, run.now if run else track.start)
            if time >= end:
                break
            if time + frame.samples / frame.sample_rate < start - 0.1:
                continue
            if run is None or not run.continues(frame, time):
                if run is not None:
                    yield run.flush()
                run = _Run(frame, time, rate, start)
            yield run.push(frame)
        if run is not None:
            yield run.flush()


class _Run:
    """One uninterrupted stretch through one resampler; positions count from `start`."""

    def __init__(self, frame: Any, time: float, rate: int, start: float) -> None:
        self.kind: tuple[str, str, int] = (frame.format.name, frame.layout.name, frame.sample_rate)
        # Channels are averaged here: FFmpeg's own downmix is 3 dB louder for float codecs than for integer ones.
        # Samples come interleaved ("flt"): PyAV reads beyond the planes of a frame that has eight of them or more.
        self.resampler = av.AudioResampler(format="flt", layout=frame.layout, rate=rate)
        self.begun, self.rate, self.taken = time, rate, 0
        self.position = round((time - start) * rate)
        self.made = 0

    @property
    def now(self) -> float:
        return self.begun + self.taken / float(self.kind[2])

    def continues(self, frame: Any, time: float) -> bool:
        same = self.kind == (frame.format.name, frame.layout.name, frame.sample_rate)
        return same and abs(time - self.now) <= JITTER

    def push(self, frame: Any) -> list[tuple[int, np.ndarray]]:
        frame.pts = None
        self.taken += frame.samples
        return self._collect(self.resampler.resample(frame), None)

    def flush(self) -> list[tuple[int, np.ndarray]]:
        return self._collect(self.resampler.resample(None), round(self.taken * self.rate / self.kind[2]))

    def _collect(self, frames: list[Any], length: int | None) -> list[tuple[int, np.ndarray]]:
        """Mono samples of resampled frames; at the end of a run the filter's surplus over `length` is cut."""
        out = []
        for frame in (f for f in frames if f is not None):
            x = frame.to_ndarray().reshape(frame.samples, -1).mean(axis=1, dtype=np.float32)
            x = x if length is None else x[: max(0, length - self.made)]
            out.append((self.position + self.made, x))
            self.made += len(x)
        return out
