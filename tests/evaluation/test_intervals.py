"""Intervals over groups and seeds: against closed forms, and by simulation against the truth."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from affuse.evaluation.intervals import (
    MOST,
    Spread,
    as_difference,
    as_estimate,
    clustered,
    estimate,
    estimate_mean,
    left_out,
    over_groups,
    over_seeds,
    paired_difference,
    scores,
    sizes_of,
)
from affuse.metrics import value

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "intervals.py"


@pytest.fixture(scope="module")
def simulated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulated_intervals", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulated_intervals"] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


def two_classes(rng: np.random.Generator, rates: np.ndarray, n: int = 20) -> np.ndarray:
    """Two-class predictions [G n, 2] to a truth of zeros, right at these rates of the groups."""
    right = rng.random((len(rates), n)) < rates[:, None]
    return np.where(right.reshape(-1, 1), [1.0, 0.0], [0.0, 1.0])


def drawn(seed: int = 0, n: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, n), rng.dirichlet(np.ones(3), n), np.sort(rng.integers(0, 8, n))


@pytest.mark.parametrize(("name", "groups", "unequal"), [("uar", 6, False), ("ccc", 12, True)])
def test_intervals_cover_and_reject_as_often_as_they_say(simulated, name, groups, unequal):
    """Within 3 points of 95 %, 2.5 of 5 % (600 replicates, seeds that differ by sd .01), unlike the bootstrap."""
    found = simulated.measure(
        name, simulated.sizes_of(groups, unequal), seeds=3, noise=0.01, replicates=600, before=600
    )
    assert abs(found.covered - 0.95) <= 0.03
    assert abs(found.rejected - 0.05) <= 0.025
    assert found.covered_before < 0.92
    assert found.rejected_before > 0.075


def test_accuracy_of_equal_groups_is_students_t_on_their_means():
    predicted, groups = two_classes(np.random.default_rng(0), np.linspace(0.3, 0.9, 7)), np.repeat(np.arange(7), 20)
    found = estimate("accuracy", np.zeros(140, int), predicted, groups)
    means = predicted[:, 0].reshape(7, 20).mean(1)
    low, high = stats.t.interval(0.95, 6, means.mean(), stats.sem(means))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)


def test_a_paired_difference_of_equal_groups_is_the_paired_t_test():
    rng, groups = np.random.default_rng(1), np.repeat(np.arange(9), 20)
    a, b = two_classes(rng, np.full(9, 0.7)), two_classes(rng, np.full(9, 0.6))
    found = paired_difference("accuracy", np.zeros(180, int), [a], [b], groups)
    means = (p[:, 0].reshape(9, 20).mean(1) for p in (a, b))
    assert found.p == pytest.approx(stats.ttest_rel(*means).pvalue, abs=1e-12)


@pytest.mark.parametrize("name", ["uar", "macro_f1", "mean_average_precision"])
def test_what_is_left_out_is_left_out(name):
    truth, predicted, groups = drawn()
    left = left_out(name, truth, predicted, groups)
    assert left[0] == pytest.approx(value(name, truth, predicted), abs=1e-6)
    for g in range(8):
        kept = groups != g
        assert left[1 + g] == pytest.approx(value(name, truth[kept], predicted[kept]), abs=1e-6)


def test_seeds_count_once_and_only_what_they_do_beyond_the_groups():
    rng = np.random.default_rng(0)
    sizes, level = np.full(10, 20), rng.normal(0.6, 0.1, 11)
    alike = np.tile(level, (4, 1))
    assert over_seeds([alike]) == Spread(0.0, 1.0)
    shifted = alike + np.array([0.0, 0.1, 0.2, 0.3])[:, None]
    added = over_seeds([shifted])
    assert added.variance == pytest.approx(np.var([0.0, 0.1, 0.2, 0.3], ddof=1) / 4)
    assert added.df == pytest.approx(3)
    one, several = as_estimate(level, sizes), as_estimate(shifted, sizes)
    assert several.high - several.low > one.high - one.low
    assert over_seeds([shifted[:1]]).variance == 0
    assert over_seeds([shifted, shifted]).df == pytest.approx(6)


def test_a_claim_that_hangs_on_the_seeds_is_not_made():
    """Every group agrees that A is better, by as much as the seeds of A differ."""
    truth, groups = np.zeros(400, int), np.repeat(np.arange(20), 20)
    rng = np.random.default_rng(3)
    a = [two_classes(rng, np.full(20, rate)) for rate in (0.55, 0.65, 0.75)]
    b = [two_classes(rng, np.full(20, rate)) for rate in (0.55, 0.55, 0.55)]
    assert paired_difference("accuracy", truth, [a[2]], [b[0]], groups).p < 0.05
    assert paired_difference("accuracy", truth, a, b, groups).p > 0.05


def test_unequal_groups_have_fewer_degrees_of_freedom():
    left = np.linspace(0.5, 0.6, 7)
    assert over_groups(left, np.full(6, 20)).df == pytest.approx(5)
    assert 1 <= over_groups(left, np.array([1000, 1, 1, 1, 1, 1])).df < 1.1
    assert 2 < over_groups(left, np.array([60, 40, 25, 15, 10, 6])).df < 5


def test_independent_spreads_add_by_satterthwaite():
    both = Spread(1.0, 4.0) + Spread(2.0, 6.0)
    assert both.variance == 3
    assert both.df == pytest.approx(9 / (1 / 4 + 4 / 6))
    assert Spread(1.0, 4.0) + Spread(0.0, 1.0) == Spread(1.0, 4.0)


def test_one_group_gives_neither_interval_nor_p():
    truth, predicted, _ = drawn()
    groups = ["s"] * len(truth)
    found = estimate("uar", truth, predicted, groups)
    gap = paired_difference("uar", truth, [predicted], [1 - predicted], groups)
    assert found.to_dict() == {"value": found.value, "low": None, "high": None, "n": 120}
    assert gap.to_dict() == {"value": gap.value, "low": None, "high": None, "p": None, "n": 120}
    alike = paired_difference("uar", truth, [predicted], [predicted], groups)
    assert alike.to_dict()["p"] is None


def test_a_difference_of_rounding_is_none():
    truth, predicted, groups = drawn()
    seeds = [predicted, predicted[:, ::-1], np.roll(predicted, 1, axis=1)]
    gap = paired_difference("uar", truth, seeds, seeds[::-1], groups)
    assert gap.value == pytest.approx(0, abs=1e-12)
    assert gap.p == 1


def test_the_metric_bounds_the_interval():
    truth, groups = np.zeros(40, int), np.repeat(np.arange(4), 10)
    predicted = two_classes(np.random.default_rng(0), np.array([1.0, 1.0, 1.0, 0.5]), 10)
    assert estimate("accuracy", truth, predicted, groups).high == 1
    assert as_estimate(left_out("accuracy", truth, predicted, groups), sizes_of(groups)).high > 1


def test_of_very_many_groups_some_are_left_out_together():
    truth, predicted, _ = drawn(n=3000)
    groups = np.arange(3000)
    assert len(left_out("uar", truth, predicted, groups)) == 1 + MOST
    assert sizes_of(groups).tolist() == [3] * MOST
    whole = estimate("uar", truth, predicted, np.arange(3000) % 900)
    joined_groups = estimate("uar", truth, predicted, groups)
    assert joined_groups.high - joined_groups.low == pytest.approx(whole.high - whole.low, rel=0.15)


def test_many_seeds_of_one_run_are_that_run():
    truth, predicted, groups = drawn()
    assert estimate_mean("uar", truth, [predicted] * 3, groups) == estimate("uar", truth, predicted, groups)
    arm = scores("uar", truth, [predicted] * 3, groups)
    assert as_difference(arm, arm[:1], sizes_of(groups)).p == 1


def test_the_protocol_line_says_what_is_counted():
    words = "Student's t, jackknife over 24 groups by speaker, for this seed only, as another may score otherwise"
    assert clustered("speaker", 24) == words
    assert clustered("speaker", 24, 5).endswith("24 groups by speaker, and 5 seeds")
    assert "takes the 3 for typical ones" in clustered("source", 3)
