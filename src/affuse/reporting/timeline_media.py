"""What a timeline shows of the clip itself: a few small pictures and the outline of its sound, in bounded memory."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import numpy as np

from affuse.media import write
from affuse.media.audio import iter_audio
from affuse.media.probe import FAR, INDEXED, probe
from affuse.media.video import iter_frames

RATE = 4000  # Hz, enough for the outline of speech


def thumbnails(clip: Path, count: int, size: int = 160) -> list[tuple[float, np.ndarray | None]]:
    """(time, uint8 [H, W, 3]) in the middle of each of `count` equal parts; None where the clip has no picture there.

    Long files that can be sought are, others are decoded once. Raises MissingFile, BadMedia.
    """
    info = probe(clip)
    step = info.duration / count
    times = [(k + 0.5) * step for k in range(count)]
    if info.video is None:
        return [(t, None) for t in times]
    if info.container in INDEXED and info.duration > FAR:
        found = {k: _one(clip, t, max(1.0, 2 / info.video.fps), size) for k, t in enumerate(times)}
    else:
        found = {f.index: f.image for f in iter_frames(clip, 1 / step, step / 2, info.duration, size)}
    return [(t, found.get(k)) for k, t in enumerate(times)]


def _one(clip: Path, time: float, reach: float, size: int) -> np.ndarray | None:
    return next((f.image for f in iter_frames(clip, None, time, time + reach, size)), None)


def jpeg(image: np.ndarray) -> str:
    """A uint8 [H, W, 3] picture as a JPEG data URI."""
    even = image[: image.shape[0] // 2 * 2 or 1, : image.shape[1] // 2 * 2 or 1]
    return f"data:image/jpeg;base64,{b64encode(write.jpeg(even, 5)).decode()}"


def envelope(clip: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(peaks, recorded), both [count]: the loudest sample of each equal part as share of the clip's; whether any is."""
    total = max(1, round(probe(clip).duration * RATE))
    peaks, recorded = np.zeros(count), np.zeros(count, bool)
    offset = 0
    for block in iter_audio(clip, RATE, seconds=60.0):
        at = np.minimum((np.arange(offset, offset + len(block.samples)) * count) // total, count - 1)
        np.maximum.at(peaks, at, np.abs(block.samples))
        np.logical_or.at(recorded, at, block.valid)
        offset += len(block.samples)
    return peaks / max(float(peaks.max(initial=0.0)), 1e-4), recorded
