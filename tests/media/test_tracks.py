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
from affuse.media.tracks import LOOKS, MOST, PEER, FaceTracker, Track, spans_of, track_faces
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
    # the boxes slide over a ground that stays: a leap of a third of a box shows as another face does
    leaps = np.clip(rng.normal(0, 3, (40, people, 2)), -5, 5)
    walk = np.clip(np.cumsum(leaps, 0), -12, 12) + [[100 * p, 40] for p in range(people)]
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


def smooth(seed: int, height: int = 90, width: int = 160) -> np.ndarray:
    """A picture of soft patches, as of clothes, hair and skin."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(20, 235, (height // 10, width // 10, 3))
    rows, columns = np.arange(height) // 10, np.arange(width) // 10
    sharp = coarse[np.minimum(rows, len(coarse) - 1)][:, np.minimum(columns, coarse.shape[1] - 1)]
    return np.mean([np.roll(sharp, (y, x), (0, 1)) for y in range(-3, 4) for x in range(-3, 4)], axis=0)


ROOM, PEOPLE = smooth(0), [smooth(1, 50, 50), smooth(2, 50, 50), smooth(5, 50, 50)]


def shown(who: Sequence[int], shift: Sequence[float] | None = None) -> list[np.ndarray]:
    """Pictures of the room with a person in the same place (-1: nobody), moved to the right by pixels."""
    pictures = []
    for k, i in enumerate(who):
        picture, x = ROOM.copy(), 50 + (0 if shift is None else round(shift[k]))
        if i >= 0:
            picture[30:80, x : x + 50] = PEOPLE[i]
        pictures.append(picture)
    return pictures


class Seated(Oracle):
    """Pictures with one face in the middle of the person, where there is one."""

    def __init__(self, pictures: Sequence[np.ndarray], there: Sequence[tuple[float, float, float] | None]) -> None:
        super().__init__([[] if at is None else [at] for at in there])
        self.pictures = pictures

    def frames(self, start: int = 0, end: int | None = None, cuts: tuple[int, ...] = ()) -> Iterator[Frame]:
        for k, picture in enumerate(self.pictures):
            image = picture.clip(0, 255).astype(np.uint8)
            image[0, 0] = k >> 8, k & 255, 0
            yield Frame(k, 0.0, image)


def seats(who: Sequence[int], shift: Sequence[float] | None = None) -> list[tuple[float, float, float] | None]:
    return [None if i < 0 else (63 + (0 if shift is None else shift[k]), 42, 24) for k, i in enumerate(who)]


def whose(tracks: Sequence[Track], who: Sequence[int]) -> dict[int, set[int]]:
    """The people whom each track shows."""
    return {track.id: {who[step] for step in track.steps} for track in tracks}


@pytest.mark.parametrize("moving", [0, 3])
@pytest.mark.parametrize("fps", [5.0, 10.0, 25.0])
def test_a_cut_between_people_in_one_place_begins_another_track_and_back_goes_on(fps: float, moving: float) -> None:
    turn = int(2 * fps)
    who = [i for i in (0, 1, 0, 1, 2) for _ in range(turn)]
    sway = np.sin(np.arange(len(who)) / fps * 3) * moving
    oracle = Seated(shown(who, sway), seats(who, sway))
    tracks = follow(oracle, fps)
    assert all(len(people) == 1 for people in whose(tracks, who).values())
    assert sum(len(t.steps) for t in tracks) == len(who)
    if not moving:  # who looks just as before keeps the id
        assert whose(tracks, who) == {0: {0}, 1: {1}, 2: {2}}
    assert {turn, 2 * turn, 3 * turn, 4 * turn} <= set(oracle.full)  # whoever else came with the cut is looked for


@pytest.mark.parametrize("away", [1, 10, 40])
def test_somebody_else_on_an_empty_seat_gets_another_id(away: int) -> None:
    who = [0] * 20 + [-1] * away + [1] * 20 + [-1] * away + [1] * 20
    tracks = follow(Seated(shown(who), seats(who)), 5.0)
    assert {i: people - {-1} for i, people in whose(tracks, who).items()} == {0: {0}, 1: {1}}  # a step alone is bridged


def test_what_happens_to_one_person_leaves_the_track_whole() -> None:
    n, sway = 60, np.sin(np.arange(60) * 0.7) * 2
    swing = np.cumsum(np.where(np.arange(n) // 5 % 2, 3.0, -3.0))  # 30 pixels a second, to and fro
    still, there = shown([0] * n, sway), seats([0] * n, sway)
    hand, flash = [p.copy() for p in still], [p.copy() for p in still]
    for k in range(30, 38):
        hand[k][74 - 4 * min(k - 30, 4) : 74, 66:84] = (190, 140, 120)
    flash[29:] = shown([0] * 31, np.full(31, sway[29]))
    flash[30][:] = 250
    events = {
        "darker": [p * (0.5 if k >= 30 else 1) for k, p in enumerate(still)],
        "brighter": [p * (1.4 if k >= 30 else 1) for k, p in enumerate(still)],
        "flicker": [p * (0.7 if k % 2 else 1) for k, p in enumerate(still)],
        "hand": hand,
        "flash": flash,
    }
    for name, pictures in events.items():
        places = [None if name == "flash" and k == 30 else at for k, at in enumerate(there)]
        tracks = follow(Seated(pictures, places), 10.0)
        assert [t.id for t in tracks] == [0], name
    assert len(follow(Seated(shown([0] * n, swing), seats([0] * n, swing)), 10.0)) == 1


def test_a_zoom_leaves_the_track_whole() -> None:
    scene, zooms = shown([0])[0], np.linspace(1, 1.8, 40)
    rows, columns = np.arange(90), np.arange(160)
    down = [np.rint((rows - 54) / z + 54).astype(int) for z in zooms]
    across = [np.rint((columns - 75) / z + 75).astype(int) for z in zooms]
    pictures = [scene[y][:, x] for y, x in zip(down, across, strict=True)]
    there = [(75 - 12 * z, 54 - 12 * z, 24 * z) for z in zooms]
    assert len(follow(Seated(pictures, there), 10.0)) == 1


def test_drawn_people_of_a_conversation_keep_their_ids() -> None:
    from affuse.corpora.synthesis.face import draw_face
    from affuse.corpora.synthesis.face import frames as drawn

    people = [draw_face(np.random.default_rng([4, 3, i]), 0.8) for i in range(2)]
    pictures: list[np.ndarray] = []
    who = [i for i in (0, 1, 0, 1) for _ in range(20)]
    for turn, i in enumerate((0, 1, 0, 1)):
        mouth = np.abs(np.sin(np.arange(20) * 1.3))
        pictures += drawn(people[i], {"happy": 0.6, "neutral": 0.4}, mouth, 10.0, np.random.default_rng(turn), 0.1)
    tracks = track_faces([Frame(k, k / 10, p) for k, p in enumerate(pictures)], FaceDetector(), 10.0)
    assert whose(tracks, who) == {0: {0}, 1: {1}}
    assert sum(len(t.steps) for t in tracks) == 80


@pytest.mark.parametrize(("people", "crowded"), [(MOST, False), (MOST + 2, True)])
def test_more_people_than_are_followed_are_noticed(people: int, crowded: bool) -> None:
    tracker = FaceTracker(oracle := Oracle([[(15 * i, 20, 10 + i % 3) for i in range(people)]] * 10), 5.0)
    for frame in oracle.frames():
        tracker.step(frame)
    assert len(tracker.take()) == MOST
    assert tracker.crowded == crowded


def test_smaller_faces_are_looked_for_now_and_then_where_nobody_is_there() -> None:
    script = [[(20.0, 20, 30)]] * 20 + [[]] * 180
    looked: list[int] = []
    tracker = FaceTracker(oracle := Oracle(script), 5.0, small=lambda image: looked.append(1) or len(looked) == 2)
    for start, end in ((0, 60), (60, 200)):
        for frame in oracle.frames(start, end):
            tracker.step(frame)
        tracker.take(end - start)
    steps = [step for step, _ in tracker.glimpses]
    assert [small for _, small in tracker.glimpses] == [False, True, False]
    assert 20 <= steps[0] <= 24
    assert np.diff(steps).tolist() == [PEER * 5.0] * 2


def test_spans_join_small_holes() -> None:
    assert spans_of(np.array([0, 1, 2, 5, 6]), 10.0) == [(0.0, 0.3), (0.5, 0.7)]
    assert spans_of(np.array([0, 1, 2, 5, 6]), 10.0, join=0.2) == [(0.0, 0.7)]
    assert spans_of(np.array([], int), 10.0) == []


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
