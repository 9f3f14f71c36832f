"""A timeline whose leading task predicts values: they are never shown as probabilities."""

from __future__ import annotations

import io
import re

import pandas as pd
import pytest

from affuse.core.timeline import Curve, ModalityView, Segment, TaskInfo, Timeline, in_words
from affuse.reporting.timeline_slots import headline, shares

LABELS = ("valence", "arousal")
FIRST, SECOND = {"valence": -0.5, "arousal": 0.25}, {"valence": 0.3, "arousal": -1.0}


def segment(start: float, end: float, values: dict[str, float]) -> Segment:
    view = {"vision": ModalityView(True, 1.0, values), "audio": ModalityView(False, 0.0, {})}
    return Segment(start, end, None, in_words(values), values, view)


@pytest.fixture(params=[False, True], ids=["segments", "curve"])
def timeline(request) -> Timeline:
    tasks = {"affect": TaskInfo("values", LABELS, -1.0, 1.0)}
    rows = [list(v.values()) for v in (FIRST, FIRST, FIRST, SECOND)]
    curves = {"affect": Curve(LABELS, 1.0, 0.0, rows)} if request.param else {}
    segments = [segment(0.0, 3.0, FIRST), segment(3.0, 4.0, SECOND)]
    return Timeline("clip.mp4", 4.0, "run", LABELS, segments, tasks=tasks, curves=curves)


def test_the_headline_is_the_mean_over_time(timeline):
    assert headline(timeline) == "Valence -0.30, arousal -0.06 on average"
    assert shares(timeline) == {}


def test_the_page_has_the_values_and_their_scale_and_no_share(timeline):
    page = timeline.render("html")
    body = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", page, flags=re.S)
    assert "valence -0.50, arousal +0.25" in body and "the scale goes from -1 to 1" in body
    assert "vision valence +0.30, arousal -1.00" in body
    assert set(re.findall(r"(\d+)\s*%", body)) <= {"0", "100"}  # coverage alone
    assert "Probability of each emotion" not in body


def test_values_are_drawn_within_their_range(timeline):
    drawn = timeline.of_task("affect")
    assert [s.probabilities for s in drawn.segments] == [
        {"valence": 0.25, "arousal": 0.625},
        {"valence": 0.65, "arousal": 0.0},
    ]
    assert drawn.segments[0].modalities["vision"].probabilities["arousal"] == 0.625
    pytest.importorskip("matplotlib")
    assert timeline.render("png").startswith(b"\x89PNG")


def test_the_terminal_and_the_table_show_them(timeline, capsys):
    from affuse.cli.timeline_table import print_table

    print_table(timeline)
    shown = capsys.readouterr().out
    assert "valence -0.50, arousal +0.25" in shown
    rows = pd.read_csv(io.StringIO(timeline.render("csv")))
    column = "affect:arousal" if timeline.curves else "p:arousal"
    assert rows[column].iloc[-1] == -1.0


def test_the_share_of_one_of_several_labels_is_of_the_time_that_was_judged():
    both = Segment(0.0, 2.0, None, "AU1 + AU2", {"AU1": 0.9, "AU2": 0.8}, {})
    one = Segment(2.0, 4.0, None, "AU1", {"AU1": 0.9, "AU2": 0.1}, {})
    tasks = {"units": TaskInfo("multilabel", ("AU1", "AU2"))}
    found = Timeline("c.mp4", 4.0, "run", ("AU1", "AU2"), [both, one], tasks=tasks)
    assert shares(found) == {"AU1": 1.0, "AU2": 0.5}
