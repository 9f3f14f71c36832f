"""A Timeline on a grid of slots: what its page and its picture draw, bounded whatever the length of the clip."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from affuse.core.timeline import UNKNOWN, Segment, Timeline, in_words

MOST = 1500  # slots that are drawn
SLIGHT = 1e-9
TRACE = 1e-3  # share of a slot below which a segment is not in it: edges are rounded, to merge those that are equal
LEAD = 0.15  # share of time by which a label must lead to be called the main one


class Lane(NamedTuple):
    """One answer over K slots: probabilities [K, C] (0 where not `known`), known [K] bool, coverage [K] 0..1."""

    probabilities: np.ndarray
    known: np.ndarray
    coverage: np.ndarray

    @property
    def winner(self) -> np.ndarray:
        """Index of the winning class [K], -1 where nothing is known."""
        best = self.probabilities.argmax(axis=1) if self.probabilities.shape[1] else np.full(len(self.known), -1)
        return np.where(self.known, best, -1)

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the winning class [K]."""
        return self.probabilities.max(axis=1, initial=0.0)


class Slots(NamedTuple):
    """Edges [K + 1] (s); analysed [K] bool: a segment is there; the fused answer and that of each modality alone."""

    edges: np.ndarray
    analysed: np.ndarray
    fused: Lane
    modalities: dict[str, Lane]


def slots(timeline: Timeline, most: int = MOST) -> Slots:
    """The timeline on its own cuts, or on `most` equal slots where it has more cuts.

    Where segments overlap, and where several fall into one slot, probabilities are means weighted by time.
    """
    segments = timeline.segments
    start, end = np.array([s.start for s in segments]), np.array([s.end for s in segments])
    edges = _edges(start, end, length(timeline), most)
    names = modalities(timeline)
    known = np.array([s.label is not None for s in segments], float)
    columns = [np.ones((len(segments), 1)), _weighted([s.probabilities for s in segments], timeline.labels, known)]
    for name in names:
        views = [s.modalities.get(name) for s in segments]
        present = np.array([v is not None and v.present for v in views], float)
        columns.append(_weighted([v.probabilities if v else {} for v in views], timeline.labels, present))
        columns.append(np.array([v.coverage if v else 0.0 for v in views], float)[:, None])
    means = _means(start, end, np.concatenate(columns, axis=1), edges)
    there, step = means[:, 0], len(timeline.labels) + 1
    lanes = {
        name: _lane(means[:, 1 + step + k * (step + 1) : 1 + step + (k + 1) * (step + 1)], there)
        for k, name in enumerate(names)
    }
    fused = _lane(np.concatenate([means[:, 1 : 1 + step], means[:, 1:2]], axis=1), there)
    return Slots(edges, there > TRACE, fused, lanes)


def _weighted(rows: Sequence[dict[str, float]], labels: Sequence[str], known: np.ndarray) -> np.ndarray:
    """[N, 1 + C]: whether a row counts, and its probabilities where it does."""
    values = np.array([[row.get(label, 0.0) for label in labels] for row in rows], float)
    values = values.reshape(len(rows), len(labels))
    return np.concatenate([known[:, None], values * known[:, None]], axis=1)


def _lane(means: np.ndarray, there: np.ndarray) -> Lane:
    """A lane from the columns (known, probabilities..., coverage)."""
    known = means[:, 0] > TRACE
    probabilities = means[:, 1:-1] / np.where(known, means[:, 0], 1.0)[:, None] * known[:, None]
    coverage = means[:, -1] / np.where(there > TRACE, there, 1.0)
    return Lane(probabilities, known, np.clip(coverage, 0.0, 1.0))


def _edges(start: np.ndarray, end: np.ndarray, total: float, most: int) -> np.ndarray:
    cuts = np.unique(np.round(np.clip(np.concatenate([[0.0, total], start, end]), 0.0, total), 6))
    return cuts if len(cuts) <= most + 1 else np.linspace(0.0, total, most + 1)


def _means(start: np.ndarray, end: np.ndarray, values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean over each slot of the sum of the values [N, D] of its segments: [K, D], by one running integral."""
    if not len(start):
        return np.zeros((len(edges) - 1, values.shape[1]))
    times = np.concatenate([start, end])
    order = np.argsort(times, kind="stable")
    level = np.cumsum(np.concatenate([values, -values])[order], axis=0)
    areas = np.cumsum(level[:-1] * np.diff(times[order])[:, None], axis=0)
    area = np.concatenate([np.zeros((1, values.shape[1])), areas])
    at = np.stack([np.interp(edges, times[order], column) for column in area.T], axis=1)
    return np.diff(at, axis=0) / np.diff(edges)[:, None]


def length(timeline: Timeline) -> float:
    """Seconds to draw: the clip's duration, or the end of what reaches beyond it."""
    ends = [s.end for s in timeline.segments]
    return max(timeline.duration, *ends, SLIGHT) if ends else max(timeline.duration, SLIGHT)


def modalities(timeline: Timeline) -> list[str]:
    """Every modality that any segment has, in the order of the first that has it."""
    return list(dict.fromkeys(m for s in timeline.segments for m in s.modalities))


# ---- the answer in words ---------------------------------------------------------------------------------------


def shares(timeline: Timeline) -> dict[str, float]:
    """Share of the judged time per winning label, largest first; overlapping segments count each. Values have none."""
    time: dict[str, float] = {}
    total = 0.0
    for s in timeline.segments if not timeline.values else ():
        if s.label is not None:
            total += s.end - s.start
            for label in s.labels:
                time[label] = time.get(label, 0.0) + s.end - s.start
    return {k: v / total for k, v in sorted(time.items(), key=lambda item: -item[1])} if total > 0 else {}


def unjudged(segments: Sequence[Segment]) -> float:
    """Share of the segments' time in which nothing was usable."""
    total = sum(s.end - s.start for s in segments)
    return sum(s.end - s.start for s in segments if s.label is None) / total if total > 0 else 0.0


def headline(timeline: Timeline) -> str:
    """The answer as one sentence without its full stop."""
    found = list(shares(timeline).items())
    if timeline.values and any(s.label is not None for s in timeline.segments):
        return f"{in_words(average(timeline))} on average".capitalize()
    if not found:
        return f"{UNKNOWN.capitalize()}: {timeline.reasons()}"
    (first, most), *others = found
    if not others:
        return f"{first} {'wherever it can be told' if unjudged(timeline.segments) else 'throughout'}".capitalize()
    second, next_most = others[0]
    if most >= 0.5 and most - next_most >= LEAD:
        return f"Mostly {first}, {percent(most)} of the time"
    return f"Mixed: {first} ({percent(most)} of the time), {second} ({percent(next_most)})"


def average(timeline: Timeline) -> dict[str, float]:
    """The mean of each value over the judged time."""
    judged = [s for s in timeline.segments if s.label is not None]
    weights = [s.end - s.start for s in judged]
    return {k: float(np.average([s.probabilities[k] for s in judged], weights=weights)) for k in timeline.labels}


def confidence(timeline: Timeline) -> float | None:
    """Mean probability of the winning label over the judged time; None where there is none."""
    rows = [(s.end - s.start, s.probability) for s in timeline.segments if s.label is not None]
    total = sum(w for w, _ in rows)
    return sum(w * p for w, p in rows) / total if total > 0 else None


def percent(share: float) -> str:
    """A share as text without a line break; what is there is never 0 %, what is not all is never 100 %."""
    if 0 < share < 0.005:
        return "<\u00a01\u00a0%"
    return ">\u00a099\u00a0%" if 0.995 <= share < 1 - 1e-9 else f"{100 * share:.0f}\u00a0%"


def clock(seconds: float, fraction: int = 0) -> str:
    """Seconds as 0:04, 12:30 or 1:02:03, with `fraction` decimals."""
    unit = 10**fraction
    whole, rest = divmod(round(seconds * unit), unit)
    tail = f".{rest:0{fraction}d}" if fraction else ""
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}{tail}" if hours else f"{minutes}:{whole % 60:02d}{tail}"


def ticks(total: float, count: int = 10) -> list[float]:
    """At most about `count` round times in [0, total]."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
    step = next((s for s in steps if total / s <= count), total / count)
    return [k * step for k in range(int(total / step + 1e-6) + 1)]


def joined(spans: Sequence[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    """Spans in order, those less than `gap` s apart joined: what can be distinguished at a given width."""
    merged: list[tuple[float, float]] = []
    for a, b in sorted(spans):
        if merged and a - merged[-1][1] <= gap:
            merged[-1] = (merged[-1][0], max(merged[-1][1], b))
        else:
            merged.append((a, b))
    return merged


def runs(values: np.ndarray) -> list[tuple[int, int]]:
    """(first, behind the last) index of each run of equal values."""
    if not len(values):
        return []
    return list(pairwise([0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]))


def printable(text: str) -> str:
    """`text` without what would steer a terminal or stop a font: subtitles and file names come from anywhere."""
    return "".join(c if c.isprintable() else " " for c in text)
