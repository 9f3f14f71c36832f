from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from affuse.core import registry
from affuse.evaluation.intervals import (
    cluster_sums,
    clustered,
    distribution,
    estimate,
    metric,
    paired_difference,
    resample_weights,
    value,
)

REFERENCES = {
    "accuracy": sk.accuracy_score,
    "uar": sk.balanced_accuracy_score,
    "macro_f1": lambda t, p: sk.f1_score(t, p, average="macro", zero_division=0),
    "weighted_f1": lambda t, p: sk.f1_score(t, p, average="weighted", zero_division=0),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(1, 60))
def test_classification_metrics_equal_scikit_learn(seed, classes, n):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, classes, n), rng.dirichlet(np.ones(classes), n)
    for name, reference in REFERENCES.items():
        assert value(name, truth, predicted) == pytest.approx(reference(truth, predicted.argmax(1)), abs=1e-12), name


def test_continuous_metrics_equal_their_definitions():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(50, 3))
    predicted = truth * 0.5 + rng.normal(size=(50, 3))
    assert value("mae", truth, predicted) == pytest.approx(sk.mean_absolute_error(truth, predicted))
    ccc = [
        2 * np.cov(t, p, bias=True)[0, 1] / (t.var() + p.var() + (t.mean() - p.mean()) ** 2)
        for t, p in zip(truth.T, predicted.T, strict=True)
    ]
    assert value("ccc", truth, predicted) == pytest.approx(np.mean(ccc))
    truth[3, 1] = np.nan
    keep = ~np.isnan(truth[:, 1])
    each = [np.abs(truth[:, d][keep if d == 1 else slice(None)] - predicted[:, d][keep if d == 1 else slice(None)]).mean() for d in range(3)]
    assert value("mae", truth, predicted) == pytest.approx(np.mean(each))


@pytest.mark.parametrize("offset", [0.1, 3.0, 1000.0])
def test_ccc_of_float32_values_is_that_of_their_exact_moments(offset):
    """Squares rounded to float32 gave a constant answer -0.0024 and two constants -1.2."""
    rng = np.random.default_rng(0)
    truth = (offset + rng.normal(size=(500, 1))).astype(np.float32)
    constant = np.full_like(truth, offset + 0.3)
    assert abs(value("ccc", truth, constant)) < 1e-8
    assert value("ccc", np.full_like(truth, offset), constant) == pytest.approx(0, abs=1e-8)
    predicted = (truth + rng.normal(size=truth.shape)).astype(np.float32)
    t, p = truth[:, 0].astype(float), predicted[:, 0].astype(float)
    exact = 2 * np.cov(t, p, bias=True)[0, 1] / (t.var() + p.var() + (t.mean() - p.mean()) ** 2)
    assert value("ccc", truth, predicted) == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize("name", ["mae", "ccc"])
def test_a_dimension_without_any_truth_does_not_count(name):
    rng = np.random.default_rng(0)
    truth, predicted = rng.normal(size=(50, 2)), rng.normal(size=(50, 2))
    truth[:, 1] = np.nan
    assert value(name, truth, predicted) == pytest.approx(value(name, truth[:, :1], predicted[:, :1]))


def test_calibration_error_by_hand():
    truth = np.array([0, 0, 1, 1])
    predicted = np.array([[0.95, 0.05], [0.95, 0.05], [0.95, 0.05], [0.35, 0.65]])
    assert value("calibration_error", truth, predicted) == pytest.approx(3 / 4 * abs(2 / 3 - 0.95) + 1 / 4 * abs(1 - 0.65))


@pytest.mark.parametrize("ties", [False, True])
def test_mean_average_precision_equals_scikit_learn_over_the_classes_that_occur(ties):
    rng = np.random.default_rng(2)
    truth, predicted = rng.choice([0, 1, 3], 60), rng.dirichlet(np.ones(4), 60)
    predicted = predicted.round(1) if ties else predicted
    each = [sk.average_precision_score(truth == c, predicted[:, c]) for c in (0, 1, 3)]
    assert value("mean_average_precision", truth, predicted) == pytest.approx(np.mean(each))


def test_mean_average_precision_of_a_perfect_model_is_one():
    """Published defect: 31 columns for 6 classes, so that a perfect model reached 0.19."""
    truth = np.arange(60) % 6
    assert value("mean_average_precision", truth, np.eye(6)[truth]) == 1
    assert value("mean_average_precision", truth, np.eye(31)[truth]) == 1


@pytest.mark.parametrize("name", list(registry.cards("metrics")))
def test_statistics_are_additive_and_resamples_equal_recomputation(name):
    rng = np.random.default_rng(1)
    n, groups = 40, np.repeat(np.arange(8), 5)
    classes = "classes" in registry.cards("metrics")[name]["tasks"]
    truth = rng.integers(0, 4, n) if classes else rng.normal(size=(n, 2))
    predicted = rng.dirichlet(np.ones(4), n) if classes else rng.normal(size=(n, 2))
    chosen = metric(name)
    weights = resample_weights(8, 20, seed=3)
    if hasattr(chosen, "weighted"):
        fast = chosen.weighted(truth, predicted, weights[:, groups])
    else:
        fast = chosen.compute(weights @ cluster_sums(chosen.statistics(truth, predicted), groups))
    for w, found in zip(weights, fast, strict=True):
        rows = np.concatenate([np.flatnonzero(groups == g) for g, k in enumerate(w.astype(int)) for _ in range(k)])
        assert found == pytest.approx(value(name, truth[rows], predicted[rows]))


def test_clustered_interval_is_wider_when_speakers_agree_within_themselves():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 20)
    right = np.repeat(rng.random(20) < 0.7, 20)
    truth = np.zeros(400, dtype=int)
    predicted = np.where(right[:, None], [[0.9, 0.1]], [[0.1, 0.9]])
    clustered = estimate("accuracy", truth, predicted, groups)
    alone = estimate("accuracy", truth, predicted, np.arange(400))
    assert clustered.high - clustered.low > 2.5 * (alone.high - alone.low)
    assert clustered.n == 400


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(120):
        rate = rng.beta(7, 3, 30)  # speakers differ; the mean is .7
        right = rng.random((30, 10)) < rate[:, None]
        predicted = np.where(right.reshape(-1, 1), [[1.0, 0.0]], [[0.0, 1.0]])
        e = estimate("accuracy", np.zeros(300, dtype=int), predicted, np.repeat(np.arange(30), 10), seed=trial)
        hits += e.low <= 0.7 <= e.high
    assert hits / 120 >= 0.88


def test_one_group_gives_no_interval():
    e = estimate("accuracy", np.array([0, 1]), np.eye(2), ["a", "a"])
    assert e.to_dict() == {"value": 1.0, "low": None, "high": None, "n": 2}


def test_paired_difference_of_a_run_with_itself_is_zero():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, 60), rng.dirichlet(np.ones(3), 60)
    gap = paired_difference("uar", truth, [predicted], [predicted], np.repeat(np.arange(12), 5))
    assert (gap.value, gap.low, gap.high, gap.p) == (0, 0, 0, 1)


def test_one_cluster_gives_a_difference_no_interval_and_no_p():
    truth = np.arange(20) % 2
    one, other = np.eye(2)[truth], np.eye(2)[np.zeros(20, int)]
    gap = paired_difference("accuracy", truth, [one], [other], ["s"] * 20).to_dict()
    assert gap == {"value": 0.5, "low": None, "high": None, "p": None, "n": 20}


def test_paired_difference_sees_what_two_intervals_hide():
    rng = np.random.default_rng(0)
    n, groups = 600, np.repeat(np.arange(30), 20)
    truth = rng.integers(0, 2, n)
    hard = rng.random(n) < 0.4
    a = np.where(hard, 1 - truth, truth)
    worse = rng.random(n) < 0.04
    b = np.where(worse, 1 - truth, a)
    one_hot = np.eye(2)
    ea, eb = (estimate("accuracy", truth, one_hot[p], groups) for p in (a, b))
    gap = paired_difference("accuracy", truth, [one_hot[a]], [one_hot[b]], groups)
    assert ea.low < eb.high  # the intervals overlap
    assert gap.low > 0
    assert gap.p < 0.05
    assert gap.value == pytest.approx(ea.value - eb.value)


def test_distribution_is_reproducible():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, 60), rng.dirichlet(np.ones(3), 60)
    a, b = (distribution("uar", truth, predicted, np.arange(60) // 4) for _ in range(2))
    assert (a == b).all()


def test_intervals_of_few_groups_hold_the_truth_too_seldom_and_say_so():
    rng = np.random.default_rng(0)

    def covered(groups: int, trials: int = 150) -> float:
        hits = 0
        for _ in range(trials):
            right = rng.random((groups, 20)) < rng.beta(6, 4, groups)[:, None]
            answers = np.where(right.reshape(-1, 1), [1.0, 0.0], [0.0, 1.0])
            found = estimate("accuracy", np.zeros(groups * 20, int), answers, np.repeat(np.arange(groups), 20))
            hits += found.low <= 0.6 <= found.high
        return hits / trials

    assert covered(4) < 0.89 < covered(24)
    assert "4 groups only" in clustered("speaker", 4)
    assert "only" not in clustered("speaker", 24)
