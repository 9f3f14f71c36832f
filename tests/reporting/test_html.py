"""timeline.html: well-formed, self-contained, escaped, bounded, and the answer first."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from tests.reporting.timelines import LABELS, conversation, failed, hostile, unknown

from affuse.core.timeline import Context, ModalityView, Segment, Timeline
from affuse.media.write import write_clip
from affuse.reporting.style import DARK, EMOTIONS, LIGHT, contrast, emotion_colours
from affuse.reporting.timeline_slots import headline, shares, slots
from affuse.reporting.timeline_tracks import axis
from affuse.reporting.writers.html import render

ALL = {"conversation": conversation, "hostile": hostile, "unknown": unknown, "failed": failed}
VOID = {"meta", "img", "br"}


class Balance(HTMLParser):
    """Fails on a tag that closes nothing; collects attributes, scripts and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.count = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count += 1
        self.attributes += [(k, v or "") for k, v in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count += 1
        self.attributes += [(k, v or "") for k, v in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)
        elif self.open[-1:] != ["style"]:
            self.words.append(data)


def parse(page: str) -> Balance:
    found = Balance()
    found.feed(page)
    found.close()
    assert found.open == []
    return found


def said(page: str) -> str:
    return " ".join(" ".join(parse(page).words).split())


@pytest.mark.parametrize("name", ALL)
def test_the_page_is_whole_and_asks_for_nothing(name):
    page = render(ALL[name]())
    found = parse(page)
    assert not re.search(r"url\(|@import|<link|<iframe", page)
    assert not [v for k, v in found.attributes if k in ("src", "href", "srcset") and not v.startswith("data:")]
    assert "http://" not in page.replace("http-equiv", "") and "https://" not in page
    assert not [v for k, v in found.attributes if k.startswith("on") or "nan" in v.split()]
    assert "default-src 'none'" in page
    page.encode("utf-8")


def test_hostile_text_stays_text():
    page = render(hostile())
    assert "<script>alert" not in page
    found = parse(page)
    assert len(found.scripts) == 2
    data = json.loads(found.scripts[0])
    assert data["segments"][0]["t"].startswith("<script>alert(1)</script>")
    assert "w" * 5000 in page and len(data["segments"][1]["t"]) < 300


def test_the_policy_lets_this_script_run_and_no_other():
    from base64 import b64encode
    from hashlib import sha256

    page = render(conversation())
    digest = b64encode(sha256(parse(page).scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page


def test_the_answer_stands_first_and_agrees_with_the_segments():
    timeline = conversation(overlap=False)
    told = timeline.to_frame().query("label != 'not enough to tell'")
    assert shares(timeline) == pytest.approx((told.label.value_counts() / len(told)).to_dict())
    page = render(timeline)
    assert page.index(headline(timeline)) < page.index("Over time") < page.index("Transcript")


def test_nothing_to_tell_and_an_error_are_said_with_their_reason():
    assert "Not enough to tell: no sound, no face" in said(render(unknown()))
    words = said(render(failed()))
    assert "a<b>.mp4 holds nothing" in words and "give another clip" in words


@pytest.mark.parametrize(
    ("a", "b", "start"),
    [(0.9, 0.1, "Mostly happy"), (0.52, 0.48, "Mixed: happy"), (1.0, 0.0, "Happy throughout")],
)
def test_the_headline_claims_no_more_than_the_shares(a, b, start):
    p, q = {"happy": 1.0, "sad": 0.0}, {"happy": 0.0, "sad": 1.0}
    segments = [Segment(0, 10 * a, None, "happy", p, {})] + ([Segment(10 * a, 10, None, "sad", q, {})] if b else [])
    assert headline(Timeline("t.mp4", 10.0, "run", ("happy", "sad"), segments)).startswith(start)


def test_what_has_no_answer_is_not_claimed():
    told = Segment(0, 1, None, "happy", {"happy": 1.0, "sad": 0.0}, {})
    untold = Segment(1, 10, None, None, {}, {}, reason="no face")
    assert headline(Timeline("t.mp4", 10.0, "run", ("happy", "sad"), [told, untold])) == "Happy wherever it can be told"


def test_three_hours_stay_small_and_light():
    timeline = conversation(n=2700, overlap=False)
    page = render(timeline)
    assert len(page) < 3_000_000
    lanes = page[page.index("Over time") : page.index("Transcript")]
    assert lanes.count("<") < 3_000
    assert "content-visibility:auto" in page
    assert len(slots(timeline).analysed) <= 1500


def test_ten_minutes_with_pictures_stay_below_600_kb(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (30, 54, 3), np.uint8).repeat(3, 0).repeat(3, 1)
    frames = (np.roll(noise, 40 * k, axis=1) for k in range(300))
    clip = tmp_path / "long.mp4"
    write_clip(clip, frames, 0.5, rng.normal(size=20 * 8000).astype(np.float32) * 0.1, 8000, preset="ultrafast")
    timeline = conversation(n=150, overlap=False)
    page = render(replace(timeline, clip=str(clip)))
    pictures = [v for k, v in parse(page).attributes if k == "src"]
    assert 10 <= len(pictures) <= 40
    assert all(v.startswith("data:image/jpeg;base64,/9j/") for v in pictures)
    assert 'class="wave"' in page
    assert len(page) < 600_000
    assert "<img" not in render(timeline) and 'class="wave"' not in render(timeline)


def test_a_clip_that_cannot_be_decoded_is_said_and_the_answers_stay(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a clip")
    words = said(render(replace(conversation(), clip=str(broken))))
    assert "No pictures and no sound" in words and "Transcript" in words


def test_slots_are_means_over_time_and_gaps_are_gaps():
    p, q = {"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0}
    view = {"audio": ModalityView(True, 0.5, p)}
    rows = [
        Segment(0, 2, None, "a", p, view),
        Segment(1, 3, None, "b", q, view),
        Segment(4, 5, None, None, {}, {"audio": ModalityView(False, 0.0, {})}, None, "silence"),
    ]
    found = slots(Timeline("t.mp4", 6.0, "run", ("a", "b"), rows))
    assert found.edges.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert found.analysed.tolist() == [True, True, True, False, True, False]
    assert found.fused.known.tolist() == [True, True, True, False, False, False]
    np.testing.assert_allclose(found.fused.probabilities[:3], [[1, 0], [0.5, 0.5], [0, 1]], atol=1e-9)
    np.testing.assert_allclose(found.modalities["audio"].coverage, [0.5, 0.5, 0.5, 0, 0, 0], atol=1e-9)
    coarse = slots(Timeline("t.mp4", 6.0, "run", ("a", "b"), rows), most=2)
    np.testing.assert_allclose(coarse.fused.probabilities[0], [0.5, 0.5], atol=1e-9)


def test_an_absent_modality_stays_absent_beside_its_neighbour():
    p, cut = {"a": 1.0}, 3.6328123456789
    there, gone = {"vision": ModalityView(True, 1.0, p)}, {"vision": ModalityView(False, 0.0, {})}
    rows = [Segment(0, cut, None, "a", p, there), Segment(cut, 2 * cut, None, "a", p, gone)]
    found = slots(Timeline("t.mp4", 2 * cut, "run", ("a",), rows))
    assert found.modalities["vision"].known.tolist() == [True, False]
    assert 'class="cover"' in render(Timeline("t.mp4", 2 * cut, "run", ("a",), rows))


def test_what_an_answer_rested_on_is_shown_where_it_is_known_and_only_there():
    timeline = conversation()
    plain = render(timeline)
    assert 'class="lane rests"' not in plain and 'class="readout why"' not in plain
    rested = [replace(timeline.segments[0], context=[Context(3, 0.25), Context(1, 0.0123)]), *timeline.segments[1:]]
    page = render(replace(timeline, segments=rested))
    assert 'class="lane rests"' in page and 'class="readout why"' in page
    found = parse(page)
    assert json.loads(found.scripts[0])["segments"][0]["c"] == [[3, 250], [1, 12]]
    assert all("c" not in s for s in json.loads(found.scripts[0])["segments"][1:])
    assert page.count("<tr>") - page.count("<thead>") == len(timeline)  # the script needs a row per segment, in order
    assert page.index("Transcript") < page.index('id="data"')  # and on their being there


def test_two_speakers_have_a_lane_each():
    page = render(conversation())
    assert "<bdi>Ann</bdi>" in page and "<bdi>Bo</bdi>" in page
    assert page.count("speaks ") >= 4


@pytest.mark.parametrize("count", [1, 3, 25])
def test_any_label_space_is_drawn(count):
    labels = tuple(f"class {i}" for i in range(count))
    found = parse(render(conversation(labels=labels)))
    assert sum(v == "lane odds" for _, v in found.attributes) <= 9


def test_emotions_have_their_own_colours_in_both_themes():
    known = list(EMOTIONS)[:14]
    assert len(set(emotion_colours(known).values())) == 14
    assert emotion_colours(["joy"])["joy"] == EMOTIONS["happy"]
    assert len(set(emotion_colours([f"x{i}" for i in range(10)]).values())) == 10
    for colour in emotion_colours(LABELS).values():
        assert contrast(colour, DARK["surface"]) > 2.5
        assert contrast(colour, LIGHT["surface"]) > 1.5


def test_to_html_writes_what_it_returns(tmp_path):
    page = hostile().to_html(tmp_path / "t.html")
    assert (tmp_path / "t.html").read_text(encoding="utf-8") == page


def test_tenths_of_a_second_leave_each_other_room_on_a_phone():
    """212 px of axis at 390 px of page, where every second time is shown: "0:00.4" takes 45 px with its margin."""
    for total in (0.4, 1.0, 1.6, 2.0, 3.5, 5.9, 7.9):
        marks = re.findall(r'<span class="([^"]*)" style="left:[\d.]+%">', axis(total, 600))
        shown = [style for style in marks if "odd" not in style]
        assert len(shown) * 45 <= 212, total
