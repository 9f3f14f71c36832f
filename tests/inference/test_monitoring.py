"""Recordings in numbers, their intervals, trends and change points."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from scipy.stats import kendalltau, theilslopes

from affuse.core.monitor import Monitor, Recording, Summary
from affuse.core.timeline import FaceTrack, ModalityView, Segment, Timeline
from affuse.inference.monitoring import fewest_for_change, fewest_for_trend, follow, summarise

LABELS = ("neutral", "happy", "sad", "angry", "fear", "disgust", "surprise")
START = datetime(2026, 1, 5)


def segment(start: float, end: float, happy: float | None, speaker: str | None = None) -> Segment:
    views = {"audio": ModalityView(happy is not None, 0.5 if happy is not None else 0.0, {})}
    if happy is None:
        return Segment(start, end, speaker, None, {}, views, None, "no face, no speech")
    return Segment(start, end, speaker, "happy", {"neutral": 1 - happy, "happy": happy}, views)


def timeline(*segments: Segment, faces: tuple[FaceTrack, ...] = ()) -> Timeline:
    return Timeline("a.mp4", 60.0, "model", LABELS[:2], list(segments), list(faces))


def recording(day: float, shares, answered: float = 40.0, gap: str = "") -> Recording:
    found = {} if gap else {label: (float(v), float("nan"), float("nan")) for label, v in zip(LABELS, shares)}
    summary = Summary(60.0, 60.0, answered, found, {"audio": 1.0}, gap)
    return Recording(f"{day}.mp4", START + timedelta(days=day), "name", summary)


def weeks(values: np.ndarray) -> Monitor:
    """Shares [N, K] a week apart."""
    return follow([recording(7 * i, row) for i, row in enumerate(values)], "anna", "model")


def noise(seed: int, n: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(len(LABELS), 6.0), n)


def planted(seed: int, at: int = 11) -> np.ndarray:
    values = noise(seed)
    values[at:] = 0.6 * values[at:] + 0.4 * np.eye(len(LABELS))[1]
    return values


# ---- one recording ---------------------------------------------------------------------------------------------


def test_shares_are_weighted_by_the_answered_seconds_and_coverage_by_all() -> None:
    found = summarise(timeline(segment(0, 6, 0.5), segment(6, 8, 0.9), segment(8, 16, None)))
    assert found.gap == ""
    assert (found.answered, found.seconds) == (8.0, 16.0)
    assert found.shares["happy"][0] == pytest.approx((6 * 0.5 + 2 * 0.9) / 8)
    assert found.coverage["audio"] == pytest.approx(0.25)


def test_an_interval_holds_the_mean_of_the_segments_it_was_drawn_from() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        values = np.clip(rng.normal(0.5, 0.1, 6), 0, 1)
        _, low, high = summarise(timeline(*(segment(3.0 * i, 3.0 * i + 3, v) for i, v in enumerate(values)))).shares[
            "happy"
        ]
        held += low <= 0.5 <= high
    assert 0.9 <= held / 200 <= 0.99


def test_one_segment_has_a_value_and_no_interval() -> None:
    value, low, high = summarise(timeline(segment(0, 6, 0.5))).shares["happy"]
    assert value == 0.5
    assert np.isnan([low, high]).all()


@pytest.mark.parametrize(
    ("segments", "why"),
    [
        ([segment(0, 9, None)], "no face, no speech"),
        ([segment(0, 0.4, 0.5)], "0.4 s with an answer, 1 s is needed"),
        ([segment(0, 0.4, 0.5), segment(1, 9, None)], "no face, no speech"),
        ([], "no segment"),
        ([segment(0, 6, 0.5, "Ann"), segment(6, 10, 0.9, "Bo")], "several people speak (others 40% of the time)"),
    ],
)
def test_too_little_or_two_people_is_a_gap_without_numbers(segments, why: str) -> None:
    found = summarise(timeline(*segments))
    assert why in found.gap
    assert found.shares == {}


def test_others_who_speak_little_are_left_out_of_the_numbers() -> None:
    found = summarise(timeline(segment(0, 18, 0.5, "Ann"), segment(18, 20, 0.9, "Bo")))
    assert found.shares["happy"][0] == 0.5
    assert found.answered == 18


@pytest.mark.parametrize(("second", "gap"), [((0.0, 20.0), True), ((10.0, 20.0), False)])
def test_faces_are_two_people_only_where_both_are_on_screen(second, gap: bool) -> None:
    """A person who returns gets a new track."""
    faces = FaceTrack(1, [(0.0, 10.0)]), FaceTrack(2, [second])
    spoken = [segment(0, 10, 0.5, "face 1"), segment(10, 20, 0.9, "face 2")]
    assert bool(summarise(timeline(*spoken, faces=faces)).gap) is gap
    silent = [replace(s, speaker=None) for s in spoken]
    assert bool(summarise(timeline(*silent, faces=faces)).gap) is gap


# ---- over time -------------------------------------------------------------------------------------------------


def test_a_planted_change_is_found_at_its_place() -> None:
    found = [weeks(planted(seed)).changes for seed in range(10)]
    hits = [c for changes in found for c in changes if c.label == "happy"]
    assert len(hits) == 10
    near = [abs((c.first - START).days / 7 - 11) <= 1 for c in hits]
    assert sum(near) >= 9
    assert all(c.after > c.before for c in hits)


def test_noise_gives_few_false_alarms() -> None:
    """At most 5 % in expectation, for changes and for trends; the bound leaves room for chance in 60 seeds."""
    found = [weeks(noise(seed, 16)) for seed in range(60)]
    assert sum(bool(m.changes) for m in found) <= 6
    assert sum(any(t.clear for t in m.trends) for m in found) <= 6


def test_two_changes_of_one_emotion_are_both_found() -> None:
    values = np.tile(np.full(7, 1 / 7), (36, 1)) + np.random.default_rng(0).normal(0, 0.01, (36, 7))
    values[12:, 1] += 0.3
    values[24:, 1] += 0.3
    found = weeks(values).changes_of("happy")
    assert [(c.first - START).days // 7 for c in found] == [12, 24]
    assert found[0].after == found[1].before


def test_a_trend_is_theil_s_slope_with_sen_s_interval() -> None:
    values = noise(3)
    values[:, 1] += 0.01 * np.arange(20)
    found = weeks(values).trend("happy")
    line = theilslopes(values[:, 1], np.arange(20))
    assert (found.slope, found.low, found.high) == pytest.approx((line.slope, line.low_slope, line.high_slope))
    assert found.p >= kendalltau(np.arange(20), values[:, 1]).pvalue
    assert found.clear


def test_too_few_days_say_how_many_are_needed() -> None:
    assert (fewest_for_trend(7), fewest_for_change(7)) == (6, 11)
    found = weeks(noise(0, 5))
    assert found.no_trends == "5 days with an answer, 6 are needed"
    assert (found.trends, found.changes) == ([], [])
    assert weeks(noise(0, 6)).no_trends == ""
    assert weeks(noise(0, 10)).no_changes == "10 days with an answer, 11 are needed"


def test_the_fewest_days_are_enough_for_a_perfect_change() -> None:
    values = noise(0, 11) / 50
    values[5:, 1] += 0.5
    assert [c.label for c in weeks(values).changes] == ["happy"]


def test_many_recordings_of_two_days_are_two_days() -> None:
    found = follow([recording(7 * (i > 9) + i / 50, row) for i, row in enumerate(planted(0, 10))], "anna", "model")
    assert len(found.answered) == 20
    assert found.no_changes.startswith("2 days")


def test_days_within_a_week_have_no_slope_per_week() -> None:
    assert "within 7 days" in follow([recording(i, r) for i, r in enumerate(noise(0, 7))], "a", "m").no_trends


def test_order_does_not_matter_and_gaps_and_the_undated_are_no_points() -> None:
    rows = [recording(7 * i, row) for i, row in enumerate(noise(1))]
    whole = follow(rows, "anna", "model")
    more = [recording(3, (), 0.0, "no face"), replace(rows[0], date=None), *rows[::-1]]
    found = follow(more, "anna", "model")
    assert found.trends == whole.trends
    assert (len(found.recordings), len(found.answered), len(found.undated)) == (21, 20, 1)


def test_what_never_moves_has_neither_trend_nor_change() -> None:
    found = weeks(np.full((20, 7), 1 / 7))
    assert not found.changes
    assert not any(t.clear for t in found.trends)
