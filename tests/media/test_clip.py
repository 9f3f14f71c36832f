from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from affuse.core.errors import BadMedia, MissingFile
from affuse.media.clip import Clip
from affuse.media.write import write_clip


def test_grid_clip_is_three_seconds_of_75_steps(clips):
    clip = Clip(video=clips / "grid__bbaf2n.mpg", text="bin blue at f two now")
    assert clip.duration == pytest.approx(3.0)
    assert clip.steps(25) == 75
    assert [f.index for f in clip.frames(25, size=32)] == list(range(75))
    assert len(clip.read_audio().samples) == 48000


def test_modalities_of_every_real_clip(clips):
    with (clips / "labels.csv").open() as file:
        for row in csv.DictReader(file):
            clip = Clip(video=clips / row["file"])
            assert clip.has_video, row["file"]
            assert clip.has_audio == (row["has_audio"] == "1"), row["file"]
            assert (clip.read_audio() is None) == (row["has_audio"] == "0"), row["file"]
            if int(row["width"]) > 640 or float(row["duration_s"]) > 10:
                continue
            indices = [f.index for f in clip.frames(2, size=16)]
            assert 0 <= max(indices, default=-1) < clip.steps(2), row["file"]


def test_a_segment_has_its_own_clock(talk, make):
    clip = Clip(video=talk, start=1.0, end=2.6)
    frames = list(clip.frames(10))
    assert clip.duration == pytest.approx(1.6)
    assert clip.steps(10) == len(frames) == 16
    assert [f.time for f in frames] == pytest.approx([k / 10 for k in range(16)])
    numbers = [make("number_of", f.image) for f in frames]
    assert all(abs(n - (25 + 2.5 * k)) <= 1 for k, n in enumerate(numbers))
    audio, whole = clip.read_audio(), Clip(video=talk).read_audio()
    assert audio.start == 0.0
    np.testing.assert_allclose(audio.samples, whole.samples[16000:41600], atol=1e-6)


def test_a_segment_beyond_the_end_is_masked(talk):
    clip = Clip(video=talk, start=3.5, end=5.5)
    assert clip.steps(10) == 20
    assert [f.index for f in clip.frames(10)] == [0, 1, 2, 3, 4]
    assert clip.read_audio().coverage == pytest.approx(0.25, abs=0.04)
    assert Clip(video=talk, start=50.0).duration == 0.0
    assert Clip(video=talk, start=50.0).steps(25) == 0


def test_an_own_sound_file_replaces_the_track(tmp_path, talk, make):
    own = tmp_path / "own.m4a"
    write_clip(own, None, audio=0.5 * np.ones(32000, np.float32))
    clip = Clip(video=talk, audio=own)
    assert clip.duration == pytest.approx(4.0, abs=0.01)
    sound = clip.read_audio()
    assert len(sound.samples) == 64000
    assert sound.samples[16000] == pytest.approx(0.5, abs=0.05)
    assert not sound.valid[34000:].any()


def test_absent_modalities(tmp_path, make):
    words = Clip(text="hello")
    assert (words.duration, words.has_audio, words.has_video, words.steps(25)) == (0.0, False, False, 0)
    assert words.read_audio() is None
    assert list(words.frames(25)) == []
    write_clip(tmp_path / "s.m4a", None, audio=make("tone", 1.0))
    sound = Clip(audio=tmp_path / "s.m4a")
    assert sound.has_audio
    assert not sound.has_video
    assert list(sound.frames(5)) == []
    picture_of_sound = Clip(video=tmp_path / "s.m4a")
    assert picture_of_sound.has_audio
    assert not picture_of_sound.has_video


def test_a_missing_file_is_an_error_not_an_absent_modality(tmp_path):
    with pytest.raises(MissingFile):
        assert Clip(video=tmp_path / "gone.mp4").has_audio
    with pytest.raises(MissingFile):
        Clip(audio=Path("gone.wav")).read_audio()


@pytest.mark.parametrize(("start", "end"), [(-1.0, None), (2.0, 1.0), (float("nan"), None), (0.0, float("nan"))])
def test_impossible_segments_are_refused(start, end):
    with pytest.raises(BadMedia, match="segment"):
        Clip(text="x", start=start, end=end)
