"""Do the intervals hold? Coverage and null rejections of simulated scores: docs/results/intervals.md.

python benchmarks/intervals.py [--replicates 4000] [--print]

Two methods of the same worth are tested on new speakers, again and again. Speakers differ in difficulty (sd .1), half
of its variance by method; within a speaker the predictions of methods and seeds are alike for six items of ten. A seed
may shift a method (sd .01) on everybody. So the true score and the true difference, 0, are known, and it is counted how
often the 95 % interval holds the one and `compare` claims the other. Next to it is the percentile bootstrap over
groups, which affuse had before.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from affuse.core import io
from affuse.evaluation.intervals import as_difference, as_estimate, without_each
from affuse.metrics import metric

ROOT = Path(__file__).resolve().parents[1]
METRICS, GROUPS = ("uar", "accuracy", "weighted_f1", "ccc"), (6, 12, 24, 100)
SPEAKERS, NOISE = 0.1, 0.01  # sd between speakers, and of a seed's shift
SHARES, RECALL = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.7, 0.6, 0.55, 0.5])
CONFUSED = np.array([[0, 0.5, 0.3, 0.2], [0.5, 0, 0.3, 0.2], [0.5, 0.3, 0, 0.2], [0.5, 0.3, 0.2, 0]])
AT_ONCE = 1 << 18  # items
RESAMPLES = 1000  # of the percentile bootstrap


def sizes_of(groups: int, unequal: bool) -> np.ndarray:
    """Utterances [G] of the groups: 20 each, or from 6 to 60."""
    return np.round(np.geomspace(6, 60, groups)).astype(int) if unequal else np.full(groups, 20)


def draw(
    rng: np.random.Generator, name: str, sizes: np.ndarray, replicates: int, seeds: int, noise: float
) -> np.ndarray:
    """Summed statistics [R, 2, S, G, K] of two methods of the same worth."""
    r, g = replicates, len(sizes)
    level = SPEAKERS * np.sqrt(0.5) * (rng.normal(size=(r, 1, 1, g)) + rng.normal(size=(r, 2, 1, g)))
    level = level + noise * rng.normal(size=(r, 2, seeds, 1))
    return _values(rng, sizes, level) if name == "ccc" else _classes(rng, sizes, level)


def _classes(rng: np.random.Generator, sizes: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Confusion counts; `level` [R, 2, S, G] is what is added to every recall."""
    counts = rng.multinomial(sizes, rng.dirichlet(20 * SHARES, size=(len(level), len(sizes))))  # [R, G, C]
    recall = np.clip(RECALL + level[..., None], 0.02, 0.98)
    cells = recall[..., None] * np.eye(4) + (1 - recall[..., None]) * CONFUSED  # [R, 2, S, G, C, C]
    alike = rng.binomial(counts, 0.6)
    same = rng.multinomial(alike, cells.mean((1, 2)))
    own = rng.multinomial(np.broadcast_to((counts - alike)[:, None, None], recall.shape), cells)
    return (own + same[:, None, None]).reshape(*level.shape, -1).astype(float)


def _values(rng: np.random.Generator, sizes: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Moments of truth and prediction; `level` is what is added to the slope of the prediction."""
    r, g, n = len(level), len(sizes), int(sizes.sum())
    of = np.repeat(np.arange(g), sizes)
    offset = 0.3 * rng.normal(size=(2, r, 1, 1, g))  # of the speaker's truth, and of what is predicted of that speaker
    truth = rng.normal(size=(r, 1, 1, n)) + offset[0][..., of]
    error = 0.5 * rng.normal(size=(r, 1, 1, n)) + 0.3 * rng.normal(size=(*level.shape[:3], n))
    predicted = (0.6 + level)[..., of] * truth + offset[1][..., of] + error
    truth = np.broadcast_to(truth, predicted.shape)
    values = np.stack([np.ones_like(predicted), truth, predicted, truth**2, predicted**2, truth * predicted], -1)
    return np.add.reduceat(values, np.append(0, np.cumsum(sizes)[:-1]), axis=-2)


@cache
def true_score(name: str) -> float:
    """What a method scores on all speakers there are."""
    rng = np.random.default_rng(0)
    sums = [draw(rng, name, sizes_of(200, False), 60, 1, 0.0).sum((0, 1, 2, 3)) for _ in range(20)]
    return float(metric(name).compute(np.sum(sums, axis=0)))


@dataclass(frozen=True)
class Measured:
    """Shares of replicates: the interval holds the true score, the null is rejected; the same by the bootstrap."""

    covered: float
    rejected: float
    covered_before: float
    rejected_before: float


def measure(
    name: str, sizes: np.ndarray, seeds: int = 1, noise: float = 0.0, replicates: int = 4000, before: int = 500
) -> Measured:
    """Simulate; the percentile bootstrap, which is slow, on the first `before` replicates."""
    rng, now, old = np.random.default_rng([len(sizes), seeds]), [], [np.zeros((0, 2))]
    some = max(1, AT_ONCE // (2 * seeds * int(sizes.sum())))
    for start in range(0, replicates, some):
        sums = draw(rng, name, sizes, min(some, replicates - start), seeds, noise)
        scores = metric(name).compute(without_each(sums))  # [R, 2, S, 1 + G]
        judged = [(as_estimate(a, sizes), as_difference(a, b, sizes)) for a, b in scores]
        now += [[e.low <= true_score(name) <= e.high, d.p < 0.05] for e, d in judged]
        if start < before:
            old.append(_percentile(rng, name, sums))
    was = np.concatenate(old).mean(0) if before else (np.nan, np.nan)
    return Measured(*(float(v) for v in (*np.mean(now, axis=0), *was)))


def _percentile(rng: np.random.Generator, name: str, sums: np.ndarray) -> np.ndarray:
    """[R, 2]: whether the percentile interval holds the true score, and whether it excludes a difference of 0.

    Of the mean over seeds in each resample.
    """
    groups = sums.shape[3]
    drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES).astype(float)
    found = []
    for one in sums:
        scores = metric(name).compute(drawn @ one).mean(1)  # [2, B]
        (low, low_gap), (high, high_gap) = np.percentile([scores[0], scores[0] - scores[1]], [2.5, 97.5], axis=1)
        found.append([low <= true_score(name) <= high, low_gap > 0 or high_gap < 0])
    return np.array(found, dtype=float)


def page(replicates: int) -> str:
    """The table, and what it means."""
    rows, holds = [], []
    for unequal in (False, True):
        for name in METRICS:
            for groups in GROUPS:
                sizes = sizes_of(groups, unequal)
                alone, five = measure(name, sizes, 1, 0.0, replicates), measure(name, sizes, 5, NOISE, replicates)
                three = measure(name, sizes, 3, NOISE, replicates, before=0)
                now = [alone.covered, five.covered, alone.rejected, five.rejected, three.rejected]
                before = [alone.covered_before, alone.rejected_before, five.rejected_before]
                holds += [abs(c - 0.95) <= 0.02 for c in now[:2]] + [abs(r - 0.05) <= 0.015 for r in now[2:4]]
                cells = [name, str(groups), "6 to 60" if unequal else "20 each", *(f"{v:.3f}" for v in (*now, *before))]
                rows.append(f"| {' | '.join(cells)} |")
                print(rows[-1], file=sys.stderr, flush=True)
    return "\n".join([*_head(replicates, holds), *rows]) + "\n"


def _head(replicates: int, holds: list[bool]) -> list[str]:
    columns = [
        "metric", "groups", "utterances",
        "covered, 1 seed", "covered, 5 seeds", "rejected, 1 seed", "rejected, 5 seeds", "rejected, 3 seeds",
        "before: covered, 1 seed", "before: rejected, 1 seed", "before: rejected, 5 seeds",
    ]  # fmt: skip
    return [
        "# Do the intervals hold?",
        "",
        f"`python benchmarks/intervals.py --replicates {replicates}`. Simulated scores of which the truth is known: "
        f"two methods of the same worth, speakers that differ by sd {SPEAKERS}, "
        "half of the variance by method, 4 uneven classes (or values), groups of 20 utterances or of 6 to 60. "
        "*covered*: the 95 % interval of one score holds the true score, which should be .950. *rejected*: "
        "`compare` finds a difference at 5 % where there is none, which should be .050. *1 seed*: no seed matters. "
        f"*3 seeds*, *5 seeds*: every seed shifts its method by sd {NOISE}, and "
        "the claim is about the method. *before*: percentile bootstrap over groups, seeds averaged within each "
        "resample, on 500 replicates. "
        f"A share of {replicates} replicates is off by .007 at most (two standard errors; before: .020).",
        "",
        f"Of {len(holds)} numbers (covered, rejected, with 1 and 5 seeds), {sum(holds)} lie within .020 (covered) or "
        ".015 (rejected) of what they should be.",
        "",
        f"| {' | '.join(columns)} |",
        "|" + "---|" * len(columns),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=4000)
    parser.add_argument("--print", action="store_true", help="do not write docs/results/intervals.md")
    given = parser.parse_args()
    text = page(given.replicates)
    print(text)
    if not given.print:
        io.write_text(ROOT / "docs" / "results" / "intervals.md", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
