"""How a clip is divided in time: windows, rows, how they overlap, and the blocks that are decoded at a time."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from numbers import Real

import numpy as np

from affuse.core.errors import BadConfig
from affuse.core.types import Feature
from affuse.media.subtitles import Caption

BLOCK_SECONDS = 20.0
SHORTEST_ROW = 0.1  # s


def check_every(every: float | None) -> None:
    """Raise BadConfig unless `every` is at least 0.1 s: finer rows add nothing, and may be millions."""
    if every is not None and not (isinstance(every, Real) and SHORTEST_ROW <= every < math.inf):
        message = f"--every {every} is no number of seconds from {SHORTEST_ROW} on"
        raise BadConfig(message, "give for example 2, or leave it out")


def windows(duration: float, seconds: float, step: float) -> list[tuple[float, float]]:
    """Windows of `seconds` every `step` seconds that cover [0, duration]; the last ends there."""
    starts = np.arange(max(1, int(np.ceil((duration - seconds) / step - 1e-6)) + 1)) * step
    return [(float(a), float(min(a + seconds, duration))) for a in starts]


def tiles(duration: float, step: float) -> list[tuple[float, float]]:
    """[0, duration] cut every `step` seconds; a rest shorter than half a step joins the one before."""
    count = max(1, int(duration / step + 0.5))
    return list(pairwise([*(k * step for k in range(count)), duration]))


def with_words(spans: Sequence[tuple[float, float]], words: Sequence[tuple[float, str]]) -> list[Caption]:
    """The spans with their share of the words, each of which belongs to one moment (s), in (start, end]."""
    return [Caption(a, b, " ".join(text for t, text in words if a < t <= b)) for a, b in spans]


def overlaps(spans: Sequence[Caption], rows: Sequence[Caption]) -> list[tuple[int, int, float]]:
    """(span, row, seconds) of every pair that shares time; both in ascending order of starts and of ends."""
    starts, ends = [row.start for row in rows], [row.end for row in rows]
    return [
        (i, k, min(span.end, rows[k].end) - max(span.start, rows[k].start))
        for i, span in enumerate(spans)
        for k in range(bisect_right(ends, span.start + 1e-6), bisect_left(starts, span.end - 1e-6))
    ]


def covered_share(feature: Feature, rate: float, start: float, end: float) -> float:
    """Share of [start, end), s on the feature's clock, that usable steps cover, each from its time to the next."""
    first = max(0, math.floor((start - feature.t0) * rate + 1e-6))
    last = min(len(feature.values), math.ceil((end - feature.t0) * rate - 1e-6))
    if last <= first or end <= start:
        return 0.0
    begins = feature.t0 + np.arange(first, last) / rate
    lasts = np.minimum(begins + 1 / rate, end) - np.maximum(begins, start)
    usable = lasts if feature.valid is None else lasts[feature.valid[first:last]]
    return float(np.clip(usable.sum() / (end - start), 0, 1))


def blocks(pieces: Sequence[Caption], seconds: float = BLOCK_SECONDS, alone: bool = False) -> Iterator[list[Caption]]:
    """Neighbouring segments together while they span at most `seconds`: what is decoded at a time.

    `alone`: every segment by itself, unless it overlaps another.
    """
    block: list[Caption] = []
    for piece in pieces:
        end = max((c.end for c in block), default=0.0)
        if block and ((alone and piece.start >= end) or max(piece.end, end) - block[0].start > seconds):
            yield block
            block = []
        block.append(piece)
    if block:
        yield block
