from __future__ import annotations

import csv
import os
import shutil
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
