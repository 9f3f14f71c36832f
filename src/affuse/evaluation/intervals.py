"""Bootstrap intervals clustered by speaker or source.

A metric is a file of `evaluation/metrics/`: `statistics(truth, predicted) -> [N, K]` per item, additive, and
`compute(sums [..., K]) -> [...]`. So a resample of whole clusters is a weighted sum of cluster sums, and all
resamples are one matrix product. A metric of ranks has `weighted(truth, predicted, weights [R, N]) -> [R]` instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from affuse.core import registry

RESAMPLES = 2000
FEW = 12  # groups; of 4, about 84 % of the intervals hold the truth (a test simulates it), of 12 about 93 %
CHUNK = 1 << 20  # weights of items at a time


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


def clustered(by: str, groups: int) -> str:
    """What an interval resamples, in words; with few groups also that it comes out too narrow."""
    few = f" ({groups} groups only: with so few, intervals are too narrow and p too small)" if 1 < groups < FEW else ""
    return f"{RESAMPLES} resamples, clustered by {by}{few}"


def metric(name: str) -> Any:
    """The metric of that name."""
    return registry.load("metrics", name)


def value(name: str, truth: np.ndarray, predicted: np.ndarray) -> float:
    """The metric of that name on the sample itself."""
    chosen = metric(name)
    if hasattr(chosen, "weighted"):
        return float(chosen.weighted(truth, predicted, np.ones((1, len(truth))))[0])
    return float(chosen.compute(chosen.statistics(truth, predicted).sum(0)))


def resample_weights(clusters: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each cluster is drawn in each resample, [resamples, clusters]; the first row is the sample itself."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)
    return np.concatenate([np.ones((1, clusters)), drawn])


def cluster_sums(values: np.ndarray, groups: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Sum statistics [N, K] within each group -> [G, K]."""
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((index.max() + 1, values.shape[1]))
    np.add.at(sums, index, values)
    return sums


def distribution(
    name: str, truth: np.ndarray, predicted: np.ndarray, groups: Sequence[Any] | np.ndarray, seed: int = 0
) -> np.ndarray:
    """The metric on the sample (first) and on every clustered resample, [1 + RESAMPLES]."""
    chosen = metric(name)
    if hasattr(chosen, "weighted"):
        names, index = np.unique(np.asarray(groups), return_inverse=True)
        drawn = resample_weights(len(names), seed=seed)
        parts = np.array_split(drawn, max(1, len(drawn) * len(index) // CHUNK))
        return np.concatenate([chosen.weighted(truth, predicted, part[:, index].astype(np.float32)) for part in parts])
    sums = cluster_sums(chosen.statistics(truth, predicted), groups)
    return np.asarray(chosen.compute(resample_weights(len(sums), seed=seed) @ sums))


def mean_distribution(
    name: str, truth: np.ndarray, runs: Sequence[np.ndarray], groups: Sequence[Any] | np.ndarray, seed: int = 0
) -> np.ndarray:
    """`distribution` averaged over the predictions of runs that differ by seed, within each resample."""
    return np.mean([distribution(name, truth, predicted, groups, seed) for predicted in runs], axis=0)


def as_estimate(values: np.ndarray, groups: Sequence[Any] | np.ndarray) -> Estimate:
    """What has this `distribution` [1 + RESAMPLES], with its 95 % percentile interval; NaN bounds of a single cluster."""
    low, high = np.percentile(values[1:], [2.5, 97.5]) if len(set(groups)) > 1 else (np.nan, np.nan)
    return Estimate(float(values[0]), float(low), float(high), len(groups))


def estimate_mean(
    name: str, truth: np.ndarray, runs: Sequence[np.ndarray], groups: Sequence[Any] | np.ndarray, seed: int = 0
) -> Estimate:
    """Mean metric over runs with its 95 % percentile interval; with a single cluster that is NaN (nothing to resample)."""
    return as_estimate(mean_distribution(name, truth, runs, groups, seed), groups)


def estimate(
    name: str, truth: np.ndarray, predicted: np.ndarray, groups: Sequence[Any] | np.ndarray, seed: int = 0
) -> Estimate:
    """Metric of one run with its interval."""
    return estimate_mean(name, truth, [predicted], groups, seed)


@dataclass(frozen=True)
class Difference:
    """Paired difference A - B: value, 95 % interval, two-sided bootstrap p; those are NaN where there is one cluster."""

    value: float
    low: float
    high: float
    p: float
    n: int

    def to_dict(self) -> dict[str, float | None]:
        """{value, low, high, p, n}; what is unknown is null."""
        return {k: None if v != v else v for k, v in vars(self).items()}


def paired_difference(
    name: str,
    truth: np.ndarray,
    a: Sequence[np.ndarray],
    b: Sequence[np.ndarray],
    groups: Sequence[Any] | np.ndarray,
    seed: int = 0,
) -> Difference:
    """Mean metric of the predictions `a` minus that of `b` (several seeds each) on the same resamples of clusters.

    p = twice the share of resamples on the far side of 0 (at least 1 / RESAMPLES).
    """
    gap = mean_distribution(name, truth, a, groups, seed) - mean_distribution(name, truth, b, groups, seed)
    found, drawn = as_estimate(gap, groups), gap[1:]
    p = np.clip(2 * min((drawn <= 0).mean(), (drawn >= 0).mean()), 1 / len(drawn), 1) if found.low == found.low else np.nan
    return Difference(found.value, found.low, found.high, float(p), len(truth))


def holm(p: Sequence[float]) -> np.ndarray:
    """p values [K] adjusted for their number by Holm's step-down method (1979): at most a, all of them false with chance a."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(stepped, 1)[np.argsort(order)]
