"""Compound emotions from basic ones: by name, by both rules, in any shape; and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from affuse.core.compound import DERIVED, LABELS, NEEDED, PAIRS, Compound, derived
from affuse.core.errors import BadConfig, UnknownName
from affuse.core.labels import SPACES
from affuse.core.timeline import Answer, Curve, ModalityView, Segment, TaskInfo, Timeline

# The two published orders of the seven basic emotions.
BY_CORPUS = ("Neutral", "Happiness", "Surprise", "Fear", "Anger", "Disgust", "Sadness")
BY_ALPHABET = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")


def test_the_pairs_are_those_of_the_seven_classes():
    assert tuple(PAIRS) == LABELS == SPACES["compound-7"].labels
    assert NEEDED == ("angry", "disgust", "fear", "happy", "sad", "surprise")
    assert all(set(pair) <= set(SPACES["ekman-6"].labels) for pair in PAIRS.values())
    assert len({frozenset(pair) for pair in PAIRS.values()}) == 7


@pytest.mark.parametrize("labels", [BY_CORPUS, BY_ALPHABET])
@pytest.mark.parametrize("rule", ["product", "sum"])
def test_two_emotions_give_their_compound_in_both_published_orders(labels, rule):
    named = {"happy": ("Happiness", "joy"), "sad": ("Sadness", "sadness"), "angry": ("Anger", "anger")}
    for k, pair in enumerate(PAIRS.values()):
        p = np.full(7, 0.02)
        for emotion in pair:
            spelt = {*named.get(emotion, ()), emotion, emotion.capitalize()}
            p[next(i for i, label in enumerate(labels) if label in spelt)] = 0.45
        found = Compound(rule)(p, labels)
        assert found.argmax() == k
        assert found.sum() == pytest.approx(1)


def test_the_order_of_the_labels_changes_nothing():
    p = np.random.default_rng(0).dirichlet(np.ones(7), size=50)
    neutral, happy, surprise, fear, angry, disgust, sad = p.T
    other = np.stack([angry, disgust, fear, happy, neutral, sad, surprise], axis=1)
    for mapping in (*DERIVED.values(), Compound("sum", (0.7, 0.3))):
        np.testing.assert_array_equal(mapping(p, BY_CORPUS), mapping(other, BY_ALPHABET))


def test_both_rules_by_hand():
    p = np.array([0.1, 0.2, 0.05, 0.3, 0.05, 0.3])  # happy, sad, angry, fear, disgust, surprise
    labels = SPACES["ekman-6"].labels
    product = np.array([0.09, 0.03, 0.06, 0.015, 0.015, 0.06, 0.01])
    np.testing.assert_allclose(Compound()(p, labels), product / product.sum())
    summed = np.array([0.6, 0.4, 0.5, 0.35, 0.35, 0.5, 0.25])
    np.testing.assert_allclose(Compound("sum")(p, labels), summed / summed.sum())
    weighted = np.array([0.3, 0.22, 0.26, 0.2, 0.2, 0.24, 0.14])  # .4 a + .6 b
    np.testing.assert_allclose(Compound("sum", (0.4, 0.6))(p, labels), weighted / weighted.sum())
    floored = np.array([0.6, 0.3, 0.5, 0.3, 0.3, 0.5, 0.2])  # .1 and .05 are at most 1/7
    np.testing.assert_allclose(derived("compound-avcer")(p, labels), floored / floored.sum())
    at_floor = np.array([1, 0, 0, 1.75, 0, 4.25], np.float32) / 7  # 1/7 itself counts as 0, in 32 bits too
    assert derived("compound-avcer")(at_floor, labels)[1] == derived("compound-avcer")(at_floor, labels)[2]


def test_any_shape_and_neutral_certainty():
    p = np.random.default_rng(1).dirichlet(np.ones(7), size=(3, 4))
    found = Compound()(p, BY_CORPUS)
    assert found.shape == (3, 4, 7)
    np.testing.assert_array_equal(found[2, 1], Compound()(p[2, 1], BY_CORPUS))
    assert Compound()(np.zeros((0, 7)), BY_CORPUS).shape == (0, 7)
    certain = np.eye(7)[0]  # neutral alone says nothing about the seven
    for mapping in DERIVED.values():
        np.testing.assert_allclose(mapping(certain, BY_CORPUS), np.full(7, 1 / 7))
        np.testing.assert_allclose(mapping(np.full(7, 1 / 7, np.float32), BY_CORPUS), np.full(7, 1 / 7), rtol=1e-5)
    gap = np.stack([certain, np.full(7, np.nan)])
    assert np.isnan(Compound()(gap, BY_CORPUS)).all(1).tolist() == [False, True]


def test_what_is_refused():
    with pytest.raises(BadConfig, match="need disgust, fear, surprise: the model's labels are neutral, happy, sad"):
        Compound()(np.ones(4) / 4, SPACES["iemocap-4"].labels)
    with pytest.raises(BadConfig, match=r"shape \[6\] for 7 labels"):
        Compound()(np.ones(6) / 6, BY_CORPUS)
    with pytest.raises(UnknownName, match="'mean'"):
        Compound("mean")
    for weights in ((0.0, 0.0), (-1.0, 2.0), (np.nan, 1.0), (1.0,)):
        with pytest.raises(BadConfig, match="weights"):
            Compound("sum", weights)
    with pytest.raises(BadConfig, match=r"floor 1\.0"):
        Compound("sum", floor=1.0)
    with pytest.raises(UnknownName, match="'compund'"):
        derived("compund")


def test_a_timeline_with_every_modality_and_its_curve():
    labels = SPACES["ekman-7"].labels
    p = dict(zip(labels, (0.1, 0.4, 0.05, 0.05, 0.05, 0.05, 0.3), strict=True))
    alone = dict(zip(labels, (0.1, 0.05, 0.4, 0.3, 0.05, 0.05, 0.05), strict=True))
    absent = ModalityView(False, 0.0, {})
    va = Answer("valence", {"valence": 0.2}, {})
    one = Segment(0, 1, None, None, p, {"audio": ModalityView(True, 0.5, alone), "text": absent}, answers={"va": va})
    two = Segment(1, 2, None, None, {}, {"audio": absent, "text": absent}, reason="no sound")
    curve = Curve(labels, 2.0, 0.25, [list(p.values()), list(alone.values())])
    other = Curve(("valence",), 2.0, 0.0, [[0.1]])
    tasks = {"emotion": TaskInfo("classes", labels), "va": TaskInfo("values", ("valence",), -1, 1)}
    curves = {"emotion": curve, "va": other}
    found = Compound().timeline(Timeline("a.mp4", 2, "m", labels, [one, two], tasks=tasks, curves=curves))
    assert found.labels == LABELS
    assert found.tasks == {"emotion": TaskInfo("classes", LABELS), "va": tasks["va"]}
    first, second = found.segments
    assert max(first.probabilities, key=first.probabilities.get) == "happily surprised"
    audio = first.modalities["audio"].probabilities
    assert max(audio, key=audio.get) == "sadly angry"
    assert (first.modalities["text"], first.answers, second) == (absent, {"va": va}, two)
    assert (found.curves["va"], found.curves["emotion"].labels) == (other, LABELS)
    assert (found.curves["emotion"].rate, found.curves["emotion"].t0) == (2.0, 0.25)
    assert found.curves["emotion"].values[0] == list(first.probabilities.values())
    assert np.argmax(found.curves["emotion"].values, axis=1).tolist() == [1, 6]
