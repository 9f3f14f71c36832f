from __future__ import annotations

import csv
import os
import re
import shutil
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from affuse.core.errors import BadMedia, MissingFile
from affuse.media.audio import read_audio
from affuse.media.probe import probe
from affuse.media.video import iter_frames
from affuse.media.write import write_clip


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open() as file:
        return [row for row in csv.DictReader(file) if (folder / row["file"]).exists()]


def test_every_real_clip_is_described_as_its_label_says(clips):
    found = rows(clips)
    assert len(found) == 22
    for row in found:
        info = probe(clips / row["file"])
        assert info.video is not None
        assert (info.video.width, info.video.height) == (int(row["width"]), int(row["height"])), row["file"]
        assert info.video.frames == int(row["frames"]), row["file"]
        assert info.video.end - info.video.start == pytest.approx(float(row["duration_s"]), abs=0.09), row["file"]
        assert info.video.fps == pytest.approx(float(row["fps"]), abs=0.01), row["file"]
        assert (info.audio is not None) == (row["has_audio"] == "1"), row["file"]
        assert info.duration >= max(t.end for t in (info.audio, info.video) if t) - 1e-9


def test_grid_lasts_three_seconds_though_its_header_says_less(clips):
    for path in sorted(clips.glob("grid*.mpg")):
        assert probe(path).duration == pytest.approx(3.0, abs=1e-6)


def test_zero_is_the_earliest_stream(clips):
    info = probe(clips / "facerec__short_hamilton_clip.mp4")
    assert info.audio.start == 0.0
    assert info.video.start == pytest.approx(0.844, abs=0.002)
    assert probe(clips / "pyfeat__face_noface.mov").audio.start == pytest.approx(2.43, abs=0.01)


def test_probe_notices_a_changed_file(tmp_path, make):
    path = tmp_path / "a.mp4"
    write_clip(path, make("numbered", 10), 25)
    assert probe(path).video.frames == 10
    write_clip(path, make("numbered", 20), 25)
    assert probe(path).video.frames == 20


def test_what_is_not_there_is_a_missing_file(tmp_path):
    for path in (tmp_path / "none.mp4", tmp_path):
        with pytest.raises(MissingFile, match=str(path)):
            probe(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.mp4", b""),
        ("garbage.mp4", np.random.default_rng(0).bytes(20000)),
        ("zeros.mp4", bytes(20000)),
        ("text.txt", b"hello world\n" * 200),
        ("talk.srt", b"1\n00:00:01,000 --> 00:00:02,000\nhi\n"),
        ("list.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://localhost:9/y.ts\n"),
        ("list.txt", b"ffconcat version 1.0\nfile /etc/hostname\n"),
    ],
)
def test_what_is_no_clip_is_refused_by_name(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadMedia, match=name) as caught:
        probe(path)
    assert caught.value.remedy


def test_a_still_picture_and_a_clip_without_index_are_refused(tmp_path, talk):
    av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24").save(str(tmp_path / "still.png"))
    data = talk.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    for name in ("still.png", "cut.mp4"):
        with pytest.raises(BadMedia, match=name):
            probe(tmp_path / name)


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9.mp4"), "a:b.mp4", "ü 100%d.mp4", "wrong.txt", "no_extension"])
def test_names_and_extensions_do_not_matter(tmp_path, talk, name):
    path = tmp_path / name
    try:
        shutil.copy(talk, path)
    except (OSError, UnicodeError):
        pytest.skip("this file system refuses the name")
    assert probe(path).video.frames == 100
    assert len(list(iter_frames(path, 5, size=16))) == 20
    assert read_audio(path).coverage == 1.0


def test_a_sound_file_has_no_picture_even_with_a_cover(tmp_path, make):
    path = tmp_path / "song.m4a"
    write_clip(path, None, audio=make("tone", 1.0))
    assert probe(path).video is None
    assert probe(path).duration == pytest.approx(1.0, abs=0.001)
    cover = tmp_path / "song.mkv"
    with av.open(str(path)) as old, av.open(str(cover), "w", format="matroska") as new:
        image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        image.save(str(tmp_path / "c.png"))
        new.add_attachment("cover.png", "image/png", (tmp_path / "c.png").read_bytes())
        stream = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    assert probe(cover).video is None
    assert list(iter_frames(cover)) == []


def cut(source: Path, target: Path, share: float) -> Path:
    """The first bytes of a file."""
    data = source.read_bytes()
    target.write_bytes(data[: round(len(data) * share)])
    return target


@pytest.fixture(scope="module")
def noisy(tmp_path_factory) -> Path:
    """4 s of picture and sound that take about the same number of bytes in every second."""
    path = tmp_path_factory.mktemp("noisy") / "a.mp4"
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (48, 64, 3), np.uint8)
    sound = rng.normal(scale=0.1, size=64000).astype(np.float32)
    write_clip(path, (np.roll(image, k, 1) for k in range(100)), 25, sound)
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.flv"])
def test_a_file_that_was_cut_off_says_where_it_ends(tmp_path, noisy, make, name):
    options = {"movflags": "faststart"} if name[-3:] in ("mp4", "mov") else {}
    whole = make("remux", noisy, tmp_path / name, options=options)
    assert probe(whole).notes == ()
    (note,) = probe(cut(whole, tmp_path / f"cut_{name}", 0.6)).notes
    both = r"the picture ends at (\S+) of (\S+) s and the sound ends at (\S+) of (\S+) s"
    ends = re.match(f"{both}: the file was cut off", note)
    assert ends, note
    picture, of_picture, sound, of_sound = map(float, ends.groups())
    assert picture == pytest.approx(2.4, abs=0.5)
    assert sound == pytest.approx(2.4, abs=0.5)
    assert (of_picture, of_sound) == (pytest.approx(4.0, abs=0.2), pytest.approx(4.0, abs=0.2))


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.aiff", "a.mka"])
def test_sound_that_was_cut_off_says_where_it_ends(tmp_path, name):
    codecs = {".wav": "pcm_s16le", ".flac": "flac", ".mp3": "libmp3lame", ".aiff": "pcm_s16be", ".mka": "pcm_s16le"}
    codec = codecs[Path(name).suffix]
    x = np.random.default_rng(0).normal(scale=3000, size=(1, 64000)).astype(np.int16)
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=16000, layout="mono")
        for at in range(0, 64000, 1600):
            frame = av.AudioFrame.from_ndarray(x[:, at : at + 1600].copy(), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, at, Fraction(1, 16000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert probe(tmp_path / name).notes == ()
    path = cut(tmp_path / name, tmp_path / f"cut_{name}", 0.5)
    (note,) = probe(path).notes
    assert re.match(r"the sound ends at (1\.9|2\.[01]) of (4\.[01]|3\.9) s: the file was cut off", note), note


def test_equal_tracks_of_a_file_that_was_cut_off_are_noted_once(tmp_path, noisy):
    path = tmp_path / "two.mkv"
    with av.open(str(noisy)) as old, av.open(str(path), "w") as new:
        twice = [new.add_stream_from_template(old.streams.audio[0]) for _ in range(2)]
        for packet in old.demux(audio=0):
            if packet.dts is not None:
                for stream in twice:
                    copy = av.Packet(bytes(packet))
                    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
                    copy.time_base, copy.stream = packet.time_base, stream
                    new.mux(copy)
    (note,) = probe(cut(path, tmp_path / "cut.mkv", 0.5)).notes
    assert note.count("the sound ends at") == 1


def test_a_track_of_which_nothing_is_left_is_missed(tmp_path, noisy):
    """Of an MP4 that stores all of its sound before the picture."""
    path = tmp_path / "apart.mp4"
    options = {"movflags": "faststart", "max_interleave_delta": "1"}
    with av.open(str(noisy)) as old, av.open(str(path), "w", options=options) as new:
        streams = {s.index: new.add_stream_from_template(s) for s in old.streams}
        for packet in sorted((p for p in old.demux() if p.dts is not None), key=lambda p: p.stream.index):
            packet.stream = streams[packet.stream.index]
            new.mux(packet)
    info = probe(cut(path, tmp_path / "cut.mp4", 0.2))
    assert info.video is None
    assert info.duration == pytest.approx(4.0, abs=0.1)
    both = r"the picture ends at 0\.0 of 4\.0 s and the sound ends at 0\.\d of 4\.0 s"
    assert re.match(f"{both}: the file", info.notes[0])


def test_a_wav_from_a_pipe_does_not_know_its_length(tmp_path):
    path = tmp_path / "pipe.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(np.zeros(32000, "<i2").tobytes())
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff" * 4
    path.write_bytes(data)
    assert probe(path).notes == ()
    assert probe(path).duration == pytest.approx(2.0)


def test_a_part_without_packets_is_noted(tmp_path, noisy):
    path = tmp_path / "hole.mkv"
    with av.open(str(noisy)) as old, av.open(str(path), "w") as new:
        streams = {s.index: new.add_stream_from_template(s) for s in old.streams}
        for packet in old.demux():
            if packet.dts is not None and not 1.0 <= packet.dts * packet.time_base < 2.5:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    assert [re.sub(r"\.\d", "", note) for note in probe(path).notes] == [
        "there is no picture in a part of the clip (at 1-2 s)",
        "there is no sound in a part of the clip (at 1-2 s)",
    ]


def test_real_clips_are_whole(clips):
    for row in rows(clips):
        assert probe(clips / row["file"]).notes == (), row["file"]


def test_a_cut_off_file_of_a_user(shared_data):
    info = probe(shared_data / "odd_inputs" / "F15_truncated.mp4")
    assert info.duration == pytest.approx(6.0)
    assert "the picture ends at 3.7 of 6.0 s and the sound ends at 3.2 of 6.0 s: the file was cut off" in info.notes[0]
    assert max(f.time for f in iter_frames(info.path, 5)) < 3.8
    assert not read_audio(info.path).valid[round(3.3 * 16000) :].any()


def test_all_sound_tracks_are_listed_the_default_one_first(tmp_path, make):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=16000, layout="mono") for _ in range(3)]
        streams[1].disposition = av.stream.Disposition.default
        streams[0].disposition = av.stream.Disposition.comment
        streams[2].disposition = av.stream.Disposition(0)
        streams[2].metadata["language"], streams[2].metadata["title"] = "deu", "Dub"
        for stream, seconds in zip(streams, (1, 2, 3), strict=True):
            frame = av.AudioFrame.from_ndarray(np.ones((1, 16000 * seconds), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
            container.mux([*stream.encode(frame), *stream.encode(None)])
    info = probe(path)
    assert [t.index for t in info.sounds] == [1, 2, 0]
    assert info.audio == info.sounds[0]
    assert info.sounds[1].name == "deu Dub"
    assert info.duration == pytest.approx(3.0, abs=0.01)


def test_an_empty_sound_track_is_none(tmp_path, noisy):
    path = tmp_path / "mute.mkv"
    with av.open(str(noisy)) as old, av.open(str(path), "w") as new:
        _, picture = (new.add_stream_from_template(s) for s in old.streams)
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = picture
                new.mux(packet)
    info = probe(path)
    assert (info.audio, info.sounds, info.notes) == (None, (), ())
    assert info.video.frames == 100
