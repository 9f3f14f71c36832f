"""Who speaks: moving mouths under a voice do; still faces, moving heads and chewing listeners do not."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from affuse.features.face_crops import FaceCrops
from affuse.media.clip import Clip
from affuse.media.faces import align_batch
from affuse.media.speaking import VOICE_STEP, mouth_motion, speaking, speaking_score
from affuse.media.tracks import Track

LANDMARKS = np.array([[267, 102], [311, 103], [288, 128], [266, 140], [310, 143]]) + [-64, 0]  # of the astronaut
FPS = 10.0


def portrait(opening: np.ndarray, seed: int = 0, shake: float = 1.0, noise: float = 3.0, id: int = 0) -> Track:
    """The astronaut with a dark mouth as open as `opening` [T] (0..1), a shaking head, changing light and noise."""
    photo = pytest.importorskip("skimage.data").astronaut()[:256, 96:352]
    rng = np.random.default_rng(seed)
    marks = LANDMARKS - [96, 0]
    y, x = np.mgrid[:256, :256]
    centre = marks[3:].mean(0)
    pictures = np.repeat(photo[None], len(opening), 0)
    for picture, wide in zip(pictures, opening, strict=True):
        inside = ((x - centre[0]) / 16) ** 2 + ((y - centre[1] - 3) / (1e-3 + 10 * wide)) ** 2 < 1
        picture[inside] = [60, 20, 20]
    light = 1 - 0.1 * rng.random((len(opening), 1, 1, 1))
    noisy = np.clip(pictures * light + rng.normal(0, noise, pictures.shape), 0, 255).astype(np.uint8)
    shaken = marks + rng.normal(0, shake, (len(opening), 1, 2)) + rng.normal(0, 0.4, (len(opening), 5, 2))
    steps = np.arange(len(opening))
    boxes = np.tile([0.0, 0.0, 90.0, 90.0], (len(steps), 1))
    return Track(id, steps, boxes, shaken, np.ones(len(steps)), align_batch(noisy, shaken, 48, 0.2))


def syllables(seconds: float, talks: list[tuple[float, float]], seed: int = 0) -> np.ndarray:
    """How open a mouth is that says four syllables a second within `talks`."""
    t = np.arange(round(seconds * FPS)) / FPS
    rate = 4 + 0.5 * np.random.default_rng(seed).normal(size=len(t)).cumsum() / np.sqrt(len(t))
    voiced = np.any([(a <= t) & (t < b) for a, b in talks], axis=0) if talks else np.zeros(len(t), bool)
    return voiced * (0.5 - 0.5 * np.cos(2 * np.pi * np.cumsum(rate) / FPS))


def voice(seconds: float, talks: list[tuple[float, float]]) -> np.ndarray:
    t = (np.arange(round(seconds / VOICE_STEP)) + 0.5) * VOICE_STEP
    return np.where(np.any([(a <= t) & (t < b) for a, b in talks], axis=0), 0.95, 0.05)


def share(spans: list[tuple[float, float]], start: float, end: float) -> float:
    """How much of [start, end] the spans cover."""
    return sum(max(0.0, min(b, end) - max(a, start)) for a, b in spans) / (end - start)


def test_a_mouth_that_moves_with_the_voice_speaks_then_and_only_then() -> None:
    talks = [(2.0, 5.0), (7.5, 9.5)]
    [spans] = speaking([portrait(syllables(12, talks))], voice(12, talks), FPS)
    assert share(spans, 2.0, 5.0) > 0.85
    assert share(spans, 7.5, 9.5) > 0.8
    assert share(spans, 0, 1.7) == share(spans, 5.5, 7.2) == share(spans, 10, 12) == 0


@pytest.mark.parametrize("shake", [0.0, 1.0, 3.0])
def test_nobody_speaks_in_a_voice_over(shake: float) -> None:
    still = portrait(np.zeros(100), shake=shake)
    assert speaking([still], voice(10, [(1, 9)]), FPS) == [[]]
    assert np.nanmedian(mouth_motion(still, FPS)) < 1.3


def test_a_moving_mouth_without_a_voice_does_not_speak() -> None:
    assert speaking([portrait(syllables(10, [(0, 10)]))], np.full(313, 0.02), FPS) == [[]]
    assert speaking([portrait(syllables(10, [(0, 10)]))], np.zeros(0), FPS) == [[]]


def test_two_people_take_turns() -> None:
    first, second = [(0.5, 4.0)], [(5.0, 9.0)]
    tracks = [portrait(syllables(10, first), 1, id=4), portrait(syllables(10, second), 2, id=7)]
    a, b = speaking(tracks, voice(10, first + second), FPS)
    assert share(a, 0.5, 4.0) > 0.8 and share(a, 5.0, 9.0) < 0.1
    assert share(b, 5.0, 9.0) > 0.8 and share(b, 0.5, 4.0) < 0.1


def test_chewing_in_the_pauses_of_somebody_else_is_no_speech() -> None:
    talks, pauses = [(0, 2), (4, 6), (8, 10)], [(2, 4), (6, 8), (10, 12)]
    [spans] = speaking([portrait(syllables(12, pauses))], voice(12, talks), FPS)
    assert share(spans, 0, 12) < 0.05


def test_a_part_of_a_track_is_scored_like_the_whole() -> None:
    talks = [(1.0, 3.0)]
    whole, voiced = portrait(syllables(8, talks)), voice(8, talks)
    late = Track(0, *(part[30:] for part in (whole.steps, whole.boxes, whole.landmarks, whole.scores, whole.views)))
    motion = mouth_motion(late, FPS)
    assert np.isnan(motion[0])
    np.testing.assert_allclose(motion[1:], mouth_motion(whole, FPS)[31:], rtol=1e-5)
    scores = speaking_score(late.steps, motion, voiced, FPS)
    assert scores.shape == late.steps.shape
    assert (scores[15:] < 0.1).all()


def test_pictures_are_compared_in_parts_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    talks = [(1.0, 3.0)]
    track, voiced = portrait(syllables(6, talks)), voice(6, talks)
    arrays = (track.steps, track.boxes, track.landmarks, track.scores, track.views)
    track = Track(0, *(array[np.r_[0:20, 23:60]] for array in arrays))
    whole, spans = mouth_motion(track, FPS), speaking([track], voiced, FPS)
    monkeypatch.setattr("affuse.media.speaking.PICTURES", 7)
    np.testing.assert_allclose(mouth_motion(track, FPS), whole, rtol=1e-5)
    assert speaking([track], voiced, FPS) == spans != [[]]


def test_memory_does_not_grow_with_the_length() -> None:
    def peak(times: int) -> int:
        one = portrait(syllables(10, [(0, 10)]))
        arrays = (one.boxes, one.landmarks, one.scores, one.views)
        track = Track(0, np.arange(100 * times), *(np.concatenate([array] * times) for array in arrays))
        tracemalloc.start()
        speaking([track], np.ones(round(10 * times / VOICE_STEP)), FPS)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(6) < 1.1 * peak(2)


def test_holes_and_empty_tracks_are_no_error() -> None:
    whole = portrait(syllables(4, [(0, 4)]))
    gone = [
        Track(0, *(part[k] for part in (whole.steps, whole.boxes, whole.landmarks, whole.scores, whole.views)))
        for k in (slice(0, 0), slice(0, 1), np.r_[0:10, 20:40])
    ]
    spans = speaking(gone, np.ones(125), FPS)
    assert spans[:2] == [[], []]
    assert share(spans[2], 1.2, 1.8) == 0
    assert speaking([], np.ones(10), FPS) == []


def test_the_man_in_front_of_a_real_clip_speaks_and_those_behind_do_not(shared_data: Path) -> None:
    clip = Clip(shared_data / "av_clips" / "openface__multi_face.avi", end=5.0)
    tracks = FaceCrops(fps=FPS).follow(clip)
    spans = speaking(tracks, np.ones(round(5 / VOICE_STEP)), FPS)
    front = int(np.argmax([track.prominence for track in tracks]))
    assert share(spans[front], 0.2, 5.0) > 0.8
    assert all(share(found, 0, 5.0) < 0.1 for i, found in enumerate(spans) if i != front)


@pytest.mark.parametrize("name", ["grid__brbk7n.mpg", "ravdess__01-01-01-01-01-01-01.mp4"])
def test_people_who_say_a_sentence_speak(shared_data: Path, name: str) -> None:
    clip = Clip(shared_data / "av_clips" / name)
    audio = clip.read_audio(16000)
    assert audio is not None
    blocks = audio.samples[: len(audio.samples) // 512 * 512].reshape(-1, 512)
    loud = np.log10((blocks**2).mean(1) + 1e-10)
    voiced = (loud > np.percentile(loud, 95) - 2).astype(float)
    tracks = FaceCrops(fps=FPS).follow(clip)
    [spans] = speaking(tracks, voiced, FPS)
    talk = np.flatnonzero(voiced)[[0, -1]] * VOICE_STEP
    assert share(spans, *talk) > 0.6


def test_an_actor_who_sits_still_does_not_speak(shared_data: Path) -> None:
    tracks = FaceCrops(fps=FPS).follow(Clip(shared_data / "av_clips" / "openwillis__baseline.mp4"))
    assert speaking(tracks, np.ones(110), FPS) == [[]]
