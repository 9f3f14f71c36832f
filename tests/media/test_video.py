from __future__ import annotations

import csv
import re
import tracemalloc
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from affuse.core.errors import BadConfig, BadMedia
from affuse.media.probe import probe
from affuse.media.video import grid_steps, iter_frames
from affuse.media.write import write_clip


def test_every_frame_of_every_real_clip(clips):
    with (clips / "labels.csv").open() as file:
        expected = {row["file"]: int(row["frames"]) for row in csv.DictReader(file)}
    for name, count in expected.items():
        times = [f.time for f in iter_frames(clips / name, size=32)]
        assert len(times) == count, name
        assert (np.diff(times) > 0).all(), name


def test_grid_clips_have_75_points(clips):
    for path in sorted(clips.glob("grid*.mpg")):
        frames = list(iter_frames(path, 25, 0.0, 3.0, size=32))
        assert [f.index for f in frames] == list(range(75))


def test_late_picture_is_masked_not_shifted(clips):
    path = clips / "facerec__short_hamilton_clip.mp4"
    first = next(iter_frames(path, 10, size=32))
    assert first.index == 9
    assert first.time == pytest.approx(0.9)
    assert next(iter_frames(path, size=32)).time == pytest.approx(0.844, abs=0.002)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fps=st.floats(1, 60), start=st.floats(0, 3.9), length=st.floats(0.05, 5))
def test_each_grid_point_shows_the_frame_of_its_time(talk, make, fps, start, length):
    frames = list(iter_frames(talk, fps, start, start + length))
    tolerance = 0.5 / max(fps, 25)
    assert [f.index for f in frames] == list(range(len(frames)))
    inside = grid_steps(min(4.0 - start, length), fps)
    assert inside <= len(frames) <= inside + 1  # the twentieth of a step that is forgiven
    for f in frames:
        assert f.time == start + f.index / fps
        shown = make("number_of", f.image) * 0.04
        assert shown - tolerance - 1e-3 <= f.time <= shown + 0.04 + tolerance + 1e-3


@pytest.mark.parametrize("fps", [5, 12.5, 24000 / 1001, 30000 / 1001, 7.3])
def test_odd_rates_keep_every_frame(tmp_path, make, fps):
    path = tmp_path / "odd.mp4"
    write_clip(path, make("numbered", 40), fps, crf=10)
    assert probe(path).video.fps == pytest.approx(fps, rel=1e-3)
    assert [make("number_of", f.image) for f in iter_frames(path, fps)] == list(range(40))
    assert [f.index for f in iter_frames(path, fps)] == list(range(40))


def test_a_slow_source_repeats_its_frames(tmp_path, make):
    path = tmp_path / "slow.mp4"
    write_clip(path, make("numbered", 10), 5, crf=10)
    frames = list(iter_frames(path, 25, 0.0, 2.0))
    assert [f.index for f in frames] == list(range(50))
    assert [make("number_of", f.image) for f in frames] == [k // 5 for k in range(50)]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_phone_video_is_shown_upright(tmp_path, make, degrees):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32], image[:24, 32:], image[24:, :32] = (200, 30, 30), (30, 200, 30), (30, 30, 200)
    write_clip(tmp_path / "up.mp4", [image] * 5, 25, crf=5)
    path = make("turned", tmp_path / "up.mp4", tmp_path / "turned.mp4", degrees)
    expected = np.rot90(image, -degrees // 90)  # clockwise
    shown = next(iter_frames(path)).image
    video = probe(path).video
    assert shown.shape == expected.shape == (video.height, video.width, 3)
    assert np.abs(shown[4:-4:8, 4:-4:8].astype(int) - expected[4:-4:8, 4:-4:8]).mean() < 12
    assert (video.rotation + degrees) % 360 == 0
    assert max(next(iter_frames(path, size=32)).image.shape) == 32


def shaped(path: Path, images: Iterable[np.ndarray], pixel: Fraction, codec: str = "libx264") -> Path:
    """Pictures at 25 fps whose stored pixels are `pixel` times as wide as high."""
    with av.open(str(path), "w") as container:
        stream = None
        for image in images:
            if stream is None:
                stream = container.add_stream(codec, rate=25)
                stream.height, stream.width, stream.pix_fmt = *image.shape[:2], "yuv420p"
                stream.codec_context.sample_aspect_ratio = pixel
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def quarters(height: int, width: int) -> np.ndarray:
    """Four areas of different colours."""
    image = np.zeros((height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    image[:h, :w], image[:h, w:], image[h:, :w] = (200, 30, 30), (30, 200, 30), (30, 30, 200)
    return image


def alike(shown: np.ndarray, expected: np.ndarray) -> bool:
    if shown.shape != expected.shape:
        return False
    change = shown[4:-4:8, 4:-4:8].astype(int) - expected[4:-4:8, 4:-4:8]
    return bool(np.abs(change).mean() < 12)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.ts", "a.mpg", "a.avi", "a.h264"])
@pytest.mark.parametrize("pixel", [Fraction(4, 3), Fraction(2, 3)])
def test_pixels_are_square_as_displayed_whatever_was_stored(tmp_path, name, pixel):
    codec = {"a.mpg": "mpeg2video", "a.avi": "mpeg4"}.get(name, "libx264")
    if name == "a.mpg":  # its stream states the shape of the picture: 16:9 or 4:3
        pixel = {Fraction(4, 3): Fraction(16, 9), Fraction(2, 3): Fraction(4, 3)}[pixel]
    path = shaped(tmp_path / name, [quarters(96, 96)] * 5, pixel, codec)
    video = probe(path).video
    assert (video.width, video.height, video.pixel) == (round(96 * pixel), 96, pixel)
    frames = list(iter_frames(path))
    assert len(frames) == 5
    assert all(alike(f.image, quarters(96, video.width)) for f in frames)
    longest = max(next(iter_frames(path, size=48)).image.shape)
    assert longest == 48, "the limit holds for the picture as displayed"


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_stored_pixels_are_made_square_before_the_picture_is_turned(tmp_path, make, degrees):
    upright = shaped(tmp_path / "up.mp4", [quarters(48, 48)] * 5, Fraction(4, 3))
    path = make("turned", upright, tmp_path / "turned.mp4", degrees)
    expected = np.rot90(quarters(48, 64), -degrees // 90)
    video = probe(path).video
    assert alike(next(iter_frames(path)).image, expected)
    assert expected.shape == (video.height, video.width, 3)


def test_a_container_that_contradicts_its_codec_states_the_shape_of_pixels(tmp_path):
    path = shaped(tmp_path / "a.mp4", [quarters(48, 48)] * 5, Fraction(4, 3))
    at = path.read_bytes().index(b"pasp") + 4
    for stated, width in (((3, 2), 72), ((1, 100), 48), ((100, 1), 48), ((0, 1), 64)):
        data = bytearray(path.read_bytes())
        data[at : at + 8] = b"".join(n.to_bytes(4, "big") for n in stated)
        other = tmp_path / f"{stated[0]}_{stated[1]}.mp4"
        other.write_bytes(data)
        info = probe(other)
        assert info.video.width == width, stated
        assert next(iter_frames(other)).image.shape == (48, width, 3)
        assert bool(info.notes) == (100 in stated), "what is not believed is said"


def test_pixels_may_change_their_shape_on_the_way(tmp_path):
    wide = shaped(tmp_path / "wide.ts", [quarters(48, 48)] * 25, Fraction(4, 3))
    square = shaped(tmp_path / "square.ts", [quarters(48, 64)] * 25, Fraction(1))
    path = tmp_path / "both.ts"
    path.write_bytes(wide.read_bytes() + square.read_bytes())
    images = [f.image for f in iter_frames(path)]
    assert len(images) > 45
    kept = images[:20] + images[-20:]  # without those that the decoder held
    assert all(alike(image, quarters(48, 64)) for image in kept)


def test_the_same_picture_in_wide_and_in_square_pixels(shared_data):
    folder = shared_data / "odd_inputs"
    wide, square = (list(iter_frames(folder / f"F08_{name}.mp4", 5)) for name in ("sar_64_45", "same_square"))
    assert len(wide) == len(square) > 5
    for a, b in zip(wide, square, strict=True):
        assert np.abs(a.image[:, :222].astype(int) - b.image[:, 1:223]).mean() < 12


def test_size_is_a_limit_and_never_enlarges(talk):
    assert next(iter_frames(talk, size=32)).image.shape == (24, 32, 3)
    assert next(iter_frames(talk, size=500)).image.shape == (48, 64, 3)


def test_a_shifted_container_keeps_its_clock(tmp_path, talk, make):
    path = make("remux", talk, tmp_path / "shifted.ts", {"video": 7.0, "audio": 7.0})
    assert probe(path).zero > 6.5
    times = [f.time for f in iter_frames(path)]
    assert len(times) == 100
    assert 0 <= times[0] < 0.2


@pytest.mark.parametrize("name", ["x.mkv", "x.mov", "x.ts", "x.flv", "fragmented.mp4"])
def test_containers_agree_on_the_picture(tmp_path, talk, make, name):
    options = {"movflags": "frag_keyframe+empty_moov"} if "frag" in name else {}
    path = make("remux", talk, tmp_path / name, options=options)
    info = probe(path)
    assert info.video.frames == 100
    assert info.video.end - info.video.start == pytest.approx(4.0, abs=0.01)
    assert [make("number_of", f.image) for f in iter_frames(path, 25, info.video.start)] == list(range(100))


def rewritten(source, target, change) -> None:
    """The packets of a silent clip, each through `change(i, packet)`."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for i, packet in enumerate(p for p in old.demux(video=0) if p.dts is not None):
            change(i, packet)
            packet.stream = stream
            new.mux(packet)


def test_a_raw_stream_without_timestamps_counts_its_frames(tmp_path, talk, make):
    rewritten(talk, tmp_path / "raw.h264", lambda i, p: None)
    assert probe(tmp_path / "raw.h264").duration == pytest.approx(4.0)
    assert [make("number_of", f.image) for f in iter_frames(tmp_path / "raw.h264", 25)] == list(range(100))


def test_wrong_timestamps_do_not_shift_the_rest(tmp_path, talk, make):
    def late(_, packet) -> None:
        if 0.9 < packet.pts * packet.time_base < 1.1:
            packet.pts += round(0.12 / packet.time_base)

    rewritten(talk, tmp_path / "wrong.mkv", late)
    times = [f.time for f in iter_frames(tmp_path / "wrong.mkv")]
    assert len(times) == 100
    assert (np.diff(times) > 0).all()
    numbers = {f.index: make("number_of", f.image) for f in iter_frames(tmp_path / "wrong.mkv", 25)}
    assert all(numbers[k] == k for k in [*range(20), *range(35, 100)])


def test_timestamps_that_begin_anew_go_on(tmp_path, talk, make):
    data = make("remux", talk, tmp_path / "once.ts").read_bytes()
    (tmp_path / "twice.ts").write_bytes(data + data)
    times = [f.time for f in iter_frames(tmp_path / "twice.ts")]
    assert len(times) >= 195
    assert (np.diff(times) > 0).all()
    assert times[-1] == pytest.approx(8.0, abs=0.3)


def test_far_start_seeks_and_agrees_with_reading_on(tmp_path, make):
    path = tmp_path / "long.mp4"
    write_clip(path, make("numbered", 1000, 16, 32), 10, preset="ultrafast")
    sought = [(f.index, f.image) for f in iter_frames(path, 5, 83.0, 90.0)]
    whole = {f.time: f.image for f in iter_frames(path, 5) if 83.0 <= f.time < 89.99}
    assert [k for k, _ in sought] == list(range(35))
    assert len(whole) == 35
    assert all(np.array_equal(a, b) for (_, a), b in zip(sought, whole.values(), strict=True))


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    """8 s with a key frame every second and enough texture that damage cannot be concealed."""
    path = tmp_path_factory.mktemp("motion") / "motion.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    write_clip(path, (np.roll(noise, k, 1) for k in range(200)), 25, preset="veryfast")
    return path


def test_a_damaged_part_is_masked_and_decoding_goes_on(tmp_path, motion, make):
    data = bytearray(motion.read_bytes())
    for at, size, time in make("packets", motion, "video"):
        if 3.0 <= time < 4.0:
            data[at : at + size] = b"\xff" * size
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    assert probe(path).findings() == [], "nothing was decoded yet"
    missing = set(range(40)) - {f.index for f in iter_frames(path, 5)}
    assert missing
    assert missing <= set(range(14, 22))
    assert set(range(16, 20)) <= missing
    (note,) = probe(path).findings()
    assert re.fullmatch(r"\d+ of 200 pictures could not be decoded \(at 3\.0-[34]\.\d s\)", note)
    assert int(note.split()[0]) >= 25
    list(iter_frames(path, 5, 2.0))
    assert probe(path).findings() == [note], "what is read again is counted once"


def test_a_file_of_nothing_but_damage_is_refused(tmp_path, motion, make):
    data = bytearray(motion.read_bytes())
    for at, size, _ in make("packets", motion, "video"):
        data[at : at + size] = b"\xff" * size
    path = tmp_path / "ruined.mp4"
    path.write_bytes(data)
    with pytest.raises(BadMedia, match="ruined"):
        list(iter_frames(path))


def test_a_truncated_file_keeps_its_length_and_masks_the_rest(tmp_path, motion, make):
    whole = make("remux", motion, tmp_path / "front.mp4", options={"movflags": "faststart"}).read_bytes()
    path = tmp_path / "truncated.mp4"
    path.write_bytes(whole[: len(whole) // 2])
    assert probe(path).duration == pytest.approx(8.0, abs=0.1)
    frames = list(iter_frames(path, 5, 0.0, 8.0))
    assert 10 < len(frames) < 30
    assert [f.index for f in frames] == list(range(len(frames)))
    (note,) = probe(path).notes
    assert re.match(r"the picture ends at [345]\.\d of 8\.0 s: the file was cut off", note)


def test_memory_does_not_grow_with_the_frames_asked_for(motion):
    tracemalloc.start()
    for _ in iter_frames(motion):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 96 * 128 * 3


def test_frames_that_h264_cannot_hold_leave_no_file(tmp_path):
    for bad in (np.zeros((47, 64, 3), np.uint8), np.zeros((48, 64, 3), np.float32), np.zeros((48, 64), np.uint8)):
        with pytest.raises(BadMedia):
            write_clip(tmp_path / "bad.mp4", [bad], 25)
    with pytest.raises(BadMedia, match="nothing to write"):
        write_clip(tmp_path / "bad.mp4", [], 25)
    assert list(tmp_path.iterdir()) == []


def test_impossible_sampling_is_refused(talk):
    for kwargs in ({"fps": 0.0}, {"fps": float("nan")}, {"size": 0}):
        with pytest.raises(BadConfig):
            list(iter_frames(talk, **kwargs))
