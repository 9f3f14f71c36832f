"""Sound of a clip as mono float samples, placed by timestamp: what was not recorded is masked.

Which track, and which of its channels, is decided once per file (`choose_track`), so that all parts of it agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import av
import numpy as np

from affuse.core.errors import BadConfig, BadMedia
from affuse.media.channels import SILENT, level, mono, weigh
from affuse.media.probe import INDEXED, AudioTrack, ClipInfo, decode, open_media, probe, seconds

JITTER = 0.010  # s by which timestamps may wander before sound counts as interrupted
LISTEN, SPOTS = 180.0, 18  # s of a long file, in so many parts spread over it, that decide which track is taken
WINDOW, MOST_CHANNELS = 0.25, 16  # s over which channels are compared, and how many at most
VOICE = 0.25  # s of voice that a track must hold
VOICE_SHARE = 0.1  # share of the voice of the track with most voice that it must hold


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
    end = info.duration if end is None else end
    return _blocks(info, choose_track(info), rate, start, round((end - start) * rate), max(1, round(seconds * rate)))


def choose_track(info: ClipInfo) -> AudioTrack | None:
    """The sound track that is read, with the weights of its channels; decided once per file, None without sound.

    Of several tracks it is the first with a voice in it, the default one before the others; a track with less than a
    tenth of the voice of another is skipped. Where none has a voice, it is the first that is not silent. How channels
    become one: `affuse.media.channels.weigh`. Of more than LISTEN s, parts are read. Raises MissingFile, BadMedia.
    """
    reading = info.reading
    if reading.track is None and info.audio is not None:
        several = len(info.sounds) > 1
        powers = [_power(info, t) if several or t.channels > 1 else None for t in info.sounds]
        mixes = [((), "") if power is None else weigh(power) for power in powers]
        audible = [power is None or level(power) > SILENT for power in powers]
        tracks = [replace(t, mix=mix) for t, (mix, _) in zip(info.sounds, mixes, strict=True)]
        k, why = _chosen(info, tracks, audible) if several else (0, "")
        reading.why = tuple(note for note in (why, mixes[k][1]) if note)
        reading.track = tracks[k]
    return reading.track


def _chosen(info: ClipInfo, tracks: list[AudioTrack], audible: list[bool]) -> tuple[int, str]:
    """Which of several tracks is taken, and the note about it."""
    voice = [_voice(info, t) if a else 0.0 for t, a in zip(tracks, audible, strict=True)]
    speech = [s >= max(VOICE, VOICE_SHARE * max(voice)) for s in voice]
    good = speech if any(speech) else audible
    k = good.index(True) if any(good) else 0
    place = sorted(t.index for t in tracks).index(tracks[k].index) + 1
    name = f" ({tracks[k].name})" if tracks[k].name else ""
    why = {0: "none holds a voice", 1: "it holds a voice"}.get(sum(speech), f"{sum(speech)} of them hold a voice")
    return k, f"sound track {place} of {len(tracks)}{name} is heard: {why}"


def _voice(info: ClipInfo, track: AudioTrack) -> float:
    """Seconds of voice in a track, or in the parts of it that are read."""
    from affuse.media.voice import RATE, STEP, voice_activity

    found = 0
    for start, end in _parts(info):
        blocks = _blocks(info, track, RATE, start, round((end - start) * RATE), 30 * RATE)
        found += int((voice_activity(block.samples for block in blocks) >= 0.5).sum())
    return found * STEP


def _parts(info: ClipInfo) -> list[tuple[float, float]]:
    """The spans (s) that represent a clip: all of it; of a long one parts where a seek is exact, else its beginning."""
    if info.duration <= LISTEN or info.container not in INDEXED:
        return [(0.0, min(info.duration, LISTEN))]
    starts = np.linspace(0.0, info.duration - LISTEN / SPOTS, SPOTS)
    return [(float(start), float(start) + LISTEN / SPOTS) for start in starts]


def _power(info: ClipInfo, track: AudioTrack) -> np.ndarray:
    """Mean products of the channels of a track [T, C, C], over windows of about WINDOW s in which there is sound.

    T is 0 where nothing can be decoded, and for more channels than are compared.
    """
    means: list[np.ndarray] = []
    with suppress(BadMedia):  # reading the track raises it again
        for start, end in _parts(info) if track.channels <= MOST_CHANNELS else ():
            total = round((end - start) * track.rate)
            placed = _placed(info, track, track.rate, start, total, apart=True)
            pieces = (piece for piece in placed if piece[1].shape[1] == track.channels)
            for _, window in groupby(pieces, key=lambda piece: int(piece[0] / track.rate / WINDOW)):
                x = np.concatenate([x for _, x in window])
                x = np.clip(np.nan_to_num(x), -1, 1).astype(np.float64)  # damage may be louder than any sound
                means.append(x.T @ x / len(x))
    return np.array(means).reshape(len(means), track.channels, track.channels)


def _blocks(
    info: ClipInfo, track: AudioTrack | None, rate: int, start: float, total: int, size: int
) -> Iterator[Audio]:
    """The first `total` samples of a track from `start` s on, in blocks of `size`."""
    pieces = _placed(info, track, rate, start, total)
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


def _placed(
    info: ClipInfo, track: AudioTrack | None, rate: int, start: float, total: int, apart: bool = False
) -> Iterator[tuple[int, np.ndarray]]:
    """(position, samples) within [0, total), in order and without overlap; with the channels `apart`, [n, C]."""
    if track is None or total <= 0:
        return
    written = 0
    for run in _runs(info, track, rate, start, start + total / rate, apart):
        for at, x in run:
            at, x = max(at, written), x[max(0, written - at) :]
            if len(x):
                written = at + len(x)
                yield at, x


def _runs(info: ClipInfo, track: AudioTrack, rate: int, start: float, end: float, apart: bool) -> Iterator[Any]:
    """Runs of uninterrupted sound, resampled."""
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
                run = _Run(frame, time, rate, start, None if apart else track.mix)
            yield run.push(frame)
        if run is not None:
            yield run.flush()


class _Run:
    """A run of uninterrupted sound through one resampler; positions count from `start`."""

    def __init__(self, frame: Any, time: float, rate: int, start: float, mix: tuple[float, ...] | None) -> None:
        self.kind: tuple[str, str, int] = (frame.format.name, frame.layout.name, frame.sample_rate)
        # Channels are mixed here (None: kept apart), because FFmpeg's own downmix is 3 dB louder for float codecs.
        # Samples come interleaved ("flt"): PyAV reads beyond the planes of a frame that has eight of them or more.
        self.resampler = av.AudioResampler(format="flt", layout=frame.layout, rate=rate)
        self.begun, self.rate, self.taken, self.mix = time, rate, 0, mix
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
        """Samples of resampled frames; at the end of a run the filter's surplus over `length` is cut."""
        out = []
        for frame in (f for f in frames if f is not None):
            x = frame.to_ndarray().reshape(frame.samples, -1)
            x = x if self.mix is None else mono(x, self.mix)
            x = x if length is None else x[: max(0, length - self.made)]
            out.append((self.position + self.made, x))
            self.made += len(x)
        return out
