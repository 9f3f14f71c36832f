"""Curves along a clip: overlapping windows are averaged step by step, and every writer tells them."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from affuse.core.compound import DERIVED
from affuse.core.labels import LabelSpace
from affuse.core.tasks import Task
from affuse.core.timeline import Curve, Segment, TaskInfo, Timeline
from affuse.core.types import Fused, Output
from affuse.inference.curves import Curves

SPACE = LabelSpace("custom", ("valence", "arousal"), "values")
TASKS = {"affect": Task("affect", SPACE, "frame"), "other": Task("other", SPACE)}
LABELS = ("neutral", "happy", "sad", "angry", "fear", "disgust", "surprise")


def window(values: np.ndarray, t0: float = 0.0, known: int | None = None):
    """A model's answer for one window: values [T] in both dimensions, the first `known` steps of them answered."""
    mask = torch.arange(len(values))[None] < (len(values) if known is None else known)
    logits = torch.tensor(values, dtype=torch.float32)[None, :, None].expand(1, -1, 2)
    fused = Fused(torch.zeros(1, 1), logits, mask, 5.0, torch.tensor([t0], dtype=torch.float64))
    return SimpleNamespace(fuse=lambda encoded, batch: Output({"affect": logits}, fused))


def curve(duration: float, windows) -> Curve:
    found = Curves(TASKS, duration)
    for start, model in windows:
        found.add([model], SimpleNamespace(encoded=[None], batch=None), [start])
    assert set(found.curves()) == {"affect"}  # a task per utterance has none
    return found.curves()["affect"]


def test_steps_of_overlapping_windows_are_averaged():
    found = curve(2.0, [(0.0, window(np.full(6, 1.0))), (0.6, window(np.full(6, 3.0)))])
    wanted = [1, 1, 1, 2, 2, 2, 3, 3, 3, np.nan]
    np.testing.assert_allclose(found.array()[:, 0], wanted)
    assert found.values[9] is None and (found.rate, found.t0) == (5.0, 0.0)


def test_a_window_stands_where_its_streams_begin_and_masked_steps_do_not_count():
    found = curve(2.0, [(0.4, window(np.arange(5.0), t0=0.2, known=3))])
    np.testing.assert_allclose(found.array()[:, 1], [np.nan] * 3 + [0, 1, 2] + [np.nan] * 4)


def test_steps_beyond_the_clip_are_left_out():
    assert len(curve(1.0, [(0.8, window(np.arange(9.0)))]).values) == 5


@pytest.fixture
def timeline() -> Timeline:
    """Two seconds at 5 Hz, happy then sad, without an answer in the middle."""
    p = np.full((10, 7), 0.05)
    p[:4, 1] = p[6:, 2] = 0.7
    p[4:6] = np.nan
    segment = Segment(0.0, 2.0, None, "happy", dict(zip(LABELS, np.nanmean(p, axis=0), strict=True)), {})
    tasks = {"emotion": TaskInfo("classes", LABELS)}
    curves = {"emotion": Curve.of(LABELS, 5.0, 0.0, p)}
    return Timeline("clip.mp4", 2.0, "run", LABELS, [segment], tasks=tasks, curves=curves)


def test_json_holds_the_curve_with_rate_and_start(timeline):
    found = json.loads(timeline.render("json"))["curves"]["emotion"]
    assert (found["rate"], found["t0"], found["labels"]) == (5.0, 0.0, list(LABELS))
    assert [row is None for row in found["values"]] == [False] * 4 + [True] * 2 + [False] * 4


def test_csv_has_a_row_per_step(timeline):
    table = pd.read_csv(io.StringIO(timeline.render("csv")))
    assert table["time"].tolist() == pytest.approx(np.arange(10) / 5)
    assert table["emotion:happy"].notna().tolist() == [True] * 4 + [False] * 2 + [True] * 4


def test_steps_are_what_is_drawn(timeline):
    found = timeline.steps()
    assert [s.label for s in found.segments] == ["happy"] * 4 + [None] * 2 + ["sad"] * 4
    assert len(timeline.render("html")) > len(replace(timeline, curves={}).render("html"))


def test_compound_emotions_leave_unanswered_steps_unanswered(timeline):
    found = DERIVED["compound"].timeline(timeline).curves["emotion"]
    assert [row is None for row in found.values] == [False] * 4 + [True] * 2 + [False] * 4
    np.testing.assert_allclose(np.nansum(found.array(), axis=1), [1] * 4 + [0] * 2 + [1] * 4)
