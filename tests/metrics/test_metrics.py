from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from affuse.core import registry
from affuse.core.labels import SPACES, LabelSpace
from affuse.core.tasks import fitting
from affuse.metrics import metric, value
from affuse.metrics.mean_average_precision import MeanAveragePrecision

REFERENCES = {
    "accuracy": sk.accuracy_score,
    "uar": sk.balanced_accuracy_score,
    "macro_precision": lambda t, p: sk.precision_score(t, p, average="macro", zero_division=0),
    "macro_recall": lambda t, p: sk.recall_score(t, p, average="macro", zero_division=0),
    "macro_f1": lambda t, p: sk.f1_score(t, p, average="macro", zero_division=0),
    "weighted_f1": lambda t, p: sk.f1_score(t, p, average="weighted", zero_division=0),
}


# sentiment in [-3, 3]: what the published evaluations make of truth and prediction
ZEROS = {
    "nonneg": lambda t, p: (t >= 0, p >= 0),
    "positive": lambda t, p: (t > 0, p > 0),
    "nonzero": lambda t, p: (t[t != 0] > 0, p[t != 0] > 0),
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
    kept = [slice(None), keep, slice(None)]
    each = [np.abs(truth[rows, d] - predicted[rows, d]).mean() for d, rows in enumerate(kept)]
    assert value("mae", truth, predicted) == pytest.approx(np.mean(each))


@pytest.mark.parametrize("offset", [0.1, 3.0, 1000.0])
def test_ccc_of_float32_values_is_that_of_their_exact_moments(offset):
    """Squares rounded to float32 gave a constant prediction -0.0024 and two constants -1.2."""
    rng = np.random.default_rng(0)
    truth = (offset + rng.normal(size=(500, 1))).astype(np.float32)
    constant = np.full_like(truth, offset + 0.3)
    assert abs(value("ccc", truth, constant)) < 1e-8
    assert value("ccc", np.full_like(truth, offset), constant) == pytest.approx(0, abs=1e-8)
    predicted = (truth + rng.normal(size=truth.shape)).astype(np.float32)
    t, p = truth[:, 0].astype(float), predicted[:, 0].astype(float)
    exact = 2 * np.cov(t, p, bias=True)[0, 1] / (t.var() + p.var() + (t.mean() - p.mean()) ** 2)
    assert value("ccc", truth, predicted) == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize(
    "name", [name for name, card in registry.cards("metrics").items() if "values" in card["tasks"]]
)
def test_a_dimension_without_any_truth_does_not_count(name):
    rng = np.random.default_rng(0)
    truth, predicted = rng.normal(size=(50, 2)), rng.normal(size=(50, 2))
    truth[:, 1] = np.nan
    assert value(name, truth, predicted) == pytest.approx(value(name, truth[:, :1], predicted[:, :1]))


def sentiments(kind: str, seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """truth, predicted [n, 1] of MOSI's kind: tenths, many of them zero or a half, some beyond the scale."""
    rng = np.random.default_rng(seed)
    truth = rng.choice([-3.0, -1.5, -0.5, 0.0, 0.5, 1.0, 2.5, 2.6], n)
    predicted = (truth + rng.normal(size=n)).round(1) * 1.2
    predicted[rng.random(n) < 0.2] = 0
    if kind == "constant":
        predicted[:] = 0.3
    if kind == "one class":
        truth = np.abs(truth)
    if kind == "all zero":
        truth[:] = 0
    return truth[:, None], predicted[:, None]


KINDS = ["any", "constant", "one class", "all zero"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("zero", ZEROS)
@given(st.integers(0, 10_000), st.integers(1, 60))
def test_two_classes_of_sentiment_equal_scikit_learn_in_each_convention_for_zero(zero, kind, seed, n):
    truth, predicted = sentiments(kind, seed, n)
    t, p = ZEROS[zero](truth[:, 0], predicted[:, 0])
    accuracy, f1 = (
        (0, 0) if not len(t) else (sk.accuracy_score(t, p), sk.f1_score(t, p, average="weighted", zero_division=0))
    )
    assert value(f"acc2_{zero}", truth, predicted) == pytest.approx(accuracy, abs=1e-12)
    assert value(f"weighted_f1_{zero}", truth, predicted) == pytest.approx(f1, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "limit"), [("acc7", 3), ("acc5", 2)])
@given(st.integers(0, 10_000), st.integers(1, 60))
def test_seven_and_five_classes_equal_the_published_rule(name, limit, kind, seed, n):
    truth, predicted = sentiments(kind, seed, n)
    t, p = (np.round(np.clip(v[:, 0], -limit, limit)) for v in (truth, predicted))
    assert value(name, truth, predicted) == pytest.approx(sk.accuracy_score(t.astype(int), p.astype(int)), abs=1e-12)


def test_the_conventions_for_zero_and_halves_by_hand():
    truth, predicted = np.array([[0.0], [0.0], [1.0], [-1.0]]), np.array([[0.0], [-0.2], [0.0], [-0.5]])
    found = {zero: value(f"acc2_{zero}", truth, predicted) for zero in ZEROS}
    assert found == {"nonneg": 3 / 4, "positive": 3 / 4, "nonzero": 1 / 2}
    assert value("acc2_positive", np.array([[0.0]]), np.array([[-2.0]])) == 1
    assert value("acc2_nonneg", np.array([[0.0]]), np.array([[-2.0]])) == 0
    for predicted, right in ((0.5, 0), (1.5, 2), (2.5, 2), (-0.4, 0), (3.7, 3)):
        assert value("acc7", np.array([[float(right)]]), np.array([[predicted]])) == 1
    assert value("acc5", np.array([[3.0]]), np.array([[1.6]])) == 1


@pytest.mark.parametrize("offset", [0.0, 3.0, 1000.0])
@given(st.integers(0, 10_000), st.integers(3, 60))
def test_pearson_equals_scipy(offset, seed, n):
    rng = np.random.default_rng(seed)
    truth = offset + rng.normal(size=(n, 2))
    predicted = (0.3 * truth + rng.normal(size=(n, 2))).round(1)
    if (np.ptp(predicted, axis=0) > 0).all():
        each = [stats.pearsonr(t, p).statistic for t, p in zip(truth.T, predicted.T, strict=True)]
        assert value("pearson", truth, predicted) == pytest.approx(np.mean(each), abs=1e-6)
    assert value("pearson", truth, -2 * truth) == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize("constant", [0.1, -3.3, 1000.1])
def test_a_constant_correlates_with_nothing(constant):
    truth = np.random.default_rng(0).normal(size=(1000, 1)).astype(np.float32)
    flat = np.full_like(truth, constant)
    for t, p in ((truth, flat), (flat, truth), (flat, flat), (truth[:1], truth[:1])):
        assert value("pearson", t, p) == 0


def test_the_mean_correlation_of_three_values_counts_a_constant_one_as_zero():
    """The metric of MuSe-Mimic; scipy has NaN for the constant, and its mean would be NaN too."""
    rng = np.random.default_rng(0)
    truth = rng.random((200, 3)).astype(np.float32)
    predicted = (0.5 * truth + 0.5 * rng.random((200, 3))).astype(np.float32)
    each = [stats.pearsonr(t, p).statistic for t, p in zip(truth.T, predicted.T, strict=True)]
    assert value("pearson", truth, predicted) == pytest.approx(np.mean(each), abs=1e-6)
    predicted[:, 1] = 0.4
    assert value("pearson", truth, predicted) == pytest.approx((each[0] + each[2]) / 3, abs=1e-6)
    assert value("pearson", truth, np.full_like(truth, 0.4)) == 0


def test_the_precision_of_a_class_that_is_never_predicted_is_zero():
    """The ranking of CHEAVD (MEC 2017) over 8 classes, 0/0 := 0."""
    truth = np.arange(80) % 8
    predicted = np.eye(8)[np.where(truth == 7, 0, truth)]
    assert value("macro_precision", truth, predicted) == pytest.approx((0.5 + 6 * 1 + 0) / 8)
    assert "macro_precision" in fitting(SPACES["cheavd-8"])


def test_a_metric_is_shown_only_where_it_means_something():
    sentiment = {
        "acc2_nonneg",
        "acc2_nonzero",
        "acc2_positive",
        "weighted_f1_nonneg",
        "weighted_f1_nonzero",
        "weighted_f1_positive",
    }
    of_all = {"ccc", "mae", "pearson"}
    assert set(fitting(SPACES["sentiment"])) == of_all | sentiment | {"acc5", "acc7"}
    assert set(fitting(SPACES["sentiment-sims"])) == of_all | sentiment  # rounded, -1..1 has three classes
    for other in (SPACES["vad"], SPACES["mosei-6"], LabelSpace("custom", ("valence",), "values", 0.0, 1.0)):
        assert set(fitting(other)) == of_all
    cards = registry.cards("metrics").items()
    named = {name for name, card in cards if "classes" in card["tasks"] and "with" not in card}
    assert set(fitting(SPACES["iemocap-4"])) == named > {"macro_precision", "macro_recall"}


def test_metrics_whose_statistics_are_of_one_file_have_the_same():
    """Stored sums go by the name of that file: two conventions for zero must never read each other's."""
    found = {}
    for name in registry.cards("metrics"):
        statistics = getattr(metric(name), "statistics", None)
        if statistics is not None:
            assert found.setdefault(statistics.__module__, statistics) is statistics


def test_calibration_error_by_hand():
    truth = np.array([0, 0, 1, 1])
    predicted = np.array([[0.95, 0.05], [0.95, 0.05], [0.95, 0.05], [0.35, 0.65]])
    assert value("calibration_error", truth, predicted) == pytest.approx(
        3 / 4 * abs(2 / 3 - 0.95) + 1 / 4 * abs(1 - 0.65)
    )


@pytest.mark.parametrize("ties", [False, True])
def test_mean_average_precision_equals_scikit_learn_over_the_classes_that_occur(ties):
    rng = np.random.default_rng(2)
    truth, predicted = rng.choice([0, 1, 3], 60), rng.dirichlet(np.ones(4), 60)
    predicted = predicted.round(1) if ties else predicted
    each = [sk.average_precision_score(truth == c, predicted[:, c]) for c in (0, 1, 3)]
    assert value("mean_average_precision", truth, predicted) == pytest.approx(np.mean(each))


def test_the_average_precision_of_each_class_equals_scikit_learns():
    rng = np.random.default_rng(2)
    truth, predicted = rng.choice([0, 1, 3], 60), rng.dirichlet(np.ones(4), 60).round(1)
    weights = np.stack([np.ones(60), rng.integers(0, 3, 60), truth == 1])
    found = MeanAveragePrecision.each(truth, predicted, weights)
    assert np.isnan(found[:, 2]).all() and np.isnan(found[2]).tolist() == [True, False, True, True]
    for row, w in zip(found[:2], weights, strict=False):
        for c in (0, 1, 3):
            assert row[c] == pytest.approx(sk.average_precision_score(truth == c, predicted[:, c], sample_weight=w))


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
    truth = rng.integers(0, 4, n) if classes else rng.normal(size=(n, 2)).round()
    predicted = rng.dirichlet(np.ones(4), n) if classes else rng.normal(size=(n, 2)).round(1)
    if "with" in registry.cards("metrics")[name]:
        truth = np.column_stack([truth, rng.normal(size=n)])
        predicted = np.column_stack([predicted, rng.normal(size=n)])
    chosen = metric(name)
    weights = np.concatenate([np.ones((1, 8)), rng.integers(0, 3, (20, 8))])
    if hasattr(chosen, "weighted"):
        fast = chosen.weighted(truth, predicted, weights[:, groups])
    else:
        fast = chosen.compute(weights[:, groups] @ chosen.statistics(truth, predicted))
    for w, found in zip(weights, fast, strict=True):
        rows = np.concatenate([np.flatnonzero(groups == g) for g, k in enumerate(w.astype(int)) for _ in range(k)])
        assert found == pytest.approx(value(name, truth[rows], predicted[rows]))
