"""Challenge files: which prediction a frame gets, the organisers' list, rows as text and back, every refusal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from affuse.core.errors import BadConfig, BadCorpus, MissingFile, StorageError
from affuse.core.labels import SPACES, LabelSpace
from affuse.core.tasks import Task
from affuse.core.timeline import Answer, Curve, Segment, TaskInfo, Timeline
from affuse.reporting.submissions.challenges import CHALLENGES
from affuse.reporting.submissions.files import read_submission, write_submission
from affuse.reporting.submissions.frames import predicted_at, rows_of
from affuse.reporting.submissions.samples import check_videos, fit, read_samples

COMPOUND, EXPRESSION, VA, AU = CHALLENGES.values()
EMOTION = Task("emotion", SPACES["ekman-7"])
AFFECT = Task("affect", SPACES["va"])
UNITS = Task("units", SPACES["action-units-12"])


def curve(task: Task, values, rate: float = 25.0, t0: float = 0.0) -> Timeline:
    found = {task.name: Curve(task.space.labels, rate, t0, np.asarray(values, float).tolist())}
    return Timeline("a.mp4", 9.0, "m", task.space.labels, tasks={task.name: INFO[task.kind]}, curves=found)


INFO = {t.kind: TaskInfo(t.kind, t.space.labels, t.space.low, t.space.high) for t in (EMOTION, AFFECT, UNITS)}


def test_the_head_lines_are_those_of_the_challenges():
    assert {name: c.head for name, c in CHALLENGES.items()} == {
        "abaw-compound": "image_location,Fearfully_Surprised,Happily_Surprised,Sadly_Surprised,"
        "Disgustedly_Surprised,Angrily_Surprised,Sadly_Fearful,Sadly_Angry",
        "abaw-expression": "image_location,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other",
        "abaw-va": "image_location,valence,arousal",
        "abaw-au": "image_location,AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26",
    }


def test_a_frame_gets_the_step_of_the_curve_that_lasts_then():
    values = np.arange(10)[:, None] * [0.1, -0.1]
    timeline = curve(AFFECT, values, rate=5.0, t0=0.1)
    at = np.array([0.0, 0.1, 0.299, 0.31, 1.05, 2.1, 50.0])
    assert predicted_at(timeline, AFFECT, at)[:, 0].round(3).tolist() == [0, 0, 0.1, 0.1, 0.4, 0.9, 0.9]
    same_rate = curve(AFFECT, np.arange(90)[:, None] * [0.01, 0], rate=30.0)
    stamps = np.round(np.arange(90) / 30, 3)  # as containers that count in ms have them
    np.testing.assert_allclose(predicted_at(same_rate, AFFECT, stamps)[:, 0], np.arange(90) * 0.01)


def test_variable_frame_rates_are_followed():
    times = np.cumsum([0.0, 0.04, 0.2, 0.01, 0.4, 0.02])  # 0, .04, .24, .25, .65, .67
    found = predicted_at(curve(AFFECT, np.arange(8)[:, None] * [0.1, 0], rate=10.0), AFFECT, times)
    assert found[:, 0].round(2).tolist() == [0, 0, 0.2, 0.2, 0.6, 0.6]


def test_labels_of_a_curve_are_taken_by_name():
    order = ("arousal", "valence")
    timeline = curve(AFFECT, [[0.5, -0.5]])
    turned = replace(timeline, curves={"affect": Curve(order, 25.0, 0.0, [[-0.5, 0.5]])})
    at = np.array([0.0])
    assert predicted_at(turned, AFFECT, at).tolist() == predicted_at(timeline, AFFECT, at).tolist()


def segment(start: float, end: float, label: str = "", answers=None) -> Segment:
    labels = SPACES["ekman-7"].labels
    p = {name: 0.4 if name == label else 0.1 for name in labels} if label else {}
    return Segment(start, end, None, None, p, {}, answers=answers or {})


def test_without_a_curve_frames_get_their_segment():
    segments = [segment(0, 1, "sad"), segment(1, 2), segment(2, 3, "fear")]
    timeline = Timeline("a.mp4", 3.0, "m", EMOTION.space.labels, segments, tasks={"emotion": INFO["classes"]})
    times = np.array([-0.01, 0.0, 0.99, 1.0, 1.5, 2.0, 3.0, 3.2])
    rows, unanswered = rows_of(timeline, EXPRESSION, EMOTION, times)
    sad, fear = (float(SPACES["abaw-8"].labels.index(label)) for label in ("sad", "fear"))
    assert [row[0] for row in rows] == [sad, sad, sad, sad, sad, fear, fear, fear]
    assert unanswered == 2
    late = [segment(0, 1), segment(1, 2, "fear"), segment(2, 3, "sad")]
    leading_gap, _ = rows_of(replace(timeline, segments=late), EXPRESSION, EMOTION, times)
    assert [row[0] for row in leading_gap] == [fear, fear, fear, fear, fear, sad, sad, sad]


def test_segments_of_a_second_task_and_none_at_all():
    answer = Answer("valence", {"valence": 0.25, "arousal": -0.5}, {})
    segments = [segment(0, 1, "sad", {"affect": answer}), segment(1, 2, "sad")]
    tasks = {"emotion": INFO["classes"], "affect": INFO["values"]}
    timeline = Timeline("a.mp4", 2.0, "m", EMOTION.space.labels, segments, tasks=tasks)
    times = np.array([0.5, 1.5])
    assert rows_of(timeline, VA, AFFECT, times) == ([(0.25, -0.5)] * 2, 1)
    empty = replace(timeline, segments=[segment(0, 2)])
    assert rows_of(empty, VA, AFFECT, times) == ([(0.0, 0.0)] * 2, 2)
    assert rows_of(empty, EXPRESSION, EMOTION, times) == ([(0.0,)] * 2, 2)
    nothing = np.full((3, 7), np.nan)
    assert rows_of(curve(EMOTION, nothing), EXPRESSION, EMOTION, times)[1] == 2
    assert rows_of(curve(EMOTION, np.zeros((0, 7))), EXPRESSION, EMOTION, times)[1] == 2


def test_rows_of_every_kind():
    p = np.zeros((2, 7))
    p[0, EMOTION.space.labels.index("surprise")] = p[1, EMOTION.space.labels.index("angry")] = 1
    assert EXPRESSION.rows(EMOTION, p) == [(6.0,), (1.0,)]
    assert EXPRESSION.never(EMOTION) == ["other"]
    eight = Task("compound", SPACES["compound-8"])
    p = np.array([[0, 0.1, 0, 0, 0, 0.3, 0, 0.6]])  # `other` is likeliest, and no class of this challenge
    assert COMPOUND.rows(eight, p) == [(5.0,)]
    other_first = Task("compound", LabelSpace("mine", ("other", *reversed(SPACES["compound-7"].labels))))
    assert COMPOUND.rows(other_first, np.array([[0.6, 0.3, 0, 0, 0, 0, 0.1, 0]])) == [(6.0,)]  # sadly angry
    assert VA.rows(AFFECT, np.array([[1.7, -0.1234567], [-0.0, -1e-9]])) == [(1.0, -0.123457), (0.0, 0.0)]
    vad = Task("vad", SPACES["vad"])
    assert VA.rows(vad, np.array([[0.1, 0.2, 0.9]])) == [(0.1, 0.2)]
    even = replace(UNITS, thresholds=(0.5,) * 11 + (0.9,))
    assert AU.rows(even, np.full((1, 12), 0.7)) == [(1.0,) * 11 + (0.0,)]
    upper = Task("au", LabelSpace("mine", tuple(f"AU{u[2:]}" for u in SPACES["action-units-12"].labels), "multilabel"))
    assert AU.rows(upper, np.full((1, 12), 0.7)) == [(1.0,) * 12]


def test_the_task_that_answers_and_what_is_refused():
    tasks = {"emotion": EMOTION, "affect": AFFECT}
    assert (EXPRESSION.task_of("m", tasks), VA.task_of("m", tasks)) == (EMOTION, AFFECT)
    with pytest.raises(BadConfig, match=r"abaw-au needs multilabel, and m predicts emotion \(classes\), affect"):
        AU.task_of("m", tasks)
    with pytest.raises(BadConfig, match="'emotion' of m has a class 'neutral' that is unknown to abaw-compound"):
        COMPOUND.task_of("m", tasks)
    calm = Task("emotion", SPACES["ravdess-8"])
    with pytest.raises(BadConfig, match="a class 'calm' that is unknown to abaw-expression"):
        EXPRESSION.task_of("m", {"emotion": calm})
    with pytest.raises(BadConfig, match="'affect' of m has no 'arousal'"):
        VA.task_of("m", {"affect": Task("affect", LabelSpace("v", ("valence",), "values", -1, 1))})
    with pytest.raises(BadConfig, match="has values from 0 to 1, not -1 to 1"):
        VA.task_of("m", {"affect": Task("affect", replace(SPACES["va"], low=0.0))})
    compound = Task("c", SPACES["compound-8"])
    assert COMPOUND.task_of("m", {"emotion": EMOTION, "c": compound}) is compound


ROWS = {"01": [(0.0,), (1.0,), (2.0,)], "02": [(5.0,), (6.0,)]}


@pytest.mark.parametrize("challenge", CHALLENGES.values(), ids=lambda c: c.name)
def test_a_file_is_read_back_as_it_was_written(challenge, tmp_path):
    rng = np.random.default_rng(0)
    if challenge.space.kind == "values":
        values = np.round(rng.uniform(-1, 1, (50, 2)), 6)
    elif challenge.space.kind == "classes":
        values = rng.integers(0, len(challenge.space), (50, 1))
    else:
        values = rng.integers(0, 2, (50, 12))
    own = [tuple(map(float, row)) for row in values]
    rows = fit({"b": own, "a": own[:7]}, None).rows
    write_submission(tmp_path / "p.txt", challenge, rows)
    assert read_submission(tmp_path / "p.txt", challenge) == rows
    lines = (tmp_path / "p.txt").read_text().split("\n")
    assert (lines[0], len(lines), lines[-1]) == (challenge.head, 59, "")
    assert lines[1].startswith("b/00001.jpg,")
    assert len(lines[1].split(",")) == {"classes": 2, "values": 3, "multilabel": 13}[challenge.space.kind]


def test_rows_are_written_as_the_challenge_has_them(tmp_path):
    write_submission(tmp_path / "p.txt", COMPOUND, fit(ROWS, None).rows)
    assert (tmp_path / "p.txt").read_text().splitlines()[1:4] == ["01/00001.jpg,0", "01/00002.jpg,1", "01/00003.jpg,2"]
    write_submission(tmp_path / "v.txt", VA, [("x/00001.jpg", (0.5, -0.25))])
    assert (tmp_path / "v.txt").read_text() == "image_location,valence,arousal\nx/00001.jpg,0.500000,-0.250000\n"


def test_a_file_that_is_not_read_back_the_same_gets_no_name(tmp_path):
    with pytest.raises(StorageError, match="not written as it should be"):
        write_submission(tmp_path / "p.txt", VA, [("x/00001.jpg", (0.12345678, 0.0))])
    with pytest.raises(BadCorpus, match="there twice"):
        write_submission(tmp_path / "p.txt", COMPOUND, [("x/00001.jpg", (1.0,))] * 2)
    with pytest.raises(BadCorpus, match="class 7 is unknown to abaw-compound"):
        write_submission(tmp_path / "p.txt", COMPOUND, [("x/00001.jpg", (7.0,))])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "begins with ''"),
        ("image_location,a\n", "begins with 'image_location,a'"),
        (f"{COMPOUND.head}\n01/00001.jpg,9\n", "line 2: class 9 is unknown to abaw-compound"),
        (f"{COMPOUND.head}\n01/00001.jpg,1.5\n", "class 1.5 is unknown"),
        (f"{COMPOUND.head}\n01/00001.jpg,joy\n", "'joy' are no numbers"),
        (f"{COMPOUND.head}\n01/00001.jpg,1,2\n", "2 values, abaw-compound has 1"),
        (f"{COMPOUND.head}\n01/1.jpg,1\n", "'01/1.jpg' names no frame"),
        (f"{COMPOUND.head}\n01/00000.jpg,1\n", "names no frame"),
        (f"{COMPOUND.head}\n01/00001.jpg,1\n01/00001.jpg,1\n", "line 3: 01/00001.jpg is there twice"),
    ],
)
def test_damaged_submissions_are_named(tmp_path, text, error):
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(BadCorpus, match=error):
        read_submission(tmp_path / "p.txt", COMPOUND)
    with pytest.raises(MissingFile, match=r"q\.txt"):
        read_submission(tmp_path / "q.txt", COMPOUND)


def listed(path, text: str):
    path.write_text(text)
    return read_samples(path, COMPOUND)


def test_the_list_is_followed_row_by_row(tmp_path):
    text = f"{COMPOUND.head}\n02/00001.jpg,\n02/00002.jpg\n02/00003.jpg,0\n\n02/00004.jpg\n01/00001.jpg\n01/00002.jpg\n"
    samples = listed(tmp_path / "s.txt", text)
    assert samples == [("02", 1), ("02", 2), ("02", 3), ("02", 4), ("01", 1), ("01", 2)]
    fitted = fit(ROWS, samples)
    assert [row for _, row in fitted.rows] == [(5.0,), (6.0,), (6.0,), (6.0,), (0.0,), (1.0,)]
    assert [where for where, _ in fitted.rows][2:5] == ["02/00003.jpg", "02/00004.jpg", "01/00001.jpg"]
    assert (fitted.repeated, fitted.dropped) == ({"02": 2}, {"01": 1})
    assert listed(tmp_path / "bare.txt", "image_location\n01/00002.jpg\n") == [("01", 2)]
    gap = fit(ROWS, [("01", 1), ("01", 3), ("02", 1), ("02", 2)])
    assert ([row for _, row in gap.rows][:2], gap.dropped) == ([(0.0,), (2.0,)], {"01": 1})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "names no frame"),
        (f"{COMPOUND.head}\n", "names no frame"),
        (f"{VA.head}\n01/00001.jpg\n", "not that of abaw-compound: valence"),
        ("image_location,Happily_Surprised\n01/00001.jpg\n", "not that of abaw-compound: its order"),
        ("01/00001.jpg\n01/0002.jpg\n", "row 2: '01/0002.jpg' names no frame"),
        ("01/00001.jpg\n01/00001.jpg\n", "row 2: 01/00001.jpg is there twice"),
        ("01/00001.png\n", "names no frame"),
    ],
)
def test_damaged_lists_are_named(tmp_path, text, error):
    with pytest.raises(BadCorpus, match=error):
        listed(tmp_path / "s.txt", text)


def test_lists_that_are_no_text_or_not_there(tmp_path):
    (tmp_path / "s.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadCorpus, match="is no text"):
        read_samples(tmp_path / "s.txt", COMPOUND)
    with pytest.raises(MissingFile, match=r"no file .*t\.txt"):
        read_samples(tmp_path / "t.txt", COMPOUND)


def test_missing_and_unknown_videos_are_named(tmp_path):
    samples = [("01", 1), ("02", 1)]
    check_videos(["02", "01"], samples, tmp_path)
    with pytest.raises(BadConfig, match=r"1 of the 2 videos of .* are missing, such as '02'"):
        check_videos(["01"], samples, tmp_path)
    with pytest.raises(BadConfig, match=r"lacks '03' \(1 of 3 videos\)"):
        check_videos(["01", "02", "03"], samples, tmp_path)
