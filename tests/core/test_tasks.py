from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from affuse.core.errors import BadConfig, BadCorpus
from affuse.core.labels import SPACES
from affuse.core.tasks import Task, centred, selected, with_kind

LABELS = Task("labels", with_kind(SPACES["mosei-6"], "multilabel", "labels"))
CLASSES = Task("emotion", SPACES["iemocap-4"])


def test_targets_of_labels_are_numbers_or_names():
    numbers = [[0, 1.5, 0, 0, 0, 0], [np.nan] * 6, [np.nan, 0, 0, 0, 0, 2]]
    target, known = LABELS.targets(numbers)
    assert known.tolist() == [True, False, True]
    assert target[0].tolist() == [0, 1, 0, 0, 0, 0]
    assert torch.isnan(target[2, 0]) and target[2, 5] == 1
    target, known = LABELS.targets(["sad|joy", "", "fear"])
    assert target[0].tolist() == [1, 1, 0, 0, 0, 0] and known.tolist() == [True, False, True]
    with pytest.raises(BadCorpus, match="hapy"):
        LABELS.targets(["hapy"])


def test_targets_of_classes_and_values():
    target, known = CLASSES.targets(["joy", "", float("nan"), None, "Sadness"])
    assert target.tolist() == [1, 0, 0, 0, 2] and known.tolist() == [True, False, False, False, True]
    values = Task("v", SPACES["vad"])
    assert values.targets([[1, 2, 3], [1, np.nan, 3]])[1].tolist() == [True, False]
    with pytest.raises(BadCorpus, match=r"tasks\.v\.column"):
        values.targets(["a", "b"])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_thresholds_have_the_best_f1_that_any_threshold_has(seed):
    rng = np.random.default_rng(seed)
    p = np.round(rng.random((25, 6)), 1)  # with ties
    truth = (rng.random((25, 6)) < 0.3).astype(float)
    truth[rng.random((25, 6)) < 0.1] = np.nan
    chosen = LABELS.with_thresholds(truth, p)
    for c, t in enumerate(chosen.thresholds):
        known = ~np.isnan(truth[:, c])
        y, q = truth[known, c] > 0, p[known, c]
        if not y.any() or y.all():
            assert t == 0.5
            continue
        best = max(f1_score(y, q >= k, zero_division=0) for k in np.unique(q))
        assert f1_score(y, q >= t, zero_division=0) == pytest.approx(best)
        decided = centred(q[:, None], [t])[:, 0] >= 0.5
        assert np.array_equal(decided, q >= t) or np.isclose(q, t).any()


def test_centring_keeps_the_order_and_puts_the_threshold_in_the_middle():
    p = np.linspace(0.01, 0.99, 50)[:, None]
    moved = centred(p, [0.2])
    assert (np.diff(moved[:, 0]) > 0).all()
    assert centred(np.array([[0.2]]), [0.2]) == pytest.approx(0.5)
    np.testing.assert_allclose(centred(moved, [0.8]), p, atol=1e-9)  # the way back


def test_predictions_and_decisions():
    logits = torch.tensor([[0.0, 2.0, -2.0, 0.1, 0.0, 0.0]])
    torch.testing.assert_close(LABELS.predict(logits), logits.sigmoid())
    task = Task("labels", LABELS.space, thresholds=(0.6, 0.9, 0.1, 0.5, 0.5, 0.5))
    assert task.decide(task.predict(logits).numpy()).tolist() == [[0, 0, 1, 1, 1, 1]]
    finer = Task("emotion", SPACES["iemocap-4"], finer=(0, 1, 1, 2, 3))
    assert finer.width == 5 and len(finer) == 4
    p = finer.predict(torch.randn(3, 5))
    torch.testing.assert_close(p.sum(1), torch.ones(3))


def test_baselines():
    assert CLASSES.baseline(*CLASSES.targets(["sad", "sad", "joy", ""])) == [0, 0, 1, 0]
    assert LABELS.baseline(*LABELS.targets(["sad|fear", "sad", "", "joy"])) == pytest.approx(
        [1 / 3, 2 / 3, 0, 0, 0, 1 / 3]
    )


def test_json_and_back():
    task = Task("labels", LABELS.space, "frame", "vote", (), (0.1,) * 6)
    assert Task.from_dict("labels", task.to_dict()) == task


def test_kinds_that_a_space_cannot_have_and_unknown_tasks_are_refused():
    with pytest.raises(BadConfig, match=r"tasks\.t\.kind"):
        with_kind(SPACES["iemocap-4"], "values", "t")
    with pytest.raises(BadConfig, match="emotion"):
        selected({"emotion": CLASSES}, "mood")
    assert selected({"a": CLASSES, "b": LABELS}).name == "emotion"
