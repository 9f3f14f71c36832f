"""Targets: what counts as known, and what is no target."""

from __future__ import annotations

import pytest

from affuse.core.errors import BadCorpus
from affuse.core.labels import SPACES, LabelSpace
from affuse.core.tasks import Task


def targets(values, space):
    return Task("emotion", space).targets(values)


def test_missing_labels_and_numbers_are_not_known():
    index, known = targets(["sad", "", float("nan"), None, "Joy"], SPACES["ekman-6"])
    assert known.tolist() == [True, False, False, False, True]
    assert index[known].tolist() == [1, 0]
    values, known = targets([0.5, float("nan")], SPACES["sentiment"])
    assert known.tolist() == [True, False]
    assert values[0].tolist() == [0.5]


def test_numbers_may_be_names_of_classes():
    index, known = targets([0, 1, 0], LabelSpace("custom", ("0", "1")))
    assert index.tolist() == [0, 1, 0]
    assert known.all()


@pytest.mark.parametrize(
    ("values", "space"), [(["0.5", "x"], "sentiment"), (["happy"], "vad"), ([0.5], "ekman-6"), (["joyless"], "ekman-6")]
)
def test_what_is_no_target_is_refused(values, space):
    with pytest.raises(BadCorpus, match=space):
        targets(values, SPACES[space])
