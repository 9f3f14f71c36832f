"""The page and the picture of a person's recordings: the answer first, gaps as gaps, nothing from outside."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from tests.reporting.test_html import parse, said
from tests.reporting.timelines import HOSTILE

from affuse.core.errors import MissingDependency
from affuse.core.monitor import Change, Monitor, Recording, Summary, Trend
from affuse.reporting import monitor_picture
from affuse.reporting.monitor_page import page
from affuse.reporting.monitor_words import NO_DIAGNOSIS, findings, headline

START, NAN = datetime(2026, 1, 5), float("nan")
LABELS = ("happy", "sad")


def recording(week: int, gap: str = "", **more) -> Recording:
    shares = {} if gap else {"happy": (0.4, 0.3, 0.5), "sad": (0.6, NAN, NAN)}
    summary = Summary(60.0, 50.0, 0.0 if gap else 40.0, shares, {"audio": 0.0 if gap else 0.8}, gap)
    return Recording(
        **{"file": f"{week}.mp4", "date": START + timedelta(weeks=week), "dated": "name"} | more, summary=summary
    )


def monitor(**more) -> Monitor:
    rows = [recording(k, "no face, no speech" if k in (2, 5) else "") for k in range(8)]
    return replace(
        Monitor("anna", "base", rows, [recording(9, file="holiday.mp4", date=None, dated="no date")]), **more
    )


CHANGE = Change("happy", START, START + timedelta(weeks=3), 0.2, 0.5, 0.01)
RISES = Trend("sad", 0.012, 0.003, 0.02, 0.4, 0.01)
UNCLEAR = Trend("sad", 0.012, -0.003, 0.02, 0.4, 0.4)
ALL = {
    "whole": monitor(changes=[CHANGE], trends=[RISES]),
    "few": monitor(no_trends="5 days with an answer, 6 are needed", no_changes="5 days with an answer, 9 are needed"),
    "gaps": Monitor("anna", "base", [recording(0, "no face")], []),
    "one": Monitor("anna", "base", [recording(0)], []),
    "none": Monitor("anna", "base", [], []),
    "hostile": Monitor(HOSTILE, HOSTILE, [recording(0, HOSTILE), recording(1, file=HOSTILE)], [], notes=[HOSTILE]),
}


@pytest.mark.parametrize("name", ALL)
def test_the_page_is_whole_and_asks_for_nothing(name: str) -> None:
    made = page(ALL[name])
    found = parse(made)
    assert not re.search(r"url\(|@import|<link|<iframe|<script|http://|https://", made.replace("http-equiv", ""))
    assert not [v for k, v in found.attributes if k in ("src", "href") or k.startswith("on") or "nan" in v]
    assert "default-src 'none'" in made
    assert NO_DIAGNOSIS in said(made)
    made.encode("utf-8")


def test_every_picture_has_a_title_and_a_description() -> None:
    made = page(ALL["whole"])
    pictures = re.findall(r"<svg (?![^>]*aria-hidden).*?</svg>", made, re.S)
    assert len(pictures) == 4  # two emotions, a modality, the answers
    assert all(re.search(r'aria-labelledby="(\w+) (\w+)".*id="\1".*<desc id="\2">', p, re.S) for p in pictures)
    ids = re.findall(r' id="(\w+)"', made)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (ALL["whole"], "Happy changed between 2026-01-05 and 2026-01-26, from 20\u00a0% to 50\u00a0%; 1 more"),
        (monitor(trends=[RISES]), "Sad rises by 1.2 points per week"),
        (monitor(trends=[UNCLEAR]), "No change is clear"),
        (ALL["few"], "Not enough to tell yet: 5 days with an answer, 6 are needed"),
        (ALL["gaps"], "Not enough to tell: no recording has both a date and an answer"),
    ],
)
def test_the_answer_comes_first(shown: Monitor, words: str) -> None:
    assert headline(shown) == words
    assert page(shown).index(words) < page(shown).index("<section")


def test_both_a_change_and_a_trend_are_said() -> None:
    assert [line.split()[0] for line in findings(ALL["whole"])] == ["Happy", "Sad"]


def test_gaps_are_shown_with_their_reason_and_never_as_zero() -> None:
    chart = re.search(r'<svg class="fluid e0".*?</svg>', page(ALL["whole"]), re.S)[0]
    assert chart.count('class="gap"') == 2
    assert chart.count('class="dot"') == 6
    assert chart.count('class="spread"') == 6
    assert chart.count('class="step"') == 3  # not across a gap
    assert "not enough to tell: no face, no speech" in chart
    assert " 0\u00a0%" not in chart


def test_a_value_without_an_interval_is_drawn_as_such_and_changes_are_marked() -> None:
    made = page(ALL["whole"])
    happy, sad = re.findall(r'<svg class="fluid e\d".*?</svg>', made, re.S)
    assert (sad.count("dot open"), sad.count("spread")) == (6, 0)
    assert (happy.count('class="change"'), happy.count('class="fit"')) == (1, 2)
    assert (sad.count('class="change"'), sad.count('class="fit"')) == (0, 1)
    assert "holiday.mp4 (no date)" in said(made)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("format", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_a_picture_is_drawn_of_everything(name: str, format: str, begins: bytes) -> None:
    assert monitor_picture.render(ALL[name], format).startswith(begins)


def test_a_picture_without_its_package_is_refused_by_name(monkeypatch) -> None:
    monkeypatch.setattr(monitor_picture, "available", lambda card: False)
    with pytest.raises(MissingDependency, match="matplotlib"):
        monitor_picture.check()
