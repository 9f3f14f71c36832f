from __future__ import annotations

import pytest

from affuse.media.cues import Cue, read_cues, unrolled

ONE, TWO, THREE = (f"00:00:0{i},000 --> 00:00:0{i + 1},000" for i in (1, 3, 5))


def words(text: str, vtt: bool = False) -> list[str]:
    return [" ".join(cue.lines) for cue in read_cues(text, vtt)[0]]


@pytest.mark.parametrize(
    ("timing", "start", "end"),
    [
        ("00:00:01,000 -> 00:00:02,000", 1, 2),
        ("00:00:01,000 => 00:00:02,000", 1, 2),
        ("00:00:01,000 \u2014> 00:00:02,000", 1, 2),
        ("00:00:01,000 \u2014 00:00:02,000", 1, 2),
        ("00:00:01,000 \u2192 00:00:02,000", 1, 2),
        ("00:00:01,000 --&gt; 00:00:02,000", 1, 2),
        ("00:00:01,000 - -> 00:00:02,000", 1, 2),
        ("00:00:01,000 00:00:02,000", 1, 2),
        ("00:00:01,000-->00:00:02,000", 1, 2),
        ("00:00:01.25 --> 00:00:02:5", 1.25, 2.2),
        ("00:00:01:250 --> 00:00:02,5", 1.25, 2.5),
        ("00:00:01 --> 00:02", 1, 2),
        ("100:00:01,000 --> 101:00:00,000", 360001, 363600),
        ("00:00:01, 000 --> 00: 00 :02 ,000", 1, 2),
        ("00:00:01 500 --> 00:00:02 000", 1.5, 2),
        ("00.00.01,000 --> 00.00.02.000", 1, 2),
        ("00\uff1a00\uff1a01\uff0c000 --> 00\uff1a00\uff1a02\uff0c000", 1, 2),
        ("\u221200:00:01,000 --> 00:00:02,000", -1, 2),
        ("\ufeff00:00:01,000 --> \u200e00:00:02,000", 1, 2),
        ("00:00:01,000 --> 00:00:02,000 X1:100 X2:200 Y1:050 Y2:060", 1, 2),
        ("00:00:01,000 --> 00:00:02,000 align:start position:0%", 1, 2),
        ("1 00:00:01,000 --> 00:00:02,000", 1, 2),
    ],
)
def test_a_timing_line_however_it_is_written(timing: str, start: float, end: float):
    cues, _ = read_cues(f"1\n{timing}\nHello there.\n\n2\n{TWO}\nI am so happy.\n")
    assert cues[0] == Cue(pytest.approx(start), pytest.approx(end), ("Hello there.",))
    assert cues[1] == Cue(3, 4, ("I am so happy.",))


def test_words_on_the_timing_line_are_words():
    found = words("[00:01.000 --> 00:02.000]  Hello there.\n[00:03.000 --> 00:04.000]  I am happy.")
    assert found == ["Hello there.", "I am happy."]


def test_times_in_frames_are_read_and_said():
    cues, notes = read_cues("00:00:01:12 --> 00:00:02:24\nHello\n")
    assert (cues[0].start, cues[0].end) == (1.48, 2.96)
    assert notes == ["times in frames read as 25 per second"]
    assert read_cues("00:00:01;15 --> 00:00:02;28\nHello\n")[0][0].start == 1.5


def test_times_of_day_among_the_words_are_words():
    found = words(f"1\n{ONE}\nopen 10:30 - 11:45\n\n2\n{TWO}\n10:30 -> 11:45 is fine\n")
    assert found == ["open 10:30 - 11:45", "10:30 -> 11:45 is fine"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n", "\u2028"])
def test_line_ends(end: str):
    assert words(f"1\n{ONE}\nHello\nthere.\n\n2\n{TWO}\nHi\n".replace("\n", end)) == ["Hello there.", "Hi"]


def test_blank_lines_do_not_end_a_cue():
    assert words(f"1\n{ONE}\n\nHello\n\nthere.\n\n2\n{TWO}\n \n\nHi\n") == ["Hello there.", "Hi"]
    double = f"1\n{ONE}\nHello\nthere.\n\n2\n{TWO}\n2\n\n3\n{THREE}\nHi\n".replace("\n", "\n\n")
    assert words(double) == ["Hello there.", "2", "Hi"]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (f"1\n{ONE}\nHello there.\n2\n{TWO}\nHi\n3\n{THREE}\nyou", ["Hello there.", "Hi", "you"]),
        (f"{ONE}\nHello there.\n2\n{TWO}\nHi\n3\n{THREE}\nyou", ["Hello there.", "Hi", "you"]),
        (f"1\n{ONE}\nHello\n\n2\n\n{TWO}\nHi\n\n3\n{THREE}\nyou", ["Hello", "Hi", "you"]),
        (f"1\n{ONE}\n2\n\n2\n{TWO}\n3\n\n3\n{THREE}\n7", ["2", "3", "7"]),
        (f"1\n{ONE}\n2\n2\n{TWO}\n3\n3\n{THREE}\n7", ["2", "3", "7"]),
        (f"1\n{ONE}\nonly\n2\n\n2\n{TWO}\nHi", ["only 2", "Hi"]),
        (f"{ONE}\n3\n\n{TWO}\n2\n\n{THREE}\n1", ["3", "2", "1"]),
        (f"{ONE}\n3\n{TWO}\n2\n{THREE}\n1", ["3", "2", "1"]),
        (f"1\n{ONE}\n2\n\n{TWO}\nHi\n\n3\n{THREE}\nyou", ["2", "Hi", "you"]),
        (f"{ONE}\nHello\n{TWO}\nHi", ["Hello", "Hi"]),
    ],
)
def test_the_number_of_a_cue_is_no_words_but_words_may_be_a_number(text: str, right: list[str]):
    assert words(text) == right


def test_blocks_and_names_of_webvtt_are_no_words():
    text = (
        "WEBVTT - title\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:900000\nKind: captions\n\n"
        "STYLE\n::cue { color: red }\n\nREGION\nid:fred\n\nNOTE\na comment\nof two lines\n\n"
        f"intro\n{ONE} region:fred\nHello\n\nNOTE later\n\nsecond\n{TWO}\nHi\n\n"
        f"WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:900000\n\n{THREE}\nyou\n\nNOTE the end\n"
    )
    assert words(text) == ["Hello", "Hi", "you"]
    assert read_cues(text)[1] == []


@pytest.mark.parametrize("bad", ["00:00:0l,000 --> 00:00:02,000", "00:00:01,000", "--> 00:00:02,000", "00:00:01 --> ?"])
def test_what_cannot_be_read_is_counted(bad: str):
    cues, notes = read_cues(f"Subtitles by Ann\n\n1\n{bad}\nlost\n\n2\n{TWO}\nHi\n\n3\n{bad}\nlost\n")
    assert [cue.lines for cue in cues] == [("Hi",)]
    assert notes == [
        f"2 cues could not be read, e.g. line 4: {bad}",
        "1 line of text outside any cue, e.g. line 1: Subtitles by Ann",
    ]


def cues(*rows: tuple[float, float, str]) -> list[Cue]:
    return [Cue(start, end, tuple(lines.split("/"))) for start, end, lines in rows]


@pytest.mark.parametrize(
    ("rolling", "right"),
    [
        (  # two rows, the upper one from the cue before, with cues that hold it
            cues((0, 1, "A b"), (1, 1.01, "A b"), (1.01, 2, "A b/C d"), (2, 2.01, "C d"), (2.01, 3, "C d/E f")),
            cues((0, 1, "A b"), (1.01, 2, "C d"), (2.01, 3, "E f")),
        ),
        (  # three rows
            cues((0, 1, "a/b/c"), (1, 2, "b/c/d"), (2, 3, "c/d/e")),
            cues((0, 1, "a/b/c"), (1, 2, "d"), (2, 3, "e")),
        ),
        (  # painted word by word
            cues((0, 0.3, "I"), (0.3, 0.6, "I am"), (0.6, 2, "I am so happy"), (3, 4, "Bye")),
            cues((0, 2, "I am so happy"), (3, 4, "Bye")),
        ),
        (  # the lower row is painted, then rolls up
            cues((0, 1, "A b"), (1, 1.5, "A b/C"), (1.5, 2, "A b/C d"), (2, 3, "C d/E")),
            cues((0, 1, "A b"), (1, 2, "C d"), (2, 3, "E")),
        ),
        (  # a real repetition among rolling captions
            cues((0, 1, "well"), (1, 2, "well/no"), (2, 2.01, "no"), (2.01, 3, "no/no"), (3, 4, "no/never")),
            cues((0, 1, "well"), (1, 2, "no"), (2.01, 3, "no"), (3, 4, "never")),
        ),
        (cues((0, 1, "a"), (0, 1, "a"), (1, 2, "b"), (1, 2, "b")), cues((0, 1, "a"), (1, 2, "b"))),
        (  # one short hold among the cues of a dialogue
            cues((0, 1, "a"), (1, 2, "b"), (2, 2.05, "b"), (3, 4, "c"), (5, 6, "d"), (7, 8, "e"), (8, 9, "f")),
            cues((0, 1, "a"), (1, 2, "b"), (3, 4, "c"), (5, 6, "d"), (7, 8, "e"), (8, 9, "f")),
        ),
        (
            cues((0, 1, "I really do love you"), (1, 2, "I really do love you/so much")),
            cues((0, 1, "I really do love you"), (1, 2, "so much")),
        ),
    ],
)
def test_rolling_captions_give_each_line_once(rolling: list[Cue], right: list[Cue]):
    found, left_out = unrolled(rolling)
    assert found == right
    assert left_out == sum(len(c.lines) for c in rolling) - sum(len(c.lines) for c in right)


@pytest.mark.parametrize(
    "rows",
    [
        cues((1, 2, "No."), (2, 3, "No."), (3, 4, "Why?")),
        cues((1, 2, "We will rock you"), (2.5, 3, "We will rock you")),
        cues((0, 1, "I want to break free"), (1, 2, "I want to break free")),
        cues((0, 1, "No."), (1, 2, "No./Never."), (2, 3, "What?"), (3, 4, "I said"), (4, 5, "never"), (6, 7, "ever")),
    ],
)
def test_what_people_say_twice_is_kept(rows: list[Cue]):
    assert unrolled(rows) == (rows, 0)
