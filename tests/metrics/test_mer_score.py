"""The score of MER-MULTI and MER-NOISE: by scikit-learn, by the published table, and for which pairs of tasks it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from affuse.core.labels import SPACES, LabelSpace
from affuse.core.tasks import Task, joint_metrics
from affuse.metrics import metric, value

EMOTION = Task("emotion", SPACES["mer2023-6"])
VALENCE = Task("valence", SPACES["mer2023-valence"])


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(st.integers(0, 10_000), st.integers(1, 60))
def test_the_score_equals_scikit_learn(seed, n):
    rng = np.random.default_rng(seed)
    emotion, p = rng.integers(0, 6, n), rng.dirichlet(np.ones(6), n)
    valence, guessed = rng.uniform(-5, 5, n), rng.uniform(-5, 5, n)
    f1 = sk.f1_score(emotion, p.argmax(1), average="weighted", zero_division=0)
    found = value("mer_score", np.column_stack([emotion, valence]), np.column_stack([p, guessed]))
    assert found == pytest.approx(f1 - 0.25 * sk.mean_squared_error(valence, guessed))


def test_the_published_baselines():
    """MER-MULTI: F1 .7757 and MSE .82 make .571; MER-NOISE: .6982 and 1.12 make .418."""
    for f1, mse, combined in ((0.7757, 0.82, 0.571), (0.6982, 1.12, 0.418)):
        right = int(1e4 * f1)  # of two classes alike: as many right of each, so that F1 is the share
        hits = np.arange(10_000) < right
        emotion = np.arange(10_000) % 2
        p = np.eye(6)[np.where(hits, emotion, 1 - emotion)]
        valence = np.zeros(10_000)
        truth, predicted = np.column_stack([emotion, valence]), np.column_stack([p, valence + mse**0.5])
        assert value("mer_score", truth, predicted) == pytest.approx(combined, abs=1e-3)


def test_of_no_clip_the_score_is_zero():
    assert metric("mer_score").compute(np.zeros((2, 37))).tolist() == [0, 0]


def test_it_is_for_an_emotion_and_a_valence_of_mer2023_per_clip():
    both = {"emotion": EMOTION, "valence": VALENCE}
    assert joint_metrics(both, "emotion") == {"mer_score": "valence"}
    assert joint_metrics(both, "valence") == {}
    assert "mer_score" not in EMOTION.metrics() + VALENCE.metrics()
    others = (
        {"emotion": EMOTION},
        both | {"emotion": Task("emotion", SPACES["ekman-7"])},
        both | {"valence": Task("valence", SPACES["sentiment"])},
        both | {"valence": Task("valence", LabelSpace("mine", ("valence",), "values", -1.0, 1.0))},
        both | {"valence": replace(VALENCE, resolution="frame")},
        both | {"emotion": replace(EMOTION, resolution="frame")},
    )
    for tasks in others:
        assert joint_metrics(tasks, "emotion") == {}
