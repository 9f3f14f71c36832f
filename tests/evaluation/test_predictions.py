"""Predictions in the classes of another corpus, and the subsets of modalities that are scored."""

from __future__ import annotations

import numpy as np
import pytest

from affuse.core.errors import ProtocolError
from affuse.core.labels import LabelSpace
from affuse.core.tasks import Task
from affuse.evaluation.predictions import FoldPredictions, subsets_of

MODEL, OTHER = LabelSpace("model", ("neutral", "happy", "sad")), LabelSpace("other", ("sad", "neutral"))
PREDICTED = {("audio",): np.array([[0.2, 0.5, 0.3], [0.6, 0.4, 0.0]])}
TARGET = np.array([0, 0, 1])  # sad, sad, neutral


@pytest.mark.parametrize(("constant", "expected"), [(0, 1), (2, 0), (1, 0), (None, 0)])
def test_the_baseline_is_the_majority_class_by_name_else_the_most_frequent(constant, expected):
    given = None if constant is None else np.eye(len(MODEL))[constant]
    found = FoldPredictions(Task("emotion", MODEL), PREDICTED, given).renamed(OTHER, TARGET)
    assert found.task == Task("emotion", OTHER)
    np.testing.assert_array_equal(found.constant, np.eye(len(OTHER))[expected])
    np.testing.assert_allclose(found.by_subset["audio",], [[0.6, 0.4], [0.0, 1.0]])


def test_some_modality_must_be_left():
    with pytest.raises(ProtocolError, match="nothing is left"):
        subsets_of(("audio", "vision"), "vision+audio")
