"""Computational sequences of the CMU-MultimodalSDK (.csd): HDF5 files of features with time intervals, per video.

Layout: /NAME/data/KEY/features [n, d] and intervals [n, 2] (s), /NAME/metadata/*; KEY is a video, or video[k] (its k-th
label segment) once the SDK has aligned the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from affuse.core.errors import BadCorpus, MissingDependency
from affuse.core.types import Feature

MAGIC = b"\x89HDF\r\n\x1a\n"
PACKED = 1100  # the most that HDF5's compression gains
LONGEST = 24 * 3600.0  # s that a recording lasts at most: later times are damage, and would become huge arrays
PAUSE = "sp"  # how the forced aligner writes a pause between words
Segment = tuple[str, float, float]  # id, start, end (s)


@dataclass(frozen=True)
class Csd:
    """One sequence: its root `name`, `width` numbers per row (or `words`: one string), rows per key."""

    path: Path
    name: str
    width: int
    words: bool
    rows: Mapping[str, int]

    def read(self, keys: Sequence[str] | None = None) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """(key, intervals [n, 2] float64 seconds, features [n, width] numbers or [n] str), in the file's order.

        Raises BadCorpus for times that are not finite, lie beyond a day or end before they start.
        """
        with _open(self.path) as file:
            for key in self.rows if keys is None else keys:
                group = file[self.name]["data"][key]
                yield key, self._intervals(key, group), self._features(group["features"][()])

    def times(self) -> Iterator[np.ndarray]:
        """The intervals of `read`, of all keys; features, which may be tens of gigabytes, are not read."""
        with _open(self.path) as file:
            data = file[self.name]["data"]
            yield from (self._intervals(key, data[key]) for key in self.rows)

    def _intervals(self, key: str, group: Any) -> np.ndarray:
        intervals = np.asarray(group["intervals"][()], dtype=np.float64)
        wrong = np.flatnonzero(~(np.abs(intervals) <= LONGEST).all(1) | ~(intervals[:, 1] >= intervals[:, 0]))
        if len(wrong):
            raise _bad(self.path, f"interval {intervals[wrong[0]].tolist()} of '{key}' is no interval of time")
        return intervals

    def _features(self, raw: np.ndarray) -> np.ndarray:
        if not self.words:
            return raw.reshape(len(raw), self.width)
        return np.array(
            [w.decode("utf-8", "replace") if isinstance(w, bytes) else str(w) for w in raw.ravel()], dtype=object
        )


def is_csd(head: bytes) -> bool:
    """Whether a file that begins with these bytes is HDF5."""
    return head.startswith(MAGIC)


def open_csd(path: Path) -> Csd:
    """The sequence of a file, its shapes checked and nothing read; BadCorpus names the group that does not fit."""
    with _open(path) as file:
        if len(file) != 1:
            raise _bad(path, f"{len(file)} groups at the root, a csd file has one")
        name = next(iter(file))
        data = _part(path, _part(path, file, name), "data")
        if not hasattr(data, "keys") or not len(data):
            raise _bad(path, f"/{name}/data is empty or no group")
        found = {key: _shape(path, _part(path, data, key), key) for key in data}
    kinds = Counter((width, words) for _, width, words in found.values())
    (width, words), _ = kinds.most_common(1)[0]
    if len(kinds) > 1:
        odd = next(k for k, (_, w, s) in found.items() if (w, s) != (width, words))
        raise _bad(path, f"features of '{odd}' have {found[odd][1]} columns, those of the others {width}")
    return Csd(path, name, width, words, {key: rows for key, (rows, _, _) in found.items()})


def _shape(path: Path, group: Any, key: str) -> tuple[int, int, bool]:
    """(rows, width, strings) of one video, without reading it."""
    import h5py

    features, intervals = _part(path, group, "features"), _part(path, group, "intervals")
    for name, part in (("features", features), ("intervals", intervals)):
        if not isinstance(part, h5py.Dataset) or part.is_virtual or part.external:
            raise _bad(path, f"{name} of '{key}' is not an array of this file")
        if part.size * part.dtype.itemsize > PACKED * path.stat().st_size:
            raise _bad(path, f"{name} of '{key}' claim the shape {list(part.shape)}, more than the file can hold")
    if intervals.ndim != 2 or intervals.shape[1] != 2 or intervals.dtype.kind not in "fiu":
        raise _bad(path, f"intervals of '{key}' are {intervals.dtype}{list(intervals.shape)}, expected [n, 2] seconds")
    if features.ndim < 1 or len(features) != len(intervals):
        raise _bad(path, f"'{key}' has features {list(features.shape)} for {len(intervals)} intervals")
    width, strings = int(np.prod(features.shape[1:])), features.dtype.kind in "SO"
    if not strings and features.dtype.kind not in "fiu":
        raise _bad(path, f"features of '{key}' are {features.dtype}, neither numbers nor words")
    if strings and width != 1:
        raise _bad(path, f"'{key}' has {width} words per interval, expected one")
    return len(intervals), width, strings


def _part(path: Path, group: Any, name: str) -> Any:
    import h5py

    link = group.get(name, getlink=True) if hasattr(group, "keys") else None
    if link is None:
        raise _bad(path, f"no '{name}' in {getattr(group, 'name', '?')}")
    if not isinstance(link, h5py.HardLink):  # a link may lead to any file of this machine
        raise _bad(path, f"'{name}' is a link to somewhere else")
    return group[name]


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise MissingDependency(
            f"{path.name} is HDF5, and h5py is not installed", "pip install 'affuse[hdf5]'"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise _bad(path, f"damaged or not a csd file ({error})") from error


def _bad(path: Path, what: str) -> BadCorpus:
    return BadCorpus(f"{path}: {what}", "download the official .csd file of the CMU-MultimodalSDK again")


def frame_rate(csd: Csd) -> float:
    """Rows per second where the rows stand on an even grid (nine of ten steps within 10 % of the median), else 0."""
    steps = np.concatenate([np.diff(times[:, 0]) for times in csd.times()] or [np.zeros(0)])
    steps = steps[steps > 0]
    middle = float(np.median(steps)) if len(steps) else 0.0
    even = len(steps) > 1 and float(np.mean(np.abs(steps - middle) <= 0.1 * middle)) >= 0.9
    return round(1.0 / middle, 3) if even else 0.0


def within(intervals: np.ndarray, start: float, end: float) -> np.ndarray:
    """Indices, in time order, of the intervals whose middle lies in [start, end) s."""
    middle = intervals.mean(1)
    chosen = np.flatnonzero((middle >= start) & (middle < end))
    return chosen[np.argsort(intervals[chosen, 0], kind="stable")]


def cut(intervals: np.ndarray, features: np.ndarray, start: float, end: float, rate: float) -> np.ndarray:
    """Features [T, d] of [start, end) s: at `rate` Hz (the row that covers each step's middle), or all rows for rate 0.

    A step that no row covers is NaN, and so is every number that is not finite.
    """
    if rate <= 0 or not len(features) or not np.isfinite(end):
        return finite(features[within(intervals, start, end)])
    order = np.argsort(intervals[:, 0], kind="stable")
    times = start + (np.arange(max(1, round((end - start) * rate))) + 0.5) / rate
    row = order[np.maximum(np.searchsorted(intervals[order, 0], times, "right") - 1, 0)]
    slack = 0.25 / rate  # stamps are rounded
    inside = (times >= intervals[row, 0] - slack) & (times < intervals[row, 1] + slack)
    return np.where(inside[:, None], finite(features[row]), np.float32(np.nan))


def average(intervals: np.ndarray, features: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Mean feature [W, d] per span [W, 2] s over the rows whose middle lies in it, missing numbers left out.

    A span shorter than a row takes the row at its middle; a span that no row touches is NaN.
    """
    if not len(features) or not len(spans):
        return np.full((len(spans), features.shape[1]), np.nan, dtype=np.float32)
    order = np.argsort(intervals[:, 0], kind="stable")
    times, values = intervals[order], finite(features[order]).astype(np.float64)
    known = ~np.isnan(values)
    zero = np.zeros((1, values.shape[1]))
    total = np.concatenate([zero, np.cumsum(np.where(known, values, 0), axis=0)])
    count = np.concatenate([zero, np.cumsum(known, axis=0)])
    low, high = np.searchsorted(times.mean(1), spans[:, 0]), np.searchsorted(times.mean(1), spans[:, 1])
    nearest = np.maximum(np.searchsorted(times[:, 0], spans.mean(1), "right") - 1, 0)
    touches = (high == low) & (times[nearest, 1] >= spans.mean(1)) & (times[nearest, 0] <= spans.mean(1))
    low, high = np.where(touches, nearest, low), np.where(touches, nearest + 1, high)
    n = count[high] - count[low]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 0, (total[high] - total[low]) / n, np.nan).astype(np.float32)


def finite(values: np.ndarray) -> np.ndarray:
    """Values as float32, with NaN for every infinite number."""
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    return np.where(np.isfinite(values), values, np.float32(np.nan))


def feature(values: np.ndarray, used: np.ndarray | None = None) -> Feature:
    """A Feature of values [T, d]: steps without any number, or not `used` [T], are not valid; T = 0 where none is."""
    ok = ~np.isnan(values).all(1) if used is None else used & ~np.isnan(values).all(1)
    if not ok.any():
        return Feature(values[:0])
    return Feature(values, None if ok.all() else ok)


def features(
    csd: Csd, segments: Mapping[str, Sequence[Segment]], rate: float, spans: Mapping[str, np.ndarray] | None = None
) -> Iterator[tuple[str, Feature]]:
    """(id, Feature) of every segment: `segments` per key of the file; with `spans` [W, 2] per id, one step per span."""
    for key, times, values in csd.read([k for k in segments if k in csd.rows]):
        if spans is None:
            yield from ((name, feature(cut(times, values, start, end, rate))) for name, start, end in segments[key])
            continue
        steps = [spans.get(name, np.zeros((0, 2))) for name, _, _ in segments[key]]
        means = np.split(average(times, values, np.concatenate(steps)), np.cumsum([len(s) for s in steps])[:-1])
        yield from ((name, feature(mean)) for (name, _, _), mean in zip(segments[key], means, strict=True))
