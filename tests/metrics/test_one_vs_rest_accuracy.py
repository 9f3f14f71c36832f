"""The published "accuracy" that is a mean of binary accuracies, under its own name."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from affuse.core import registry
from affuse.metrics import value

# IEMOCAP, four classes (angry, happy, neutral, sad): the published support, 849 hits in all, mean recall 76.47 %. How
# the hits are spread over the classes, and the errors over the wrong ones, changes none of the three numbers below.
SUPPORT, HITS = (234, 347, 321, 206), (177, 268, 248, 156)


def decisions() -> tuple[np.ndarray, np.ndarray]:
    """Truth [1108] and one-hot answers [1108, 4]: each class' errors all go to the next class."""
    truth = np.repeat(np.arange(4), SUPPORT)
    spread = [(hits, n - hits) for n, hits in zip(SUPPORT, HITS, strict=True)]
    answer = np.concatenate([np.repeat([c, (c + 1) % 4], counts) for c, counts in enumerate(spread)])
    return truth, np.eye(4)[answer]


def test_the_published_88_31_per_cent_is_an_accuracy_of_76_62():
    truth, answers = decisions()
    assert len(truth) == 1108
    assert round(100 * value("one_vs_rest_accuracy", truth, answers), 2) == 88.31
    assert round(100 * value("accuracy", truth, answers), 2) == 76.62
    assert round(100 * value("uar", truth, answers), 2) == 76.47


@pytest.mark.parametrize("classes", [2, 4, 6])
def test_it_is_the_mean_of_the_binary_accuracies(classes):
    rng = np.random.default_rng(classes)
    truth, predicted = rng.integers(0, classes, 200), rng.dirichlet(np.ones(classes), 200)
    answer, found = predicted.argmax(1), value("one_vs_rest_accuracy", truth, predicted)
    assert found == pytest.approx(np.mean([accuracy_score(truth == c, answer == c) for c in range(classes)]))
    assert found == pytest.approx(1 - 2 * (1 - value("accuracy", truth, predicted)) / classes)


def test_naming_no_class_has_83_3_per_cent_on_six_and_the_card_says_so():
    absent = np.zeros((60, 6))
    labels = np.eye(6)[np.arange(60) % 6]
    assert value("label_accuracy", labels, absent) == pytest.approx(1 - 1 / 6)
    assert value("label_weighted_accuracy", labels, absent) == 0.5
    assert "83.3 %" in registry.cards("metrics")["one_vs_rest_accuracy"]["summary"]
