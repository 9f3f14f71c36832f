"""What a segment may say: evidence, coverage, the least probability, modalities that disagree."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affuse.core.timeline import ModalityView, Segment, Timeline
from affuse.core.types import Feature
from affuse.inference.decision import conflicting, decide_class, least_probability, mean, temper, trust
from affuse.inference.windows import covered_share, overlaps
from affuse.media.subtitles import Caption

LABELS = ("neutral", "happy", "sad", "angry", "fear", "disgust", "surprise")
shares = st.floats(0.0, 1.0)
probabilities = st.lists(st.floats(0.001, 1.0), min_size=2, max_size=9).map(
    lambda p: {str(k): v / sum(p) for k, v in enumerate(p)}
)


def of(**known: float) -> dict[str, float]:
    """Probabilities of seven labels: what is known, the rest shared evenly."""
    rest = (1 - sum(known.values())) / (len(LABELS) - len(known))
    return {label: known.get(label, rest) for label in LABELS}


def segment(together: dict[str, float], **alone: dict[str, float]) -> Segment:
    return Segment(0.0, 2.0, None, None, together, {m: ModalityView(True, 1.0, p) for m, p in alone.items()})


@given(shares, shares, probabilities)
def test_less_coverage_is_never_surer_and_never_another_label(one, other, p):
    less, more = sorted((one, other))
    a, b = temper(p, less), temper(p, more)
    assert max(a.values()) <= max(b.values()) + 1e-12
    assert sum(a.values()) == pytest.approx(1)
    assert sorted(a, key=lambda k: (a[k], k))[-1:] == sorted(a, key=lambda k: (a[k], k))[-1:]
    best = max(p, key=lambda k: p[k])
    assert a[best] == pytest.approx(max(a.values()))


def test_the_rule_of_coverage_as_it_is_stated():
    assert [trust(c) for c in (0.0, 0.2, 0.5, 1.0)] == pytest.approx([0.0, 0.5, 0.8, 1.0])
    assert temper({"a": 0.9, "b": 0.1}, 1.0) == pytest.approx({"a": 0.9, "b": 0.1})
    assert temper({"a": 0.9, "b": 0.1}, 0.0) == pytest.approx({"a": 0.5, "b": 0.5})
    assert temper({"a": 0.9, "b": 0.1}, 0.2) == pytest.approx({"a": 0.75, "b": 0.25})


def test_a_label_needs_a_least_probability_whatever_the_number_of_classes():
    assert [least_probability(c) for c in (2, 4, 7, 8)] == pytest.approx([0.5625, 0.34375, 0.25, 0.234375])
    flat = {str(k): 0.125 + 0.015 * (k == 0) - 0.015 * (k == 7) for k in range(8)}
    found = decide_class(segment(flat, audio=flat), least_probability(8))
    assert found.label is None
    assert found.reason == "no emotion stands out (0 0.14)"


def test_thin_evidence_says_that_it_is_thin():
    p = of(happy=0.8)
    thin = replace(segment(p), modalities={"vision": ModalityView(True, 0.03, p)})
    found = decide_class(thin, 0.25)
    assert found.label is None
    assert "seen or heard 3% of the time" in found.reason
    assert decide_class(segment(p, vision=p), 0.25).label == "happy"


def test_modalities_that_agree_are_no_conflict():
    views = segment({}, audio=of(sad=0.7), vision=of(sad=0.3)).modalities
    assert conflicting("sad", views) == []


def test_a_clear_other_opinion_is_a_conflict_and_a_vague_one_is_not():
    views = segment({}, audio=of(sad=0.7), vision=of(happy=0.3), text=of(angry=0.6)).modalities
    assert conflicting("sad", views) == ["text"]


def test_an_answer_that_no_modality_puts_first_is_a_conflict_with_all():
    views = segment({}, audio=of(disgust=0.63, angry=0.2), vision=of(neutral=0.27, angry=0.2)).modalities
    found = decide_class(Segment(0.0, 2.0, None, None, of(angry=0.5), views), 0.25)
    assert (found.label, found.conflict) == ("angry", ["audio", "vision"])
    assert found.dissent == "audio disgust 0.63, vision neutral 0.27"


def test_a_label_that_every_modality_ranks_low_does_not_win():
    audio, vision, text = of(disgust=0.46, sad=0.3), of(neutral=0.28, happy=0.2), of(sad=0.82, neutral=0.06)
    found = decide_class(segment(of(angry=0.39), audio=audio, vision=vision, text=text), 0.25)
    assert (found.label, found.conflict) == (None, ["audio", "vision", "text"])
    assert found.reason == "modalities disagree (audio disgust 0.46, vision neutral 0.28, text sad 0.82)"


def test_one_modality_alone_is_never_in_conflict():
    found = decide_class(segment(of(happy=0.6), audio=of(happy=0.6)), 0.25)
    assert (found.label, found.conflict) == ("happy", [])


def test_a_conflict_shows_in_every_text_format():
    views = segment({}, audio=of(sad=0.7), text=of(angry=0.6)).modalities
    found = decide_class(Segment(0.0, 2.0, None, None, of(sad=0.5), views), 0.25)
    timeline = Timeline("a.mp4", 2.0, "m", LABELS, [found])
    texts = [*map(timeline.render, ("elan", "textgrid", "webvtt")), timeline.to_frame().to_csv(), timeline.to_html()]
    assert all("text angry 0.60" in t for t in texts)
    assert '"conflict": ["text"]' in timeline.to_json()


def test_the_mean_of_windows_has_what_any_of_them_has():
    there, away = ModalityView(True, 0.5, {"a": 0.9, "b": 0.1}), ModalityView(False, 0.0, {})
    one = Segment(0, 2, None, None, {"a": 0.9, "b": 0.1}, {"audio": there}, reason=None)
    even = {"a": 0.5, "b": 0.5}
    two = Segment(0, 2, None, None, even, {"audio": replace(there, coverage=0.25, probabilities=even)})
    none = Segment(0, 2, None, None, {}, {"audio": away}, reason="no sound")
    found = mean([(3.0, one), (1.0, two), (1.0, none)])
    assert found.probabilities == pytest.approx({"a": 0.8, "b": 0.2})
    assert found.modalities["audio"] == ModalityView(True, 0.5, pytest.approx({"a": 0.8, "b": 0.2}))
    assert (mean([(1.0, none)]).reason, mean([(1.0, none)]).probabilities) == ("no sound", {})


def test_a_row_is_covered_by_the_steps_that_last_in_it():
    import numpy as np

    feature = Feature(np.zeros((10, 1)), np.arange(10) < 5)  # usable for the first second of two
    assert covered_share(feature, 5.0, 0.0, 2.0) == pytest.approx(0.5)
    assert covered_share(feature, 5.0, 0.0, 1.0) == pytest.approx(1.0)
    assert covered_share(feature, 5.0, 1.0, 2.0) == 0
    assert covered_share(feature, 5.0, 0.9, 1.1) == pytest.approx(0.5)
    assert covered_share(feature, 5.0, 0.05, 0.15) == pytest.approx(1.0)  # between two steps
    assert covered_share(feature, 5.0, 5.0, 6.0) == 0
    assert covered_share(Feature(feature.values[:0]), 5.0, 0.0, 1.0) == 0


def test_pairs_of_windows_and_rows_share_time():
    windows = [Caption(0, 4, ""), Caption(2, 6, "")]
    rows = [Caption(0, 2, ""), Caption(2, 4, ""), Caption(4, 6, "")]
    assert overlaps(windows, rows) == [(0, 0, 2), (0, 1, 2), (1, 1, 2), (1, 2, 2)]
