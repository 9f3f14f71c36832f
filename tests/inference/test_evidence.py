"""No answer rests on what is not there: evidence taken away from a part of a clip takes its answers with it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import affuse
from affuse.inference.recognizer import Recognizer
from affuse.media.audio import read_audio
from affuse.media.clip import Clip
from affuse.media.probe import probe
from affuse.media.video import iter_frames
from affuse.media.write import write_clip

FPS = 10.0
BRIDGE = 0.3  # s by which a face that was seen may outlast its last picture


@pytest.fixture(scope="module")
def base() -> Recognizer:
    return affuse.load()


@pytest.fixture(scope="module")
def own(demo_run) -> Recognizer:
    return affuse.load(demo_run[0])


def blanked(clip: Path, to: Path, away: Callable[[float], bool]) -> float:
    """The clip with black pictures and silence wherever `away` says so, and its length (s)."""
    info = probe(clip)
    shown = {f.index: _even(f.image) * (not away(f.time)) for f in iter_frames(clip, FPS, size=320)}
    black = 0 * next(iter(shown.values()))
    pictures = [shown.get(k, black) for k in range(max(shown) + 1)]  # no picture moves in time
    sound = read_audio(clip) if info.audio else None
    if sound is not None:
        sound.samples[[away(k / sound.rate) for k in range(len(sound.samples))]] = 0
    write_clip(to, pictures or None, FPS, sound.samples if sound is not None else None)
    return info.duration


def _even(image: np.ndarray) -> np.ndarray:
    return image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]


def words(to: Path, start: float, end: float) -> Path:
    to.write_text(f"1\n00:00:{start:06.3f} --> 00:00:{end:06.3f}\nI am so happy to see you all\n".replace(".", ","))
    return to


@pytest.mark.parametrize("half", ["first", "second"])
def test_no_answer_where_picture_sound_and_words_were_taken_away(base, own, shared_data, tmp_path, half):
    """On every real clip: half of it without any evidence, the words in the other half."""
    clips = sorted(p for p in (shared_data / "av_clips").iterdir() if p.suffix in (".mp4", ".mov", ".avi", ".mpg"))
    assert len(clips) == 22
    answered = 0
    for clip in clips:
        middle = probe(clip).duration / 2
        gone = (lambda t, m=middle: t < m) if half == "first" else (lambda t, m=middle: t >= m)
        duration = blanked(clip, tmp_path / "clip.mp4", gone)
        said = words(tmp_path / "said.srt", *((middle, duration) if half == "first" else (0.0, middle)))
        for recognizer in (base, own):
            for s in recognizer(tmp_path / "clip.mp4", said, every=0.5).segments:
                without = s.end <= middle if half == "first" else s.start >= middle + BRIDGE
                views = s.modalities.values()
                claims = bool(s.probabilities) or s.label is not None or any(v.present or v.coverage for v in views)
                assert not (without and claims), (clip.name, recognizer.name, s)
                answered += not without and bool(s.probabilities)
    assert answered > 100


def test_one_face_less_often_is_never_surer(base, demo_run, tmp_path):
    """The same picture k times, then black, without sound: the confidence does not grow as k falls."""
    clip = sorted((demo_run[1] / "clips").glob("*.mp4"))[0]
    face = _even(next(Clip(clip).frames(5)).image)
    surest = []
    for k in (40, 24, 16, 8, 4, 2):
        write_clip(tmp_path / "face.mp4", [face] * k + [face * 0] * (40 - k), 5.0)
        timeline = base(tmp_path / "face.mp4")
        surest.append(max((max(s.probabilities.values(), default=0.0) for s in timeline.segments), default=0.0))
        assert all(not s.probabilities for s in timeline.segments if s.start >= k / 5 + BRIDGE)
    assert surest[0] > 0.3
    assert all(more >= less - 0.02 for more, less in pairwise(surest)), surest  # the codec changes the picture a little


def test_a_face_for_the_first_second_answers_for_it_alone(base, shared_data):
    found = base(shared_data / "odd_inputs" / "F01_face_first_second.mp4").segments
    assert [s.label is None for s in found] == [False, True, True]
    assert found[1].reason == "no sound, no face, no words"
    assert [round(s.modalities["vision"].coverage, 1) for s in found] == [0.6, 0.0, 0.0]
    finer = base(shared_data / "odd_inputs" / "F01_face_first_second.mp4", every=0.2).segments
    assert all(s.label is None for s in finer if s.start >= 1.2)


def test_a_silenced_track_is_no_evidence_for_a_run_of_ones_own(own, demo_run, tmp_path):
    clip = sorted((demo_run[1] / "clips").glob("*.mp4"))[0]
    sound = read_audio(clip).samples
    write_clip(tmp_path / "sound.mp4", None, audio=np.concatenate([sound, 0 * sound]))
    first, second = own(tmp_path / "sound.mp4", every=len(sound) / 16000).segments
    assert first.modalities["audio"].present
    assert (second.modalities["audio"].present, second.probabilities) == (False, {})
    assert second.reason == "silence, no face, no words"
