"""A prediction for every frame of a video, from a Timeline: from its curve, else from its segments."""

from __future__ import annotations

import math

import numpy as np

from affuse.core.tasks import Task
from affuse.core.timeline import Segment, Timeline
from affuse.reporting.submissions.challenges import Challenge, Row

EARLY = 0.05  # of a step by which a frame may be stamped too early: containers round times to 1 ms


def predicted_at(timeline: Timeline, task: Task, times: np.ndarray) -> np.ndarray:
    """What a task predicts at `times` [T] (s, rising) as [T, C]; NaN where it predicts nothing.

    From the task's curve the step that lasts at a time, and the nearest one before the first and after the last; from
    segments the last one that has begun and not ended.
    """
    curve = timeline.curves.get(task.name)
    if curve is None:
        return _from_segments(timeline, task, times)
    if not curve.values:
        return np.full((len(times), len(task)), np.nan)
    step = np.floor((times - curve.t0) * curve.rate + EARLY).astype(int)
    values = curve.array()[np.clip(step, 0, len(curve.values) - 1)]
    return values[:, [curve.labels.index(label) for label in task.space.labels]]


def _from_segments(timeline: Timeline, task: Task, times: np.ndarray) -> np.ndarray:
    found = np.full((len(times), len(task)), np.nan)
    if not timeline.segments:
        return found
    lead = next(iter(timeline.tasks)) == task.name
    last = math.nextafter(max(s.end for s in timeline.segments), -math.inf)
    at = np.clip(times, min(s.start for s in timeline.segments), last)
    for s in timeline.segments:
        p = _probabilities(s, task.name, lead)
        if p:
            found[(s.start <= at) & (at < s.end)] = [p[label] for label in task.space.labels]
    return found


def _probabilities(s: Segment, task: str, lead: bool) -> dict[str, float]:
    if lead:
        return s.probabilities
    return s.answers[task].probabilities if task in s.answers else {}


def rows_of(timeline: Timeline, challenge: Challenge, task: Task, times: np.ndarray) -> tuple[list[Row], int]:
    """(a row for every frame, how many of them no prediction stands behind).

    A frame without a prediction gets the row of the last one before it, else of the first one after it; where there is
    none at all, the challenge's default.
    """
    predicted = predicted_at(timeline, task, times)
    known = ~np.isnan(predicted).any(1)
    if not known.any():
        return [challenge.default] * len(times), len(times)
    rows = challenge.rows(task, predicted[known])
    nearest = np.maximum(np.cumsum(known) - 1, 0)
    return [rows[k] for k in nearest], int((~known).sum())
