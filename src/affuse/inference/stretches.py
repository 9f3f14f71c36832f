"""The stretches of a clip that are answered for: windows and their means, and what is decoded at a time."""

from __future__ import annotations

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


def overlap_add(segments: Sequence[Segment], step: float, duration: float) -> list[Segment]:
    """One segment per tile: the mean answer of the windows over it, of each modality by its coverage too.

    Labels are left open. A window without an answer counts for nothing.
    """
    found = []
    for a, b in tiles(duration, step):
        over = [s for s in segments if s.start < b - 1e-6 and s.end > a + 1e-6]
        near = min(over, key=lambda s: abs(s.start + s.end - a - b))
        views = {m: _mean_view([s.modalities[m] for s in over]) for m in near.modalities}
        answers = [s.probabilities for s in over if s.probabilities]
        found.append(
            replace(
                near, start=a, end=b, label=None, probabilities=_mean(answers), modalities=views,
                reason=near.reason if not answers else None,
            )
        )  # fmt: skip
    return found


def _mean_view(views: Sequence[ModalityView]) -> ModalityView:
    answers = [v.probabilities for v in views if v.present]
    return ModalityView(bool(answers), float(np.mean([v.coverage for v in views])), _mean(answers))


def _mean(answers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {k: float(np.mean([a[k] for a in answers])) for k in answers[0]} if answers else {}


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
