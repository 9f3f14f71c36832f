"""The recordings of one person over time: each in numbers with intervals, the trend of each emotion, change points.

Days are compared, not recordings: those of one day are averaged by their seconds with an answer, so that ten
recordings of one day are no ten observations of it. Trend: the median of the slopes of all pairs of days (Theil 1950)
with the interval of Sen (1968), tested by Kendall's rank correlation with time (1938). Change points: binary
segmentation (Scott and Knott 1974), each split where the standardised difference of means is largest, tested by
permutations of the days (Antoch and Huskova 2001). Holm (1979) adjusts each set of tests for its number.

All of it takes days as independent of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import count
from math import comb, factorial

import numpy as np

from affuse.core.monitor import ALPHA, WEEK, Change, Interval, Monitor, Recording, Summary, Trend
from affuse.core.timeline import Segment, Timeline
from affuse.evaluation.intervals import holm, over_groups, without_each

LEAST_ANSWERED = 1.0  # s with an answer: a few words or one look; less is a part of an expression
OTHERS = 0.2  # share of the speech of other people from which a recording is not of one person
TOGETHER = 1.0  # s on screen at once that make two faces two people: a face that returns gets a new track
LEAST_SIDE = 3  # days on each side of a change
LEAST_SPAN = 7  # days from the first to the last: a slope per week is not made of less than a week
PERMUTATIONS, SEED = 4999, 0


# ---- one recording ---------------------------------------------------------------------------------------------


def summarise(timeline: Timeline) -> Summary:
    """One recording in numbers, of the person who speaks most in it.

    A recording in which others speak much, or that has less than LEAST_ANSWERED seconds with an answer, is a gap.
    """
    others, several = _others(timeline)
    timeline = replace(timeline, segments=[s for s in timeline.segments if s.speaker not in others])
    length = np.array([s.end - s.start for s in timeline.segments])
    known = [s for s in timeline.segments if s.label is not None]
    seconds = float(sum(s.end - s.start for s in known))
    gap = several
    if not gap and seconds < LEAST_ANSWERED:
        short = f"{seconds:.1f} s with an answer, {LEAST_ANSWERED:g} s is needed"
        gap = short if len(known) == len(timeline.segments) > 0 else timeline.reasons()
    modalities = dict.fromkeys(m for s in timeline.segments for m in s.modalities)
    coverage = {
        m: float(np.average([s.modalities[m].coverage if m in s.modalities else 0.0 for s in timeline.segments],
                            weights=length))
        for m in modalities
    }  # fmt: skip
    shares = {} if gap else _shares(known, timeline.labels)
    return Summary(timeline.duration, float(length.sum()), seconds, shares, coverage, gap)


def _shares(known: Sequence[Segment], labels: Sequence[str]) -> dict[str, Interval]:
    """The mean probability of each label over the answered time, its interval from a jackknife over segments."""
    length = np.array([[s.end - s.start] for s in known])
    values = np.array([[s.probabilities[label] for label in labels] for s in known])
    sums = without_each(np.concatenate([values * length, length], axis=1))  # [1 + G, C + 1]
    with np.errstate(invalid="ignore"):  # of one segment nothing is left without it
        left = sums[:, :-1] / sums[:, -1:]
    found = {}
    for label, own in zip(labels, left.T, strict=True):
        low, high = np.clip(over_groups(own, length[:, 0]).interval(own[0]), 0.0, 1.0)
        found[label] = float(own[0]), float(low), float(high)
    return found


def _others(timeline: Timeline) -> tuple[set[str], str]:
    """The speakers who are surely not the one who speaks most; and why it is no recording of one person, or ""."""
    seen = {f"face {face.id}": np.array(face.seen) for face in timeline.faces}
    time: dict[str, float] = {}
    for s in timeline.segments:
        if s.speaker:
            time[s.speaker] = time.get(s.speaker, 0.0) + s.end - s.start
    if not time:
        return set(), _in_view(list(seen.values()))
    main = max(time, key=lambda who: time[who])
    others = {who for who in time if _apart(who, main, seen)}
    share = sum(time[who] for who in others) / sum(time.values())
    return others, f"several people speak (others {share:.0%} of the time)" if share >= OTHERS else ""


def _apart(a: str, b: str, seen: dict[str, np.ndarray]) -> bool:
    """Whether two speakers are surely two people: by two names, or by two faces that are seen at once."""
    if a in seen and b in seen:
        return a != b and _overlap(seen[a], seen[b]) >= TOGETHER
    return a != b and a not in seen and b not in seen


def _in_view(seen: Sequence[np.ndarray]) -> str:
    """Why a recording in which nobody is seen to speak is not of one person: a second face, half of the time."""
    times = [float((spans[:, 1] - spans[:, 0]).sum()) for spans in seen]
    if not times:
        return ""
    main = int(np.argmax(times))
    shared = max((_overlap(seen[main], spans) for k, spans in enumerate(seen) if k != main), default=0.0)
    return "several people are in view" if shared >= max(TOGETHER, times[main] / 2) else ""


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Seconds that the spans [N, 2] and [M, 2] share."""
    shared = np.minimum.outer(a[:, 1], b[:, 1]) - np.maximum.outer(a[:, 0], b[:, 0])
    return float(shared.clip(0).sum())


# ---- all recordings --------------------------------------------------------------------------------------------


def follow(recordings: Sequence[Recording], subject: str, model: str, notes: Sequence[str] = ()) -> Monitor:
    """What the recordings of one person show over time."""
    dated = sorted((r for r in recordings if r.date is not None), key=lambda r: (r.date, r.file))
    undated = sorted((r for r in recordings if r.date is None), key=lambda r: r.file)
    found = Monitor(subject, model, dated, undated, notes=list(notes))
    days, values = daily(found.answered, found.labels)
    enough = _enough(len(days), fewest_for_trend(len(found.labels)))
    if not enough and days[-1] - days[0] < LEAST_SPAN:
        enough = f"all within {days[-1] - days[0] + 1} days, {LEAST_SPAN + 1} are needed"
    no_changes = _enough(len(days), fewest_for_change(len(found.labels)))
    trends = [] if enough else find_trends(days, values, found.labels)
    changes = [] if no_changes else find_changes(days, values, found.labels)
    return replace(found, trends=trends, changes=changes, no_trends=enough, no_changes=no_changes)


def fewest_for_trend(labels: int) -> int:
    """The fewest days with which a perfect order can reach ALPHA for one of `labels`: 2 of n! orders are perfect."""
    return next(n for n in count(3) if 2 * max(labels, 1) / factorial(n) <= ALPHA)


def fewest_for_change(labels: int) -> int:
    """The fewest days with which a perfect change half-way can reach ALPHA for one of `labels`."""
    return next(n for n in count(2 * LEAST_SIDE) if 2 * max(labels, 1) / comb(n, n // 2) <= ALPHA)


def _enough(days: int, fewest: int) -> str:
    """Why there are too few days; empty where there are enough."""
    return "" if days >= fewest else f"{days} day{'s' if days != 1 else ''} with an answer, {fewest} are needed"


def daily(recordings: Sequence[Recording], labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Days [N] (ordinal, in order) and the shares [N, K] of `labels` on them, weighted by the answered seconds."""
    of = np.array([r.date.toordinal() for r in recordings if r.date is not None], dtype=int)
    weights = np.array([[r.summary.answered] for r in recordings]).reshape(-1, 1)
    shares = np.array([[r.summary.shares[label][0] for label in labels] for r in recordings])
    days, index = np.unique(of, return_inverse=True)
    sums = np.zeros((len(days), len(labels) + 1))
    np.add.at(sums, index, np.concatenate([shares.reshape(len(of), len(labels)) * weights, weights], axis=1))
    return days, sums[:, :-1] / sums[:, -1:]


def find_trends(days: np.ndarray, values: np.ndarray, labels: Sequence[str]) -> list[Trend]:
    """The trend of each label from its shares [N, K] on days [N]: Theil's slope, Sen's interval, Kendall's p."""
    from scipy.stats import kendalltau, theilslopes

    weeks = (days - days[0]) / WEEK
    p = holm([np.nan_to_num(kendalltau(weeks, v).pvalue, nan=1.0) for v in values.T])
    lines = [theilslopes(v, weeks, alpha=1 - ALPHA) for v in values.T]
    return [
        Trend(label, *(float(x) for x in (line.slope, line.low_slope, line.high_slope, line.intercept, own)))
        for label, line, own in zip(labels, lines, p, strict=True)
    ]


def find_changes(days: np.ndarray, values: np.ndarray, labels: Sequence[str]) -> list[Change]:
    """The change points of each label from its shares [N, K] on days [N], in order of time."""
    cuts = _segmented(values)
    found = []
    for k, label in enumerate(labels):
        at = sorted(cut for of, cut in cuts if of == k)
        means = [part.mean() for part in np.split(values[:, k], at)]
        for cut, before, after in zip(at, means, means[1:], strict=False):
            last, first = (datetime.fromordinal(int(day)) for day in days[cut - 1 : cut + 1])
            found.append(Change(label, last, first, float(before), float(after), cuts[k, cut]))
    return sorted(found, key=lambda change: (change.first, change.label))


def _segmented(values: np.ndarray) -> dict[tuple[int, int], float]:
    """(column, first row after the change) -> adjusted p; parts are split as long as a split is significant.

    At each stage the tests are those of all parts of all columns, also of those that stay as they are.
    """
    rng = np.random.default_rng(SEED)
    new = [(k, 0, len(values)) for k in range(values.shape[1])]
    parts: dict[tuple[int, int, int], tuple[int, float]] = {}
    found: dict[tuple[int, int], float] = {}
    while new:
        parts |= {(k, a, b): _shift(values[a:b, k], rng) for k, a, b in new if b - a >= 2 * LEAST_SIDE}
        adjusted = dict(zip(parts, holm([p for _, p in parts.values()]), strict=True))
        new = []
        for k, a, b in [part for part, p in adjusted.items() if p <= ALPHA]:
            cut, _ = parts.pop((k, a, b))
            found[k, a + cut] = float(adjusted[k, a, b])
            new += [(k, a, a + cut), (k, a + cut, b)]
    return found


def _shift(values: np.ndarray, rng: np.random.Generator) -> tuple[int, float]:
    """Where the mean of the values [n] most likely shifts, and the p of a shift that large, by permutations.

    Of n values the sum z of the first k, less their mean, has the standardised size |z| sqrt(n / (k (n - k))).
    """
    n = len(values)
    own = values - values.mean()
    rows = np.concatenate([own[None], rng.permuted(np.tile(own, (PERMUTATIONS, 1)), axis=1)])
    k = np.arange(LEAST_SIDE, n - LEAST_SIDE + 1)
    sizes = np.abs(rows.cumsum(1)[:, k - 1]) * np.sqrt(n / (k * (n - k)))
    largest = sizes.max(1)
    as_large = (largest[1:] >= largest[0] - 1e-12).sum()
    return int(k[sizes[0].argmax()]), float((1 + as_large) / (1 + PERMUTATIONS))
