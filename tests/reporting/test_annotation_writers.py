"""Exports: read back by another reader they say what the timeline says, and no tier overlaps itself."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from tests.reporting.timelines import conversation, failed, hostile, unknown

from affuse.core.errors import BadMedia
from affuse.core.timeline import UNKNOWN, Segment, Timeline
from affuse.media.subtitles import read_subtitles
from affuse.reporting.writers.elan import render as to_elan
from affuse.reporting.writers.textgrid import render as to_textgrid
from affuse.reporting.writers.webvtt import render as to_webvtt

ALL = [conversation, hostile, unknown]


def tiers_of(text: str) -> dict[str, list[tuple[int, int, str]]]:
    """{tier: (start ms, end ms, text)} of an EAF document."""
    root = ET.fromstring(text)
    times = {s.get("TIME_SLOT_ID"): int(s.get("TIME_VALUE")) for s in root.iter("TIME_SLOT")}
    return {
        tier.get("TIER_ID"): [
            (times[a.get("TIME_SLOT_REF1")], times[a.get("TIME_SLOT_REF2")], a.findtext("ANNOTATION_VALUE"))
            for a in tier.iter("ALIGNABLE_ANNOTATION")
        ]
        for tier in root.iter("TIER")
    }


@pytest.mark.parametrize("make", ALL)
def test_elan_has_the_layout_of_eaf_3(make):
    root = ET.fromstring(to_elan(make()))
    assert root.tag == "ANNOTATION_DOCUMENT"
    assert {"AUTHOR", "DATE", "VERSION"} <= set(root.attrib)
    assert root.get("FORMAT") == root.get("VERSION") == "3.0"
    order = [child.tag for child in root]
    assert order[:2] == ["HEADER", "TIME_ORDER"]
    rank = ["HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE", "CONSTRAINT"]
    assert order == sorted(order, key=rank.index)
    kinds = {t.get("LINGUISTIC_TYPE_ID") for t in root.iter("LINGUISTIC_TYPE")}
    assert {t.get("LINGUISTIC_TYPE_REF") for t in root.iter("TIER")} == kinds
    ids = [e.get("ANNOTATION_ID") for e in root.iter("ALIGNABLE_ANNOTATION")]
    assert len(ids) == len(set(ids)) == int(root.findtext("HEADER/PROPERTY"))
    values = [int(s.get("TIME_VALUE")) for s in root.iter("TIME_SLOT")]
    assert values == sorted(values)


@pytest.mark.parametrize("make", ALL)
def test_elan_tiers_never_overlap_and_keep_every_segment(make):
    timeline, tiers = make(), tiers_of(to_elan(make()))
    assert len({name.rstrip(" 0123456789") for name in tiers}) == len(tiers) or "emotion 2" in tiers
    for rows in tiers.values():
        assert all(start < end for start, end, _ in rows)
        assert all(a[1] <= b[0] for a, b in pairwise(rows))
    answers = sorted(row for name, rows in tiers.items() if name.startswith("emotion") for row in rows)
    assert [(a, b) for a, b, _ in answers] == [(round(1000 * s.start), round(1000 * s.end)) for s in timeline.segments]
    for (_, _, text), s in zip(answers, timeline.segments, strict=True):
        assert text.startswith(s.label or UNKNOWN)


def test_a_tier_stands_for_each_modality_the_words_and_the_speakers():
    tiers = tiers_of(to_elan(conversation(overlap=False)))
    assert list(tiers) == ["emotion", "audio", "vision", "transcript", "speaker"]
    assert len(tiers["vision"]) < len(tiers["audio"])
    assert tiers["transcript"][0][2] == "words 0"


def test_hostile_text_survives_in_elan():
    words = tiers_of(to_elan(hostile()))["transcript"][0][2]
    assert words.startswith("<script>alert(1)</script> & \"quotes\" 'x' -->")
    assert "\x00" not in words and "שלום" in words


@pytest.mark.parametrize("make", ALL)
def test_praat_reads_the_textgrid(make, tmp_path):
    parselmouth = pytest.importorskip("parselmouth")
    path = tmp_path / "t.TextGrid"
    path.write_text(to_textgrid(make()), encoding="utf-8")
    grid = parselmouth.read(str(path))
    call = parselmouth.praat.call
    elan = tiers_of(to_elan(make()))
    assert call(grid, "Get number of tiers") == len(elan)
    for k, (name, rows) in enumerate(elan.items(), 1):
        assert call(grid, "Get tier name", k) == name
        count = call(grid, "Get number of intervals", k)
        found = [call(grid, "Get label of interval", k, i) for i in range(1, count + 1)]
        assert [text for text in found if text] == [text for _, _, text in rows]
        ends = [call(grid, "Get end time of interval", k, i) for i in range(1, count + 1)]
        starts = [call(grid, "Get start time of interval", k, i) for i in range(1, count + 1)]
        assert starts == [0.0, *ends[:-1]]
        assert ends[-1] == pytest.approx(call(grid, "Get end time"))


@pytest.mark.parametrize("make", ALL)
def test_webvtt_keeps_overlaps_and_is_read_back(make, tmp_path):
    timeline, text = make(), to_webvtt(make())
    assert text.startswith("WEBVTT\n\n")
    assert text.count(" --> ") == len(timeline)
    path = tmp_path / "t.vtt"
    path.write_text(text, encoding="utf-8")
    stamps = re.findall(r"^(\d\d):(\d\d):(\d\d\.\d{3}) --> ", text, re.M)
    assert [int(h) * 3600 + int(m) * 60 + float(s) for h, m, s in stamps] == [s.start for s in timeline.segments]
    assert len(read_subtitles(path)) == len(timeline)
    payload = re.sub(r"^.* --> .*$", "", text, flags=re.M)
    assert set(re.findall(r"</?([a-z]+)", payload)) <= {"v", "c"}
    assert "-->" not in payload


def test_webvtt_names_speaker_label_and_confidence():
    s = conversation().segments[0]
    cue = to_webvtt(conversation()).split("\n\n")[2]
    assert cue.endswith(f"<v Ann><c.{s.label}>[{s.label} {s.probabilities[s.label]:.2f}]</c> words 0")


@pytest.mark.parametrize("export", [to_elan, to_textgrid, to_webvtt])
def test_a_failed_clip_is_not_exported_as_an_empty_one(export):
    with pytest.raises(BadMedia, match="holds nothing"):
        export(failed())
    assert export(Timeline("none.mp4", 3.0, "run", ("a",)))


def test_a_segment_of_no_length_lasts_a_millisecond():
    timeline = Timeline("t.mp4", 2.0, "run", ("a",), [Segment(1.0, 1.0, None, "a", {"a": 1.0}, {})])
    assert tiers_of(to_elan(timeline))["emotion"] == [(1000, 1001, "a 1.00")]
    assert "00:00:01.000 --> 00:00:01.001" in to_webvtt(timeline)
