"""Metrics of labels that may hold together, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, hamming_loss

from affuse.core.labels import SPACES
from affuse.core.tasks import fitting, with_kind
from affuse.metrics import value

RNG = np.random.default_rng(4)
TRUTH = (RNG.random((200, 6)) < 0.35).astype(float)
PREDICTED = np.clip(0.6 * TRUTH + 0.5 * RNG.random((200, 6)), 0, 1)


def test_which_metrics_fit_labels():
    space = with_kind(SPACES["mosei-6"], "multilabel", "t")
    wanted = {"label_f1", "label_accuracy", "label_weighted_accuracy", "mean_average_precision"}
    assert set(fitting(space)) == wanted


def test_against_scikit_learn():
    decided = PREDICTED >= 0.5
    assert value("label_f1", TRUTH, PREDICTED) == pytest.approx(f1_score(TRUTH, decided, average="macro"))
    assert value("label_accuracy", TRUTH, PREDICTED) == pytest.approx(1 - hamming_loss(TRUTH, decided))
    each = [balanced_accuracy_score(TRUTH[:, c], decided[:, c]) for c in range(6)]
    assert value("label_weighted_accuracy", TRUTH, PREDICTED) == pytest.approx(np.mean(each))
    each = [average_precision_score(TRUTH[:, c], PREDICTED[:, c]) for c in range(6)]
    assert value("mean_average_precision", TRUTH, PREDICTED) == pytest.approx(np.mean(each))


@pytest.mark.parametrize("name", ["label_f1", "label_accuracy", "label_weighted_accuracy", "mean_average_precision"])
def test_unknown_labels_count_nothing(name):
    truth, predicted = TRUTH.copy(), PREDICTED.copy()
    truth[::3, 2] = np.nan
    expected = value(name, truth, predicted)
    predicted[::3, 2] = 1 - predicted[::3, 2]
    assert value(name, truth, predicted) == pytest.approx(expected)


def test_a_label_that_never_occurs_is_left_out():
    truth = TRUTH.copy()
    truth[:, 1] = 0
    kept = [0, 2, 3, 4, 5]
    for name in ("label_f1", "label_weighted_accuracy", "mean_average_precision"):
        assert value(name, truth, PREDICTED) == pytest.approx(value(name, truth[:, kept], PREDICTED[:, kept]))
