from __future__ import annotations

import pytest

from affuse.core.errors import BadMedia, MissingFile
from affuse.media.subtitles import Caption, read_subtitles, sidecar

SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Hello</i> {\\an8}there,
MONICA said.

2
0:01:02.5 --> 01:02,750
- MAN 2: it's 10:30 &amp; late

3
00:02:00,000 --> 00:02:01,000
[SPEAKER_01]: really?
Note: no.
"""

VTT = """WEBVTT - a title

STYLE
::cue { color: red }

NOTE a comment

intro
00:01.000 --> 00:02.000 align:start position:10%
<v.loud Ann Lee>Hi <00:01.500><b>you</b></v>

01:00:00.000 --> 01:00:01.000
plain
"""


def written(tmp_path, name: str, data: str | bytes):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_srt(tmp_path):
    assert read_subtitles(written(tmp_path, "a.srt", SRT)) == [
        Caption(1.0, 2.5, "Hello there, MONICA said."),
        Caption(62.5, 62.75, "it's 10:30 & late", "MAN 2"),
        Caption(120.0, 121.0, "really? Note: no.", "SPEAKER_01"),
    ]


def test_vtt(tmp_path):
    assert read_subtitles(written(tmp_path, "a.vtt", VTT)) == [
        Caption(1.0, 2.0, "Hi you", "Ann Lee"),
        Caption(3600.0, 3601.0, "plain"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        SRT.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + SRT.encode(),
        SRT.encode("utf-16"),
        SRT.replace("\n", "\r").encode(),
        SRT.replace("\n\n", "\n \n").encode(),
    ],
)
def test_line_ends_and_marks_do_not_matter(tmp_path, data):
    assert read_subtitles(written(tmp_path, "b.srt", data)) == read_subtitles(written(tmp_path, "a.srt", SRT))


def test_windows_encoding(tmp_path):
    data = "1\n00:00:01,000 --> 00:00:02,000\ncafé – “naïve”\n".encode("cp1252")
    assert read_subtitles(written(tmp_path, "a.srt", data))[0].text == "café – “naïve”"


def cues(*rows: tuple[float, float, str]) -> str:
    def clock(t: float) -> str:
        return f"00:00:{int(t):02d},{round(t % 1 * 1000):03d}"

    return "\n\n".join(f"{i}\n{clock(a)} --> {clock(b)}\n{text}" for i, (a, b, text) in enumerate(rows))


def test_wrong_times_are_repaired_and_said(tmp_path, caplog):
    rows = [(5, 6, "later"), (1, 3, "first"), (2, 4, "second"), (9, 8, "back"), (7, 7, "nothing"), (5, 5.5, "twin")]
    captions = read_subtitles(written(tmp_path, "a.srt", cues(*rows)))
    assert captions == [Caption(1, 2, "first"), Caption(2, 4, "second"), Caption(5, 6, "later twin")]
    assert "2 cues without duration dropped, 2 overlapping" in caplog.text


def test_two_speakers_may_talk_at_once(tmp_path):
    captions = read_subtitles(written(tmp_path, "a.srt", cues((1, 3, "ANN: one"), (2, 4, "BEN: two"))))
    assert [(c.start, c.end, c.speaker) for c in captions] == [(1, 3, "ANN"), (2, 4, "BEN")]


def test_files_without_cues(tmp_path):
    assert read_subtitles(written(tmp_path, "a.srt", "")) == []
    assert read_subtitles(written(tmp_path, "a.vtt", "WEBVTT\n")) == []
    for name, data in (("b.srt", b"just some words"), ("c.srt", bytes(range(256)) * 4)):
        with pytest.raises(BadMedia, match=name):
            read_subtitles(written(tmp_path, name, data))
    with pytest.raises(MissingFile):
        read_subtitles(tmp_path / "none.srt")


def test_sidecar(tmp_path):
    clip = tmp_path / "talk [1].mp4"
    assert sidecar(clip) is None
    tagged = written(tmp_path, "talk [1].en.srt", SRT)
    written(tmp_path, "talk [1] other.srt", SRT)
    assert sidecar(clip) == tagged
    assert sidecar(clip) != (exact := written(tmp_path, "talk [1].vtt", VTT)) or exact
    assert sidecar(clip) == exact
