"""Tracks: who is who over time, with few full searches and no picture kept."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affuse.core.errors import BadMedia
from affuse.media.clip import Clip
from affuse.media.faces import Face, FaceDetector
from affuse.media.tracks import LOOKS, FaceTracker, Track, stretches, track_faces
from affuse.media.video import Frame

GROUND = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)


class Oracle:
    """A detector that knows where the faces are: script[k] holds (x, y, side) or (x, y, side, score) at step k."""

    def __init__(self, script: list[list[tuple[float, ...]]], seed: int | None = None) -> None:
        self.script, self.rng = script, np.random.default_rng(seed) if seed is not None else None
        self.full: list[int] = []

    def frames(self, start: int = 0, end: int | None = None, cuts: tuple[int, ...] = ()) -> Iterator[Frame]:
        for k in range(start, len(self.script) if end is None else end):
            image = np.roll(GROUND, 50 * sum(k >= cut for cut in cuts), (0, 1)).copy()
            image[0, 0] = k >> 8, k & 255, 0
            yield Frame(k - start, 0.0, image)

    def faces(self, image: np.ndarray) -> list[Face]:
        found = [_face(*face) for face in self.script[int(image[0, 0, 0]) << 8 | int(image[0, 0, 1])]]
        return found if self.rng is None else [found[i] for i in self.rng.permutation(len(found))]

    def detect_batch(self, images: np.ndarray) -> list[list[Face]]:
        self.full += [int(image[0, 0, 0]) << 8 | int(image[0, 0, 1]) for image in images]
        return [self.faces(image) for image in images]

    def refine(self, images: np.ndarray, boxes: np.ndarray) -> list[Face | None]:
        return [self._near(self.faces(images[0]), box) for box in boxes]

    def _near(self, faces: list[Face], box: np.ndarray) -> Face | None:
        def apart(face: Face) -> float:
            return float(np.abs(face.box - box).max() / face.side)

        return min((f for f in faces if apart(f) < 1 / 3), key=apart, default=None)


def _face(x: float, y: float, side: float, score: float = 0.99) -> Face:
    box = np.array([x, y, x + side, y + side])
    return Face(box, score, box[:2] + side * np.array([[0.3, 0.3], [0.7, 0.3], [0.5, 0.5], [0.3, 0.8], [0.7, 0.8]]))


def follow(oracle: Oracle, fps: float = 5.0, cuts: tuple[int, ...] = (), **rules: float) -> list[Track]:
    return track_faces(oracle.frames(cuts=cuts), oracle, fps, **rules)


def test_a_still_face_is_searched_for_every_two_seconds_only() -> None:
    oracle = Oracle([[(20, 20, 30)]] * 50)
    [track] = follow(oracle)
    assert oracle.full == [0, 10, 20, 30, 40]
    assert track.id == 0
    np.testing.assert_array_equal(track.steps, np.arange(50))
    np.testing.assert_allclose(track.boxes, np.tile([20, 20, 50, 50], (50, 1)))
    assert track.landmarks.shape == (50, 5, 2)
    assert track.seen(5.0) == [(0.0, 10.0)]
    assert track.prominence == pytest.approx(50 * 30 * 0.99, rel=1e-4)


def test_an_empty_picture_is_searched_five_times_a_second_and_no_frames_give_no_tracks() -> None:
    oracle = Oracle([[]] * 100)
    assert follow(oracle, fps=25.0) == []
    assert len(oracle.full) == 20
    assert track_faces([], oracle, 25.0) == []


@pytest.mark.parametrize("fps", [5.0, 25.0])
def test_people_who_pass_each_other_keep_their_ids(fps: float) -> None:
    steps = np.arange(int(4 * fps))
    right, left = 10 + 25 * steps / fps, 110 - 25 * steps / fps
    oracle = Oracle([[(a, 10, 24), (b, 44, 24)] for a, b in zip(right, left, strict=True)], seed=1)
    first, second = sorted(follow(oracle, fps), key=lambda track: track.boxes[0, 0])
    np.testing.assert_allclose(first.boxes[:, 0], right, atol=1e-4)
    np.testing.assert_allclose(second.boxes[:, 0], left, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_wandering_people_far_apart_are_never_confused(seed: int, people: int) -> None:
    rng = np.random.default_rng(seed)
    walk = np.clip(np.cumsum(rng.normal(0, 3, (40, people, 2)), 0), -12, 12) + [[100 * p, 40] for p in range(people)]
    oracle = Oracle([[(*at, 30) for at in step] for step in walk], seed=seed)
    tracks = follow(oracle, 10.0)
    assert [t.id for t in tracks] == list(range(people))
    for track in tracks:
        person = round(float(track.boxes[0, 0]) / 100)
        met = track.scores > 0  # a jump may cost a frame, which is bridged
        assert met.mean() > 0.9
        np.testing.assert_allclose(track.boxes[met, :2], walk[track.steps[met], person], atol=1e-3)


def test_short_holes_are_bridged_and_long_ones_stay() -> None:
    script = [[(20 + k, 20, 30)] for k in range(100)]
    script[30:34], script[60:70] = [[]] * 4, [[]] * 10
    [track] = follow(Oracle(script), fps=25.0)
    np.testing.assert_array_equal(track.steps, np.r_[0:60, 70:100])
    np.testing.assert_array_equal(np.flatnonzero(track.scores == 0), np.arange(30, 34))
    np.testing.assert_allclose(track.boxes[:, 0], 20 + track.steps, atol=0.05)
    assert len(track.seen(25.0)) == 1
    assert len(track.seen(25.0, join=0.2)) == 2


def test_false_faces_of_a_moment_are_dropped_without_using_up_an_id() -> None:
    script = [[(20, 20, 30)] for _ in range(40)]
    script[0] = [(90, 20, 30)]
    tracks = follow(Oracle(script))
    assert [t.id for t in tracks] == [0]
    assert tracks[0].boxes[0, 0] == 20
    assert [len(t.steps) for t in follow(Oracle([[(20, 20, 30)]]))] == [1]  # all there is of a clip of one frame


def test_faint_finds_start_nothing_but_continue_a_track() -> None:
    assert follow(Oracle([[(20, 20, 30, 0.8)]] * 20)) == []
    script = [[(20, 20, 30, 0.99 if k % 10 == 0 else 0.8)] for k in range(30)]
    assert [len(t.steps) for t in follow(Oracle(script))] == [30]


@pytest.mark.parametrize(("x", "away", "ids"), [(22, 20, 1), (100, 20, 2), (22, 80, 2)])
def test_who_comes_back_to_the_same_place_soon_keeps_the_id(x: float, away: int, ids: int) -> None:
    script = [[(20.0, 20, 30)]] * 20 + [[]] * away + [[(x, 20, 30)]] * 20
    tracks = follow(Oracle(script))
    assert len(tracks) == ids
    assert sum(len(t.steps) for t in tracks) == 40


def test_a_cut_ends_every_track() -> None:
    oracle = Oracle([[(20, 20, 30)]] * 30)
    tracks = follow(oracle, cuts=(13,))
    assert [t.steps.tolist() for t in tracks] == [list(range(13)), list(range(13, 30))]
    assert oracle.full == [0, 10, 13, 23]


def test_brighter_light_is_no_cut_and_another_picture_size_is() -> None:
    oracle = Oracle([[(20, 20, 30)]] * 20)
    frames = list(oracle.frames())
    dim = [Frame(f.index, f.time, np.where(f.image > 1, f.image // 2, f.image)) for f in frames]
    for frame, darker in zip(frames, dim, strict=True):
        darker.image[0, 0] = frame.image[0, 0]
    assert len(track_faces(frames[:10] + dim[10:], oracle, 5.0)) == 1
    small = [Frame(f.index, f.time, f.image[:80].copy()) for f in frames]
    assert len(track_faces(frames[:10] + small[10:], oracle, 5.0)) == 2


def test_two_finds_on_one_face_are_one_track() -> None:
    tracks = follow(Oracle([[(20, 20, 30), (23, 22, 27, 0.95)]] * 20))
    assert [len(t.steps) for t in tracks] == [20]


def test_blocks_through_one_tracker_equal_one_pass() -> None:
    script = [[(20 + k / 4, 20, 30), (110, 40, 24)] if k < 70 else [(110, 40, 24)] for k in range(100)]
    oracle = Oracle(script)
    whole = follow(oracle)
    tracker = FaceTracker(oracle, 5.0)
    parts: list[tuple[int, Track]] = []
    for start, end in ((0, 40), (40, 65), (65, 100)):
        for frame in oracle.frames(start, end):
            tracker.step(frame)
        parts += [(start, track) for track in tracker.take(end - start)]
    for track in whole:
        joined = np.concatenate([start + part.steps for start, part in parts if part.id == track.id])
        np.testing.assert_array_equal(joined, track.steps)
    assert {part.id for _, part in parts} == {track.id for track in whole}


def test_views_are_taken_of_every_face_at_its_own_time() -> None:
    script = [[(20, 20, 30), (100, 40, 24)]] * 30
    script[11] = [(100, 40, 24)]
    oracle = Oracle(script)

    def look(images: Sequence[np.ndarray], landmarks: np.ndarray, which: np.ndarray) -> np.ndarray:
        return np.column_stack([np.stack(images)[which, 0, 0, 1], landmarks[:, 0, 0]])

    tracks = track_faces(oracle.frames(), oracle, 5.0, look=look)
    assert [len(t.steps) for t in tracks] == [30, 30]
    for track in tracks:
        np.testing.assert_array_equal(track.views[:, 0], track.steps)
        np.testing.assert_allclose(track.views[:, 1], track.landmarks[:, 0, 0])


def test_pictures_are_not_kept() -> None:
    oracle = Oracle([[(20, 20, 30)]] * 200)
    tracker, alive = FaceTracker(oracle, 25.0, bridge=0.2), []
    for frame in oracle.frames():
        tracker.step(frame)
        alive.append(weakref.ref(frame.image))
        del frame
        assert sum(ref() is not None for ref in alive) <= LOOKS + 6


def test_stretches_join_small_holes() -> None:
    assert stretches(np.array([0, 1, 2, 5, 6]), 10.0) == [(0.0, 0.3), (0.5, 0.7)]
    assert stretches(np.array([0, 1, 2, 5, 6]), 10.0, join=0.2) == [(0.0, 0.7)]
    assert stretches(np.array([], int), 10.0) == []


def test_several_faces_of_one_picture_are_refined_at_once(shared_data: Path) -> None:
    clip = Clip(shared_data / "av_clips" / "openface__multi_face.avi", end=0.1)
    image, detector = next(clip.frames(10.0, 640)).image, FaceDetector()
    found = detector.detect(image)
    boxes = np.array([face.box for face in found] + [[0, 300, 60, 360]])
    together = detector.refine([image], boxes)
    assert len(found) == 3
    assert together[3] is None
    for face, near, alone in zip(found, together, detector.refine([image] * 4, boxes), strict=False):
        assert near is not None and alone is not None
        assert np.abs(near.landmarks - face.landmarks).max() < 0.1 * face.side
        np.testing.assert_allclose(near.landmarks, alone.landmarks, atol=1e-2)
    with pytest.raises(BadMedia, match="2 pictures for 4 faces"):
        detector.refine([image] * 2, boxes)


def test_a_real_face_is_followed_across_the_picture() -> None:
    photo = pytest.importorskip("skimage.data").astronaut()[:300, 100:360]
    shifts = (20 + 60 * np.sin(np.arange(50) / 12)).astype(int) + 60

    def frames() -> Iterator[Frame]:
        for k, x in enumerate(shifts):
            canvas = np.full((360, 480, 3), 110, np.uint8)
            canvas[20:320, x : x + 260] = photo
            yield Frame(k, k / 25, canvas)

    tracker = FaceTracker(FaceDetector(), 25.0)
    for frame in frames():
        tracker.step(frame)
    [track] = tracker.take()
    assert tracker.searches == 1
    np.testing.assert_array_equal(track.steps, np.arange(50))
    truth = np.array([[103, 122], [147, 123], [124, 148], [102, 160], [146, 163]]) + np.stack(
        [shifts, np.zeros(50)], 1
    )[:, None]
    assert np.abs(track.landmarks - truth).max() < 9
    assert np.abs(track.landmarks - truth).mean() < 3


def test_three_people_of_a_real_clip_are_three_tracks(shared_data: Path) -> None:
    clip = Clip(shared_data / "av_clips" / "openface__multi_face.avi", end=6.0)
    tracks = track_faces(clip.frames(10.0, 640), FaceDetector(), 10.0)
    assert len(tracks) == 3
    assert all(len(track.steps) > 57 for track in tracks)
