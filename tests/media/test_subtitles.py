from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from affuse.core.errors import BadMedia, MissingFile
from affuse.media.subtitles import Caption, find_captions, read_embedded, read_subtitles, sidecar

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


def test_turns_of_two_speakers_are_separated(tmp_path):
    rows = [(1, 5, "ANN: one"), (2, 3, "BEN: two"), (4, 6, "ANN: three")]
    captions = read_subtitles(written(tmp_path, "a.srt", cues(*rows)))
    assert [(c.start, c.end, c.speaker) for c in captions] == [(1, 4, "ANN"), (2, 3, "BEN"), (4, 6, "ANN")]


def test_cues_outside_the_clip_are_dropped_and_counted(tmp_path, caplog):
    rows = cues((1, 3, "in"), (8, 12, "beyond the end"), (10, 11, "after"), (30, 40, "long after"), (9, 8, "back"))
    early = "7\n-00:00:02,000 --> 00:00:00,500\nfrom the start\n\n8\n-00:00:02,000 --> -00:00:01,000\nbefore\n\n"
    path = written(tmp_path, "a.srt", early + rows)
    captions = read_subtitles(path, duration=10.0)
    assert captions == [Caption(0, 0.5, "from the start"), Caption(1, 3, "in"), Caption(8, 10, "beyond the end")]
    assert "1 cues without duration dropped, 0 overlapping ones cut or joined, 3 outside the clip" in caplog.text


@pytest.mark.parametrize("rows", [[(9, 8, "back"), (7, 7, "nothing")], [(20, 21, "another film")]])
def test_a_file_without_a_usable_cue_is_an_error_that_names_it(tmp_path, rows):
    with pytest.raises(BadMedia, match=r"none of the \d cues of .*a\.srt"):
        read_subtitles(written(tmp_path, "a.srt", cues(*rows)), duration=10.0)


def text(words: str) -> bytes:
    return words.encode()


def counted(words: str) -> bytes:
    return len(words.encode()).to_bytes(2) + words.encode()


def event(words: str) -> bytes:
    return f"0,0,Default,Ann Lee,0,0,0,,{words}".encode()


Cue = tuple[float, float, bytes]


def subtitled(
    path: Path,
    *tracks: tuple[str, list[Cue]],
    default: int | None = None,
    delay: float = 0.0,
    metadata: Sequence[dict[str, str]] = (),
) -> Path:
    """Ten seconds of sound and subtitle streams of ready-made packets, everything `delay` s into the file's time."""
    base = Fraction(1, 1000)
    with av.open(str(path), "w") as file:
        sound = file.add_stream("pcm_s16le" if path.suffix == ".mkv" else "aac", rate=16000, layout="mono")
        streams = [file.add_mux_stream(codec) for codec, _ in tracks]
        for i, stream in enumerate(streams):
            stream.time_base = base
            stream.metadata.update(metadata[i] if metadata else {})
            if default is not None:
                stream.disposition = av.stream.Disposition.default if i == default else av.stream.Disposition(0)
        silence = np.zeros((1, 160000), np.int16 if path.suffix == ".mkv" else np.float32)
        frame = av.AudioFrame.from_ndarray(silence, "s16" if path.suffix == ".mkv" else "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, round(delay * 16000), Fraction(1, 16000)
        for packet in (*sound.encode(frame), *sound.encode(None)):
            file.mux(packet)
        for stream, (_, rows) in zip(streams, tracks, strict=True):
            for start, end, data in rows:
                packet = av.Packet(data)
                packet.pts = packet.dts = round((start + delay) * 1000)
                packet.duration, packet.time_base, packet.stream = round((end - start) * 1000), base, stream
                file.mux(packet)
    return path


@pytest.mark.parametrize(
    ("name", "codec", "wrap", "first", "speaker"),
    [
        ("a.mkv", "subrip", text, "<i>Hello</i> {\\an8}there", None),
        ("a.mkv", "webvtt", text, "<v Ann Lee>Hello <b>there</b></v>", "Ann Lee"),
        ("a.mkv", "ass", event, "{\\i1}Hello{\\i0}\\N{a note}there", "Ann Lee"),
        ("a.mp4", "mov_text", counted, "<i>Hello</i>\nthere", None),
        ("a.mov", "mov_text", counted, "ANN LEE: Hello there", "ANN LEE"),
    ],
)
def test_embedded(tmp_path, name: str, codec: str, wrap: Callable[[str], bytes], first: str, speaker: str | None):
    rows = [(1.0, 2.5, wrap(first)), (4.0, 6.0, wrap("MAN 2: über & out"))]
    captions = read_embedded(subtitled(tmp_path / name, (codec, rows)))
    assert captions[0] == Caption(1.0, 2.5, "Hello there", speaker)
    assert (captions[1].start, captions[1].end) == (4.0, 6.0)
    assert captions[1].text.endswith("über & out")
    assert len(captions) == 2


def test_drawings_and_damaged_events_are_no_words(tmp_path):
    rows = [(1, 2, event("{\\p1}m 0 0 l 10 10{\\p0}")), (3, 4, b"no fields"), (5, 6, event("words, with a comma"))]
    captions = read_embedded(subtitled(tmp_path / "a.mkv", ("ass", rows)))
    assert captions == [Caption(5, 6, "words, with a comma", "Ann Lee")]


def test_the_default_text_stream_is_taken(tmp_path):
    tracks = [("subrip", [(1.0, 2.0, text(words))]) for words in ("first", "second")]
    assert read_embedded(subtitled(tmp_path / "a.mkv", *tracks))[0].text == "first"
    assert read_embedded(subtitled(tmp_path / "b.mkv", *tracks, default=1))[0].text == "second"


def test_embedded_times_are_on_the_clips_clock(tmp_path):
    path = subtitled(tmp_path / "a.mkv", ("subrip", [(1.0, 2.0, text("hi"))]), delay=5.0)
    assert read_embedded(path) == [Caption(1.0, 2.0, "hi")]


def test_captions_come_from_the_given_file_then_the_sidecar_then_the_stream(tmp_path, talk):
    rows = [(1.0, 2.0, text("inside")), (12.0, 13.0, text("after the end")), (14.0, 15.0, text("long after"))]
    clip = subtitled(tmp_path / "a.mkv", ("subrip", rows))
    inside = find_captions(clip)
    assert [c.text for c in inside.captions] == ["inside"]
    assert inside.dropped == 2
    assert "subtitle stream 1" in inside.source
    beside = written(tmp_path, "a.srt", cues((1, 2, "beside"), (1.5, 3, "next")))
    assert [c.text for c in find_captions(clip).captions] == ["beside", "next"]
    assert (find_captions(clip).changed, find_captions(clip).source) == (1, str(beside))
    given = written(tmp_path, "other.vtt", VTT)
    assert [c.text for c in find_captions(clip, given).captions] == ["Hi you"]
    assert find_captions(clip, given).dropped == 1
    assert find_captions(talk).captions == []


def test_an_unusable_stream_is_counted_not_fatal(tmp_path):
    clip = subtitled(tmp_path / "a.mkv", ("subrip", [(11.0, 12.0, text("late"))]))
    assert (find_captions(clip).captions, find_captions(clip).dropped) == ([], 1)
    assert read_embedded(clip) == []


@pytest.fixture
def clip(tmp_path: Path, talk: Path) -> Path:
    """4 s of picture and sound named talk.mp4, with nothing beside it."""
    return Path(shutil.copy(talk, tmp_path / "talk.mp4"))


def beside(clip: Path, *names: str) -> None:
    for name in names:
        clip.with_name(name).write_text(cues((1, 2, name)))


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["talk.2.srt"], None),
        (["talk.final.srt"], None),
        (["talk.part2.en.srt"], None),
        (["talk.emotion.vtt"], None),
        (["talk.srt", "talk.emotion.vtt"], "talk.srt"),
        (["talk.en.forced.srt"], None),
        (["talk.2.srt", "talk.eng.srt"], "talk.eng.srt"),
        (["talk.en-US.srt"], "talk.en-US.srt"),
        (["talk.German.srt"], "talk.German.srt"),
        (["talk.zh-Hans.srt"], "talk.zh-Hans.srt"),
        (["talk.mp4.srt"], "talk.mp4.srt"),
        (["TALK.SRT"], "TALK.SRT"),
        (["talk.DE.srt", "Talk.EN.Srt"], "Talk.EN.Srt"),
        (["talk.de.srt", "talk.en.srt", "talk.fr.srt"], "talk.en.srt"),
        (["talk.de.srt", "talk.und.srt"], "talk.und.srt"),
        (["talk.en.auto.srt", "talk.en.sdh.srt", "talk.pt-BR.srt"], "talk.en.sdh.srt"),
        (["talk.en.sdh.srt", "talk.en.srt"], "talk.en.srt"),
        (["talk.en.forced.srt", "talk.de.srt"], "talk.de.srt"),
        (["talk.en.srt", "talk.vtt"], "talk.vtt"),
    ],
)
def test_which_sidecar_is_taken(clip: Path, names: list[str], taken: str | None):
    beside(clip, *names)
    assert sidecar(clip) == (taken and clip.with_name(taken))
    assert [c.text for c in find_captions(clip).captions] == ([taken] if taken else [])
    notes = " ".join(find_captions(clip).notes)
    assert [name for name in names if name not in notes and name not in (taken, "talk.emotion.vtt")] == []


def test_a_sidecar_belongs_to_the_clip_with_the_longest_name(clip: Path):
    for other in ("talk.2.mp4", "talk.en.mkv", "Talk.mp4", "talk.wav"):
        clip.with_name(other).touch()
    beside(clip, "talk.2.srt", "talk.en.srt", "talk.en.sdh.srt", "talk.2.emotion.vtt")
    assert sidecar(clip) is None
    assert find_captions(clip).notes == [
        "captions: not taken: talk.2.srt (it belongs to talk.2.mp4); talk.en.sdh.srt (it belongs to talk.en.mkv); "
        "talk.en.srt (it belongs to talk.en.mkv)"
    ]
    assert sidecar(clip.with_name("talk.2.mp4")) == clip.with_name("talk.2.srt")
    assert sidecar(clip.with_name("talk.en.mkv")) == clip.with_name("talk.en.srt")
    beside(clip, "talk.srt", "Talk.de.srt")
    assert sidecar(clip) == sidecar(clip.with_name("talk.wav")) == clip.with_name("talk.srt")
    assert sidecar(clip.with_name("Talk.mp4")) == clip.with_name("Talk.de.srt")


def test_a_sidecar_of_either_of_two_clips_is_taken_by_none(clip: Path):
    clip.with_name("Talk.mp4").touch()
    beside(clip, "TALK.srt")
    assert sidecar(clip) is None
    assert "may belong to" in find_captions(clip).notes[0]


def test_the_language_asked_for_comes_first_and_a_note_says_which(clip: Path):
    beside(clip, "talk.de.srt", "talk.en.srt", "talk.3.srt", "talk.ass")
    assert find_captions(clip).notes == [
        "captions: talk.en.srt is taken, not talk.de.srt",
        "captions: not taken: talk.3.srt (3 is no language); talk.ass (.ass is not read: save it as .srt or .vtt)",
    ]
    assert find_captions(clip, language="de").captions[0].text == "talk.de.srt"
    assert find_captions(clip, clip.with_name("talk.de.srt")).notes == []


@pytest.mark.parametrize(
    ("metadata", "taken"),
    [
        ([{"language": "ger"}, {"language": "eng"}], "second"),
        ([{"language": "eng", "title": "Deutsch"}, {"language": "eng", "title": "English [SDH]"}], "second"),
        ([{"language": "ger"}, {"language": "und"}], "second"),
        ([{"language": "eng", "title": "Signs & Songs"}, {"language": "eng"}], "second"),
        ([{"language": "fre"}, {"language": "ger"}], "first"),
    ],
)
def test_which_stream_is_taken(tmp_path: Path, metadata: list[dict[str, str]], taken: str):
    tracks = [("subrip", [(1.0, 2.0, text(words))]) for words in ("first", "second")]
    path = subtitled(tmp_path / "a.mkv", *tracks, metadata=metadata, default=0)
    words = find_captions(path)
    assert words.captions[0].text == read_embedded(path)[0].text == taken
    assert f"subtitle stream {1 if taken == 'second' else 2}" in words.notes[0]


def test_a_stream_in_the_language_comes_before_a_file_in_another(tmp_path: Path):
    path = subtitled(tmp_path / "talk.mkv", ("subrip", [(1.0, 2.0, text("inside"))]), metadata=[{"language": "eng"}])
    beside(path, "talk.de.srt")
    assert [c.text for c in find_captions(path).captions] == ["inside"]
    assert find_captions(path).notes == ["captions: subtitle stream 1 (en) is taken, not talk.de.srt"]
    beside(path, "talk.en.srt")
    assert [c.text for c in find_captions(path).captions] == ["talk.en.srt"]


def test_rolling_captions_inside_a_clip(tmp_path: Path):
    said = ["Hello there", "Hello there\nmy friend", "my friend\nand you"]
    rows = [(float(k), k + 1.0, text(words)) for k, words in enumerate(said)]
    words = find_captions(subtitled(tmp_path / "a.mkv", ("subrip", rows)))
    assert words.captions == [Caption(0, 1, "Hello there"), Caption(1, 2, "my friend"), Caption(2, 3, "and you")]
    assert words.notes == [f"{words.source}: 2 repeated lines of rolling captions are taken once"]


@pytest.mark.parametrize("encoding", ["cp1251", "shift_jis", "gb18030", "utf-16-le"])
def test_a_guessed_encoding_is_noted(clip: Path, encoding: str):
    sentences = {"cp1251": "Привет, как дела?", "shift_jis": "今日はとても嬉しいです。", "gb18030": "我今天非常高兴。"}
    said = sentences.get(encoding, "Hello")
    clip.with_name("talk.srt").write_bytes(cues((1, 2, said)).encode(encoding))
    words = find_captions(clip)
    assert [c.text for c in words.captions] == [said]
    assert "read as" in words.notes[0]


def test_an_embedded_guess_is_made_for_the_stream_as_a_whole(tmp_path: Path):
    rows = [(1.0, 2.0, "Привет, как дела?".encode("cp1251")), (3.0, 4.0, "Да".encode("cp1251"))]
    words = find_captions(subtitled(tmp_path / "a.mkv", ("subrip", rows)))
    assert [c.text for c in words.captions] == ["Привет, как дела?", "Да"]
    assert "read as cp1251" in words.notes[0]


def test_what_was_lost_of_a_file_is_said(clip: Path):
    clip.with_name("talk.srt").write_text("by Ann\n\n" + cues((1, 2, "Hi")) + "\n\n2\n00:00:x --> 00:00:03,000\nlost\n")
    words = find_captions(clip)
    assert [c.text for c in words.captions] == ["Hi"]
    assert words.notes == [
        f"{words.source}: 1 cue could not be read, e.g. line 8: 00:00:x --> 00:00:03,000",
        f"{words.source}: 1 line of text outside any cue, e.g. line 1: by Ann",
    ]


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("F06_blank_after_timing.srt", ["Hello there.", "I am so happy today."]),
        ("F06_crcrlf.srt", ["Hello there.", "I am so happy today."]),
        ("F06_one_bad_arrow.srt", ["Hello there.", "I am so happy today."]),
        ("F07_youtube_rolling.vtt", ["Maria, was the train late", "again or did you", "walk home"]),
        ("F11_no_blank_line.srt", ["Hello there.", "I am so happy today."]),
    ],
)
def test_odd_files(shared_data: Path, name: str, right: list[str]):
    assert [c.text for c in read_subtitles(shared_data / "odd_inputs" / name)] == right


def test_odd_sidecars(shared_data: Path):
    folder = shared_data / "odd_inputs"
    assert find_captions(folder / "F02_sidecar" / "talk.mp4").captions == []
    assert find_captions(folder / "F02_sidecar" / "talk.2.mp4").captions[0].text == "These words belong to part two."
    english = find_captions(folder / "F10_lang" / "talk.mp4")
    assert english.captions[0].text == "I am so happy and glad to see you today."
