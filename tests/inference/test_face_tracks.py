"""ClipFaces: the same faces however the clip is divided, and nothing is kept that is not needed again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from affuse.features.face_crops import FaceCrops
from affuse.inference import face_tracks as module
from affuse.inference.face_tracks import ClipFaces
from affuse.media.clip import Clip
from affuse.media.speaking import VOICE_STEP
from affuse.media.tracks import FaceTracker, Track
from affuse.media.write import write_clip

Spans = Sequence[tuple[float, float]]
LIMITS = 1e9  # s: no border anywhere


class Filmed(FaceCrops):
    """Two faces that are there `when` (s), and whose mouths move in every other second; no picture is decoded."""

    def __init__(self, when: Spans) -> None:
        super().__init__(size=24)
        self.when, self.asked = when, []

    def follow(self, clip: Clip, tracker: FaceTracker | None = None) -> list[Track]:
        assert tracker is not None
        self.asked.append(clip.duration)
        steps = round(clip.start * tracker.fps) + np.arange(clip.steps(tracker.fps))
        here = np.any([(a * tracker.fps <= steps) & (steps < b * tracker.fps) for a, b in self.when], axis=0)
        return [self._track(i, steps[here], round(clip.start * tracker.fps)) for i in range(2) if here.any()]

    def _track(self, i: int, steps: np.ndarray, first: int) -> Track:
        rngs = [np.random.default_rng([i, k]) for k in steps.tolist()]
        views = np.stack([rng.integers(90, 110, (24, 24, 3), np.uint8) for rng in rngs])
        views[(steps % 2 == 0) & (steps // 10 % 2 == i), 18:, 7:17] //= 2
        box = np.tile([0.0, 0.0, 50.0 + i, 50.0 + i], (len(steps), 1))
        return Track(i, steps - first, box, np.zeros((len(steps), 5, 2)), np.ones(len(steps)), views)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_clip(path, (np.zeros((32, 32, 3), np.uint8) for _ in range(5)), 5)
    return path


def test_crops_of_a_window_are_the_same_on_both_sides_of_a_border_and_over_it(film: Path) -> None:
    spans = [(k + 0.13, k + 4.13) for k in range(12)]
    voice = np.ones(round(30 / VOICE_STEP))
    long, short = (ClipFaces(Filmed([(0, 7.7), (8.5, 30)]), Clip(film, end=30.0), voice) for _ in range(2))
    whole = long.follow(0.13, 15.13)
    for block in (spans[:3], spans[3:7], spans[7:]):
        part = short.follow(block[0][0], block[-1][1])
        for a, b in block:
            expected, found = whole.crops(a, b), part.crops(a, b)
            np.testing.assert_array_equal(found.values, expected.values)
            np.testing.assert_array_equal(found.valid, expected.valid)
            assert len(found.values) == 20 and found.valid is not None and found.valid.any()
            means = part.embedded(a, b, lambda crops: crops.mean((1, 2)))
            direct = expected.values[expected.valid].mean((1, 2))
            np.testing.assert_allclose(means.values[means.valid], direct, rtol=1e-6)


def test_windows_within_one_that_was_read_find_their_faces(film: Path) -> None:
    faces = ClipFaces(Filmed([(0, 40)]), Clip(film, end=40.0), np.zeros(9))
    faces.follow(0, 30)
    within = faces.follow(5, 12)
    assert within.crops(5, 8).coverage == within.crops(9, 12).coverage == 1
    assert len(within.crops(9, 12).values) == 15
    assert faces.follow(29, 33).crops(29, 33).coverage == 1


def test_what_was_dropped_counts_as_missing(film: Path) -> None:
    faces = ClipFaces(Filmed([(0, 40)]), Clip(film, end=40.0), np.zeros(9))
    faces.follow(0, 10)
    faces.follow(12, 14)
    assert faces.follow(8, 14).crops(8, 14).coverage < 1


def test_silence_is_followed_in_parts_and_its_crops_are_not_kept(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    when = [(0.0, 18.0), (39.2, 42.0), (50.0, 81.0), (94.0, 100.0)]
    voice = np.ones(round(100 / VOICE_STEP))

    def followed(limit: float) -> tuple[ClipFaces, float, int]:
        monkeypatch.setattr(module, "BLOCK_SECONDS", limit)
        faces, held = ClipFaces(Filmed(when), Clip(film, end=100.0), voice), []
        for start, end in ((0.0, 5.0), (95.0, 100.0)):
            block = faces.follow(start, end)
            held.append(block.crops(start, end).values)
        kept = max(len(track.steps) for track in faces._tracks.values())
        np.testing.assert_array_equal(held[1], block.crops(95.0, 100.0).values)
        return faces, max(faces.crops.asked), kept

    whole, longest, _ = followed(LIMITS)
    parts, part, kept = followed(20.0)
    assert longest == pytest.approx(95) and part <= 25 and kept <= 110
    for one, other in zip(whole.tracks(), parts.tracks(), strict=True):
        assert one.id == other.id
        np.testing.assert_allclose(one.seen, other.seen)
        assert len(one.speaking) > 3
        np.testing.assert_allclose(one.speaking, other.speaking)


@pytest.mark.parametrize("end", [7.03, 7.3, 8.0])
def test_faces_are_seen_within_the_clip_in_order(film: Path, end: float) -> None:
    faces = ClipFaces(Filmed([(0, 2.2), (3.4, 20)]), Clip(film, end=end), np.ones(round(end / VOICE_STEP)))
    for start in range(0, 7, 2):
        faces.follow(start, min(start + 3.0, end))
    faces.follow(end - 1, end)
    tracks = faces.tracks()
    assert len(tracks) == 2
    for face in tracks:
        assert face.seen[-1][1] == pytest.approx(end)
        for spans in (face.seen, face.speaking):
            edges = [t for span in spans for t in span]
            assert edges == sorted(edges) and edges[0] >= 0 and edges[-1] <= end
    assert faces.notes() == []


def drawn(path: Path, pictures: list[np.ndarray], fps: float = 10.0) -> ClipFaces:
    write_clip(path, pictures, fps)
    clip = Clip(path, end=len(pictures) / fps)
    return ClipFaces(FaceCrops(), clip, np.zeros(9))


def portrait(side: float) -> np.ndarray:
    """The astronaut, whose face has a side of about 100 of 512 pixels, in a plain picture."""
    from PIL import Image

    photo = pytest.importorskip("skimage.data").astronaut()
    size = round(512 * side / 100)
    canvas = np.full((360, 640, 3), 110, np.uint8)
    canvas[:size, 100 : 100 + size] = np.asarray(Image.fromarray(photo).resize((size, size)))[:360]
    return canvas


def test_a_face_that_goes_is_gone_when_it_goes(tmp_path: Path) -> None:
    black = np.zeros((360, 640, 3), np.uint8)
    faces = drawn(tmp_path / "gone.mp4", [portrait(60)] * 10 + [black] * 30)
    block = faces.follow(0.0, 4.0)
    [face] = faces.tracks()
    assert len(face.seen) == 1
    assert face.seen[0][1] == pytest.approx(1.0, abs=0.21)
    assert block.crops(0.0, 1.0).coverage == 1.0
    assert block.crops(1.2, 4.0).coverage == 0.0
    assert faces.why_absent(1.2, 4.0) == "no face"


def test_faces_too_small_to_be_followed_are_a_reason(tmp_path: Path) -> None:
    faces = drawn(tmp_path / "far.mp4", [portrait(14)] * 20)
    assert faces.follow(0.0, 2.0).crops(0.0, 2.0).coverage == 0
    assert faces.why_absent(0.0, 2.0) == "no face of 40 pixels or more; smaller ones are there"


def test_more_faces_than_are_followed_are_noted(tmp_path: Path) -> None:
    crowd = np.full((360, 640, 3), 110, np.uint8)
    head = portrait(50)[:130, 150:270]
    for row in range(2):
        for column in range(5):
            crowd[row * 170 : row * 170 + 130, column * 125 : column * 125 + 120] = head
    faces = drawn(tmp_path / "crowd.mp4", [crowd] * 10)
    faces.follow(0.0, 1.0)
    assert len(faces.tracks()) == 8
    assert faces.notes() == ["more than 8 faces at once: 8 of them are followed"]


def test_the_odd_input_with_a_face_for_a_second(shared_data: Path) -> None:
    clip = Clip(shared_data / "odd_inputs" / "F01_face_first_second.mp4", end=6.0)
    for voice in (np.zeros(9), np.ones(round(6 / VOICE_STEP))):
        faces = ClipFaces(FaceCrops(), clip, voice)
        faces.follow(0.0, 6.0)
        [face] = faces.tracks()
        assert face.seen == [(0.0, pytest.approx(1.1, abs=0.11))]


def test_real_faces_are_the_same_over_a_border(shared_data: Path) -> None:
    clip = Clip(shared_data / "av_clips" / "openface__multi_face.avi", end=5.0)
    long, short = (ClipFaces(FaceCrops(), clip, np.ones(round(5 / VOICE_STEP))) for _ in range(2))
    whole = long.follow(0.0, 5.0)
    for block in ([(0.0, 2.1)], [(1.0, 3.0), (1.5, 3.7)], [(2.0, 4.0), (3.0, 5.0)]):
        part = short.follow(block[0][0], block[-1][1])
        for span in block:
            expected, found = whole.crops(*span), part.crops(*span)
            np.testing.assert_array_equal(found.values, expected.values)
            np.testing.assert_array_equal(found.valid, expected.valid)
    assert [face.id for face in short.tracks()] == [face.id for face in long.tracks()]
