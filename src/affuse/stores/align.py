"""Bringing features of different rates onto one grid of time, or onto words."""

from __future__ import annotations

from typing import Literal

import numpy as np

from affuse.core.errors import BadConfig
from affuse.core.types import Feature

How = Literal["mean", "nearest"]


def at_rate(
    feature: Feature, rate: float, wanted: float, how: How = "mean", start: float = 0.0, end: float | None = None
) -> Feature:
    """`feature` (`rate` steps per second) on the grid start + k / wanted, up to `end` (s; None: where it ends).

    Step k covers [k, k + 1) / wanted. "mean": of the usable steps that begin in it, or, where the grid is finer, the
    step that lasts then; "nearest": the usable step nearest to its middle, at most one step of the coarser rate away.
    What has none is not valid. Raises BadConfig for a stream whose steps are no moments in time.
    """
    if rate <= 0 or wanted <= 0:
        raise BadConfig(
            f"cannot bring {rate or 'untimed'} steps per second to {wanted or 'none'}", "only timed streams have a rate"
        )
    end = feature.t0 + len(feature.values) / rate if end is None else end
    edges = start + np.arange(max(0, int(np.ceil((end - start) * wanted - 1e-6))) + 1) / wanted
    return onto(feature, rate, np.stack([edges[:-1], edges[1:]], 1), how, start, reach=max(1 / rate, 1 / wanted))


def onto(
    feature: Feature, rate: float, spans: np.ndarray, how: How = "mean", t0: float = 0.0, reach: float | None = None
) -> Feature:
    """One step per span [K, 2] (s on the clip's clock): words, turns or cells of a grid; `reach` (s) as of at_rate."""
    spans = np.asarray(spans, float).reshape(-1, 2)
    if len(spans) == 0:
        return Feature(feature.values[:0], None, t0)
    usable = np.ones(len(feature.values), bool) if feature.valid is None else feature.valid
    steps = np.flatnonzero(usable)
    times = feature.t0 + steps / rate
    if len(steps) == 0:
        empty = np.zeros((len(spans), *feature.values.shape[1:]), feature.values.dtype)
        return Feature(empty, np.zeros(len(spans), bool), t0)
    values = feature.values[steps]
    middle = spans.mean(1)
    # the step that lasts at a moment begins up to one step before it: nearest compares with the middle of steps
    centres = times + 0.5 / rate
    right = np.clip(np.searchsorted(centres, middle), 0, len(steps) - 1)
    left = np.maximum(right - 1, 0)
    earlier = np.abs(centres[left] - middle) <= np.abs(centres[right] - middle) + 1e-9  # of two as near
    near = np.where(earlier, left, right)
    far = np.abs(centres[near] - middle) > (1 / rate if reach is None else reach) / 2 + 1e-6
    if how == "nearest" or values.dtype.kind in "ui":
        return Feature(np.where(_like(far, values), np.zeros((), values.dtype), values[near]), ~far, t0)
    first, last = (np.searchsorted(times, spans[:, i] - 1e-6) for i in (0, 1))
    count, missing = last - first, np.isnan(values)
    known = _like(count, values)
    if missing.any():  # single numbers of usable steps: they have no part in a mean, nor in the sums after it
        known = known - _sums(missing, first, last)
    mean = _sums(np.where(missing, 0, values), first, last) / np.maximum(known, 1)
    mean = np.where(known > 0, mean, np.nan)
    filled = np.where(_like(count > 0, mean), mean, np.where(_like(far, mean), 0, values[near]))
    return Feature(filled.astype(values.dtype), (count > 0) | ~far, t0)


def _sums(values: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Sums of values [n, ...] from each `first` [K] up to its `last`: [K, ...] float64."""
    running = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0, dtype=np.float64)])
    between: np.ndarray = running[last] - running[first]
    return between


def _like(row: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A vector [K] that broadcasts over values [K, ...]."""
    return row.reshape(-1, *[1] * (values.ndim - 1))
