"""The stretches of a clip that are answered for: windows and their means, and what is decoded at a time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from affuse.inference.timeline import ModalityView, Segment
from affuse.media.subtitles import Caption

BLOCK_SECONDS = 20.0


def windows(duration: float, seconds: float, step: float) -> list[tuple[float, float]]:
    """Stretches of `seconds` every `step` seconds that cover [0, duration]; the last ends there."""
    starts = np.arange(max(1, int(np.ceil((duration - seconds) / step - 1e-6)) + 1)) * step
    return [(float(a), float(min(a + seconds, duration))) for a in starts]


def tiles(duration: float, step: float) -> list[tuple[float, float]]:
    """[0, duration] cut every `step` seconds; a rest shorter than half a step joins the one before."""
    count = max(1, int(duration / step + 0.5))
    return list(pairwise([*(k * step for k in range(count)), duration]))


def worded(spans: Sequence[tuple[float, float]], words: Sequence[tuple[float, str]]) -> list[Caption]:
    """The spans with their share of the words, each of which belongs to one moment (s), in (start, end]."""
    return [Caption(a, b, " ".join(text for t, text in words if a < t <= b)) for a, b in spans]


def overlap_add(segments: Sequence[Segment], rows: Sequence[Caption]) -> list[Segment]:
    """One segment per row, with its words: the mean answer of the windows over it, of each modality and its coverage too.

    segments: the windows' answers, starts and ends in ascending order. Windows count by the time that they share with the row, those without an answer for nothing. Labels are left open.
    """
    found = []
    starts, ends = [s.start for s in segments], [s.end for s in segments]
    for row in rows:
        near_by = segments[bisect_right(ends, row.start + 1e-6) : bisect_left(starts, row.end - 1e-6)]
        over = [(min(s.end, row.end) - max(s.start, row.start), s) for s in near_by]
        near = min((s for _, s in over), key=lambda s: abs(s.start + s.end - row.start - row.end))
        views = {m: _mean_view([(t, s.modalities[m]) for t, s in over]) for m in near.modalities}
        answers = [(t, s.probabilities) for t, s in over if s.probabilities]
        found.append(
            replace(
                near, start=row.start, end=row.end, label=None, probabilities=_mean(answers), modalities=views,
                text=row.text or None, reason=near.reason if not answers else None,
            )
        )  # fmt: skip
    return found


def _mean_view(views: Sequence[tuple[float, ModalityView]]) -> ModalityView:
    answers = [(t, v.probabilities) for t, v in views if v.present]
    coverage = np.average([v.coverage for _, v in views], weights=[t for t, _ in views])
    return ModalityView(bool(answers), float(coverage), _mean(answers))


def _mean(answers: Sequence[tuple[float, Mapping[str, float]]]) -> dict[str, float]:
    weights = [t for t, _ in answers]
    return {k: float(np.average([a[k] for _, a in answers], weights=weights)) for k in answers[0][1]} if answers else {}


def blocks(pieces: Sequence[Caption], seconds: float = BLOCK_SECONDS, alone: bool = False) -> Iterator[list[Caption]]:
    """Neighbouring stretches together while they span at most `seconds`: what is decoded at a time.

    `alone`: every stretch by itself, unless it overlaps another.
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
