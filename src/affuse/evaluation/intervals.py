"""Intervals and tests over groups (speakers, sources) and seeds: the jackknife over groups, and Student's t.

The statistics of a metric are additive (see `affuse.metrics`), so the score without a group is that of the sums of all
items less those of the group.

A score of S seeds on G groups varies with the groups that happened to be tested and with the seeds that were trained:

    var = (G - 1) / G sum_g (m_-g - mean m)^2 + max(0, var_seeds / S - var_both / (G S))

m_-g is the mean over seeds without group g; what seeds and groups have in common is in both terms, and is subtracted
once. The degrees of freedom are Satterthwaite's (1946). Those of the groups are G - 1 where all groups are equal, else
its harmonic mean with the effective number of groups less one; benchmarks/intervals.py measures how often such an
interval holds the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from affuse.core import registry
from affuse.metrics import metric

LEVEL = 0.95
FEW = 3  # groups or fewer: the interval holds, but it is so wide that it is of little use
MOST = 1000  # groups; more are joined to so many, which costs no coverage
CHUNK = 1 << 20  # weights of items at a time
ROUNDING = 1e-12  # of a score: less is nothing


@dataclass(frozen=True)
class Estimate:
    """A metric's value with its 95 % interval and the number of items scored."""

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, float | None]:
        """{value, low, high, n}; an unknown bound is null."""
        return {k: None if v != v else v for k, v in vars(self).items()}


@dataclass(frozen=True)
class Difference:
    """Paired difference A - B: value, 95 % interval, two-sided p of Student's t (NaN where there is one group)."""

    value: float
    low: float
    high: float
    p: float
    n: int

    def to_dict(self) -> dict[str, float | None]:
        """{value, low, high, p, n}; what is unknown is null."""
        return {k: None if v != v else v for k, v in vars(self).items()}


@dataclass(frozen=True)
class Spread:
    """How far a score may be off: its variance, and the degrees of freedom of that."""

    variance: float
    df: float

    def __add__(self, other: Spread) -> Spread:
        """Of a sum of two that are independent, with Satterthwaite's degrees of freedom."""
        parts = [s for s in (self, other) if s.variance != 0]
        variance = self.variance + other.variance
        return Spread(variance, variance**2 / sum(s.variance**2 / s.df for s in parts)) if parts else self

    def interval(self, value: float) -> tuple[float, float]:
        """The 95 % interval around a value; NaN where there is one group."""
        from scipy.special import stdtrit

        half = float(stdtrit(self.df, (1 + LEVEL) / 2)) * self.variance**0.5
        return value - half, value + half

    def p(self, value: float) -> float:
        """Two-sided p of a value against 0."""
        from scipy.special import stdtr

        if self.variance == 0 or abs(value) < ROUNDING:
            return float("nan") if self.variance != self.variance else float(abs(value) < ROUNDING)
        return float(2 * stdtr(self.df, -abs(value) / self.variance**0.5))


def clustered(by: str, groups: int, seeds: int = 1) -> str:
    """What an interval is made of, in words: groups and seeds, and what follows from few of them."""
    few = f", so few that it is wide and takes the {groups} for typical ones" if 1 < groups <= FEW else ""
    trained = f"and {seeds} seeds" if seeds > 1 else "for this seed only, as another may score otherwise"
    return f"Student's t, jackknife over {groups} groups by {by}{few}, {trained}"


def codes(groups: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Numbers [N] of the groups that are left out together: 0 .. at most MOST - 1."""
    return np.asarray(np.unique(np.asarray(groups), return_inverse=True)[1] % MOST)


def sizes_of(groups: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Items [G] of the groups that are left out together."""
    return np.bincount(codes(groups))


def cluster_sums(values: np.ndarray, groups: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Sum statistics [N, K] within each group -> [G, K]."""
    index = codes(groups)
    sums = np.zeros((index.max() + 1, values.shape[1]))
    np.add.at(sums, index, values)
    return sums


def without_each(sums: np.ndarray) -> np.ndarray:
    """Sums [..., G, K] of groups -> the sums of all (first), then of all but each [..., 1 + G, K]."""
    total = sums.sum(-2, keepdims=True)
    return np.concatenate([total, total - sums], axis=-2)


def left_out(name: str, truth: np.ndarray, predicted: np.ndarray, groups: Sequence[Any] | np.ndarray) -> np.ndarray:
    """The metric on all items (first), then without each group, [1 + G]."""
    chosen = metric(name)
    if not hasattr(chosen, "weighted"):
        return np.asarray(chosen.compute(without_each(cluster_sums(chosen.statistics(truth, predicted), groups))))
    index = codes(groups)
    kept = np.arange(-1, index.max() + 1)  # -1: no group is left out
    parts = np.array_split(kept, max(1, len(kept) * len(index) // CHUNK))
    weights = ((part[:, None] != index).astype(np.float32) for part in parts)
    return np.concatenate([chosen.weighted(truth, predicted, weight) for weight in weights])


def over_groups(left: np.ndarray, sizes: np.ndarray) -> Spread:
    """Jackknife of scores [1 + G] of all and without each group, groups of these sizes [G]; NaN of a single group."""
    g = len(sizes)
    if g < 2:
        return Spread(np.nan, np.nan)
    own = left[1:] - left[1:].mean()
    variance = float((g - 1) / g * (np.where(np.abs(own) < ROUNDING, 0, own) ** 2).sum())
    effective = sizes.sum() ** 2 / (sizes.astype(float) ** 2).sum()
    return Spread(variance, max(1.0, 2 / (1 / (g - 1) + 1 / (effective - 1))))


def over_seeds(arms: Sequence[np.ndarray]) -> Spread:
    """What seeds add to the sum or difference of arms, each [S, 1 + G]; nothing where an arm has one seed.

    The excess of the variance between seeds over what it owes to the groups' share in it is 0 at least.
    """
    several = [arm for arm in arms if len(arm) > 1]
    of_seeds, of_both, squares = 0.0, 0.0, 0.0
    for arm in several:
        s, g = len(arm), arm.shape[1] - 1
        own = arm[:, 1:] - arm[:, 1:].mean(1, keepdims=True)
        variance = float(arm[:, 0].var(ddof=1)) / s
        of_seeds += variance
        of_both += float((g - 1) / g * ((own - own.mean(0)) ** 2).sum()) / (s * (s - 1))
        squares += variance**2 / (s - 1)
    excess = of_seeds - of_both
    return Spread(excess, of_seeds**2 / squares) if excess > 0 else Spread(0.0, 1.0)


def as_estimate(arm: np.ndarray, sizes: np.ndarray, name: str | None = None) -> Estimate:
    """The estimate of scores [1 + G] or [S, 1 + G], of all groups (first) and without each, of sizes [G].

    `name`: the metric whose bounds hold for the interval.
    """
    arm = np.atleast_2d(arm)
    found = float(arm[:, 0].mean())
    bounds = registry.cards("metrics")[name].get("bounds", (None, None)) if name else (None, None)
    low, high = np.clip((over_groups(arm.mean(0), sizes) + over_seeds([arm])).interval(found), *bounds)
    return Estimate(found, float(low), float(high), int(sizes.sum()))


def as_difference(a: np.ndarray, b: np.ndarray, sizes: np.ndarray) -> Difference:
    """Paired difference of scores [S, 1 + G] of all and without each group of sizes [G]; the arms may differ in S."""
    gap = a.mean(0) - b.mean(0)
    spread, found = over_groups(gap, sizes) + over_seeds([a, b]), float(gap[0])
    low, high = spread.interval(found)
    return Difference(found, low, high, spread.p(found), int(sizes.sum()))


def scores(name: str, truth: np.ndarray, runs: Sequence[np.ndarray], groups: Sequence[Any] | np.ndarray) -> np.ndarray:
    """`left_out` of the predictions of runs that differ by seed, [S, 1 + G]."""
    return np.stack([left_out(name, truth, predicted, groups) for predicted in runs])


def estimate_mean(
    name: str, truth: np.ndarray, runs: Sequence[np.ndarray], groups: Sequence[Any] | np.ndarray
) -> Estimate:
    """Mean metric of runs that differ by seed, with its 95 % interval over groups and seeds (NaN of a single group)."""
    return as_estimate(scores(name, truth, runs, groups), sizes_of(groups), name)


def estimate(name: str, truth: np.ndarray, predicted: np.ndarray, groups: Sequence[Any] | np.ndarray) -> Estimate:
    """Metric of one run with its interval, which holds for this seed."""
    return estimate_mean(name, truth, [predicted], groups)


def paired_difference(
    name: str, truth: np.ndarray, a: Sequence[np.ndarray], b: Sequence[np.ndarray], groups: Sequence[Any] | np.ndarray
) -> Difference:
    """Mean metric of the predictions `a` minus that of `b` (a few seeds each), leaving the same groups out of both."""
    return as_difference(scores(name, truth, a, groups), scores(name, truth, b, groups), sizes_of(groups))


def holm(p: Sequence[float]) -> np.ndarray:
    """p values [K] adjusted for their number by Holm's step-down method (1979).

    Where every one below a is called a difference, the chance that any of these calls is wrong is at most a.
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(stepped, 1)[np.argsort(order)]
