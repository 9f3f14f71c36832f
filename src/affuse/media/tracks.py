"""Faces over time: one full search now and then, and cheap searches near the known faces in between."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from affuse.media.appearance import Appearance, cell_of, change_of, is_relit
from affuse.media.faces import Face, nms
from affuse.media.video import Frame

# P pictures of one size, landmarks [n, 5, 2], the picture [n] of each -> views [n, ...]
Look = Callable[[Sequence[np.ndarray], np.ndarray, np.ndarray], np.ndarray]
Glimpse = Callable[[np.ndarray], bool]  # whether a picture shows faces that are too small to be followed
LOOKS = 8  # pictures whose faces are passed to `look` together

RETRY = 0.2  # s between full searches while a face is missing or none is known
GAP = 0.5  # s for which a face that vanished is looked for near its last place
BACK = 10.0  # s within which a face that comes back to the same place at the same size gets its id back
SAME_PLACE, SAME_SIZE = 0.35, 1.3  # what "same" means there: centre distance in sides, ratio of sides
REACH, RUN, FAR = 0.5, 5.0, 2.0  # a followed face moves by at most REACH + RUN * seconds of its sides, and FAR
GROW = 1.6  # and grows or shrinks by at most this factor
KNOWN = 0.7  # score that confirms a face already followed; a new one needs `min_score`
ONE_FACE = 0.6  # shared area, of the smaller box, above which two finds are one face
MOST = 8  # people followed at a time
PEER, PEER_CUT = 15.0, 2.0  # s between looks for smaller faces while nobody is there, and where the scene has changed
CUT_LIKENESS, CUT_CHANGE = 0.5, 8.0  # below this correlation and above these grey levels, another scene
PAST = 2.0  # s over which the change of a face per step is measured
LEAST_CHANGE, LEAST_SHIFT = 0.015, 2.0  # the least that it counts as
MORE_CHANGE, MORE = 1.7, 4.7  # times as much change as before, and that times the shift: another person
GRAIN = 0.4  # change within half a cell above which a picture is too fine to compare: noise has 0.6, faces up to 0.24
REGRID = 1.25  # growth from which on a face's cells are too small or too large
# Change and shift up to which a face that comes back is the same person: in the same scene, and after a cut.
SAME_SCENE, NEW_SCENE = (0.3, 6.0), (0.12, 3.0)
ROW = np.dtype(
    [("id", "i4"), ("step", "i8"), ("box", "f4", 4), ("points", "f4", (5, 2)), ("score", "f4"), ("drift", "f4", 2)]
    + [("cut", "?")]
)


class Detector(Protocol):
    """What finds faces: `faces.FaceDetector`, or any other with these two searches."""

    def detect_batch(self, images: Sequence[np.ndarray] | np.ndarray) -> list[list[Face]]:
        """Faces of each of N uint8 pictures [H, W, 3] of one size, best score first."""

    def refine(self, images: Sequence[np.ndarray] | np.ndarray, boxes: np.ndarray) -> list[Face | None]:
        """The face near each of `boxes` [N, 4], or None."""


def _nothing(images: Sequence[np.ndarray], landmarks: np.ndarray, which: np.ndarray) -> np.ndarray:
    return np.zeros((len(landmarks), 0), np.uint8)


@dataclass(frozen=True)
class Track:
    """One face over time, in ascending steps of the frames' grid.

    steps [K]; boxes [K, 4] and landmarks [K, 5, 2] in pixels; scores [K], 0 where a short gap was bridged by
    interpolation; views [K, ...]: what `look` made of the face at each step, [K, 0] without it.
    """

    id: int
    steps: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray
    scores: np.ndarray
    views: np.ndarray

    @property
    def prominence(self) -> float:
        """Side x score, summed over the steps: large faces that stay stand out."""
        return float((_sides(self.boxes) * self.scores).sum())

    def seen(self, fps: float, join: float = 0.5) -> list[tuple[float, float]]:
        """Spans (s) in which the face is there; holes of at most `join` seconds are bridged."""
        return spans_of(self.steps, fps, join)


def track_faces(
    frames: Iterable[Frame], detector: Detector, fps: float, *, look: Look = _nothing, **rules: Any
) -> list[Track]:
    """The faces of a clip's frames, `fps` grid steps per second; `rules` are those of `FaceTracker`."""
    tracker = FaceTracker(detector, fps, look=look, **rules)
    for frame in frames:
        tracker.step(frame)
    return tracker.take()


class FaceTracker:
    """Follows faces through frames that come in order; keeps what it found, `bridge` s of pictures and LOOKS more.

    The full detector runs at the start, after a cut, every `every` s, and every 0.2 s while a followed face is missing
    or nobody is there; the other pictures only pass R- and O-net, near where each face is expected. So a person who
    joins others is noticed up to `every` s late. Holes of up to `bridge` s are interpolated; tracks with fewer than
    `min_seconds` of pictures are dropped. A face that comes back within 10 s to the same place at the same size and
    with the same appearance (stricter after a cut) keeps its id, any other gets a new one. A cut of the picture ends
    all tracks; a cut between two persons in the same place ends that face's track: it shows in the change of the face
    and its surroundings. A slow fade from one to the other is not noticed. At most 8 faces are followed at a time;
    `crowded`: there were more. While nobody is there, `small` looks for faces too small to be followed every 15 s;
    `glimpses` holds what it found.
    """

    def __init__(
        self,
        detector: Detector,
        fps: float,
        *,
        every: float = 2.0,
        bridge: float = 0.25,
        min_seconds: float = 0.4,
        min_score: float = 0.9,
        look: Look = _nothing,
        small: Glimpse | None = None,
    ) -> None:
        self.detector, self.fps, self.look, self.small = detector, fps, look, small
        self.every, self.min_seconds, self.min_score = every, min_seconds, min_score
        self.searches = self.refinements = 0
        self.crowded = False  # whether more than MOST faces were there at once
        self.glimpses: list[tuple[int, bool]] = []  # (step from the first picture on, whether there were small faces)
        self._known = np.zeros(0, ROW)  # the last sighting of each face that may still be met again
        self._recent: deque[Frame] = deque(maxlen=int(bridge * fps + 1e-6))
        self._picture: tuple[tuple[int, ...], np.ndarray] | None = None  # shape and thumbnail of the last one
        self._searched = self._peered = -np.inf  # steps of the last full search, and of the last for smaller faces
        self._past: dict[int, list[Appearance]] = {}  # born -> its appearances in the last PAST s
        self._taken = 0  # steps before the next take's first
        self._born = self._named = self._frames = 0
        self._names: dict[int, int] = {}  # born -> public id: a false face that is dropped uses up none
        self._rows: list[np.ndarray] = []
        self._views: list[np.ndarray] = []
        self._unseen: list[tuple[np.ndarray, np.ndarray]] = []  # pictures and landmarks that wait for `look`

    def step(self, frame: Frame) -> None:
        """Find the followed faces in the next frame, and new ones where a full search is due."""
        self._frames += 1
        if self._cut(frame.image):
            self._known["cut"], self._searched = True, -np.inf
            self._peered = min(self._peered, frame.index - (PEER - PEER_CUT) * self.fps)
            self._recent.clear()
        self._known = self._known[frame.index - self._known["step"] - 1 <= BACK * self.fps]
        self._past = {i: self._past[i] for i in self._known["id"].tolist()}
        while True:
            live = self._live(frame.index)
            around = _expected(self._known, frame.index, self.fps)
            faces, full = self._faces(frame, around[live])
            which, found = self._matched(frame, around, live, faces)
            boxes = faces["box"][found]
            looks = [self._appearance(frame, *pair) for pair in zip(self._known[which], boxes, strict=True)]
            pairs = zip(which, boxes, looks, strict=True)
            others = [k for k, box, now in pairs if live[k] and self._is_other(k, frame.image, box, now)]
            if not others:
                break
            self._known["cut"][others], self._searched = True, -np.inf  # another person is there: search everywhere
        fresh = np.setdiff1d(np.flatnonzero(faces["score"] >= self.min_score), found) if full else found[:0]
        self._meet(frame, which, faces[found], faces[fresh], looks)
        self._peer(frame)
        self._recent.append(frame)

    def take(self, steps: int = 0) -> list[Track]:
        """The tracks since the last take, by id; later frames continue them and count from step `steps` as their 0."""
        self._see()
        rows = np.concatenate([np.zeros(0, ROW), *self._rows])
        views = np.concatenate(self._views) if self._views else np.zeros((0, 0), np.uint8)
        order = np.lexsort([rows["step"], rows["id"]])
        parts = np.split(order, np.flatnonzero(np.diff(rows["id"][order])) + 1) if len(order) else []
        enough = min(self.min_seconds * self.fps - 1e-6, self._frames)
        kept = [p for p in parts if (rows["score"][p] > 0).sum() >= enough or rows["id"][p[0]] in self._names]
        kept.sort(key=lambda p: (rows["step"][p[0]], rows["id"][p[0]]))
        tracks = [self._track(rows[p], views[p]) for p in kept]
        self._known["step"] -= steps
        self._searched, self._peered, self._taken = self._searched - steps, self._peered - steps, self._taken + steps
        self._names = {born: name for born, name in self._names.items() if born in self._known["id"]}
        self._rows, self._views, self._frames = [], [], 0
        self._recent.clear()
        return sorted(tracks, key=lambda track: track.id)

    def _track(self, rows: np.ndarray, views: np.ndarray) -> Track:
        born = int(rows["id"][0])
        if born not in self._names:
            self._names[born], self._named = self._named, self._named + 1
        steps, boxes, points, scores = (np.ascontiguousarray(rows[k]) for k in ("step", "box", "points", "score"))
        return Track(self._names[born], steps, boxes, points, scores, views)

    def _live(self, step: int) -> np.ndarray:
        """Which of the known faces are followed [n]; the others are away, and may come back."""
        missed = step - self._known["step"] - 1
        return ~self._known["cut"] & (missed <= GAP * self.fps)

    def _cut(self, image: np.ndarray) -> bool:
        """Whether this picture shows another scene than the last one, brightness and contrast aside."""
        last, now = self._picture, _thumbnail(image)
        self._picture = image.shape, now
        if last is None or last[0] != image.shape:
            self._known = self._known[:0]
            return last is not None
        before = last[1]
        a, b = before - before.mean(), now - now.mean()
        likeness = (a * b).sum() / max(float(np.sqrt((a**2).sum() * (b**2).sum())), 1e-6)
        return bool(likeness < CUT_LIKENESS and np.abs(now - before).mean() > CUT_CHANGE)

    def _faces(self, frame: Frame, around: np.ndarray) -> tuple[np.ndarray, bool]:
        """Distinct faces (rows) near the boxes [n, 4], or in the whole picture where that is due; which of the two."""
        low = min(KNOWN, self.min_score)
        faces = _distinct(self._near(frame.image, around, low))
        wait = self.every if 0 < len(around) == len(faces) else RETRY
        if frame.index - self._searched < wait * self.fps - 1e-6:
            return faces, False
        self._searched, self.searches = frame.index, self.searches + 1
        searched = _rows(self.detector.detect_batch(frame.image[None])[0])
        sure = faces[faces["score"] >= self.min_score]  # a face that only the cheap search finds must be clear
        both = np.concatenate([searched[searched["score"] >= low], sure])
        return _distinct(both)[: 2 * MOST], True

    def _near(self, image: np.ndarray, around: np.ndarray, low: float) -> np.ndarray:
        if len(around) == 0:
            return np.zeros(0, ROW)
        self.refinements += 1
        return _rows([f for f in self.detector.refine(image[None], around) if f is not None and f.score >= low])

    def _matched(
        self, frame: Frame, around: np.ndarray, live: np.ndarray, faces: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (known, face) of the assignment with most overlap and least distance, within each track's bounds."""
        side, other = _sides(around)[:, None], _sides(faces["box"])[None]
        apart = np.linalg.norm(_centres(around)[:, None] - _centres(faces["box"]), axis=-1) / side
        grown = np.abs(np.log(other / side))
        seconds = (frame.index - self._known["step"]) / self.fps
        reach = np.where(live, np.minimum(REACH + RUN * seconds, FAR), SAME_PLACE)[:, None]
        ratio = np.log(np.where(live, GROW, SAME_SIZE))[:, None]
        fits = (apart <= reach) & (grown <= ratio) & (live[:, None] | (faces["score"] >= self.min_score)[None])
        fits &= live[:, None] | ~fits[live].any(0)  # a face that was away takes only what no followed face can be
        for k, i in np.argwhere(fits & ~live[:, None]):
            fits[k, i] = self._is_same(frame, self._known[k], faces["box"][i])
        cost = np.where(fits, 1 - _overlap(around, faces["box"]) + apart + grown + ~live[:, None], 1e3)
        which, found = map(np.asarray, linear_sum_assignment(cost))
        good = fits[which, found]
        return which[good], found[good]

    def _appearance(self, frame: Frame, before: np.ndarray, box: np.ndarray) -> Appearance:
        """The appearance of a known face now; `before`: its last row."""
        last = self._past[int(before["id"])][-1]
        now = Appearance.of(frame.image, box, self._taken + frame.index, last)
        now.shift = float(np.abs(last.colours - now.colours).mean(1).max())
        return now

    def _is_same(self, frame: Frame, before: np.ndarray, box: np.ndarray) -> bool:
        """Whether a face that comes back looks like the known face that was there; `before`: the last row of that."""
        last = self._past[int(before["id"])][-1]
        change, shift = NEW_SCENE if before["cut"] else SAME_SCENE
        looks = (self._appearance(frame, before, place) for place in (box, before["box"]))
        return any(now.shift <= shift and change_of(last, now) <= change for now in looks)

    def _is_other(self, known: int, image: np.ndarray, box: np.ndarray, now: Appearance) -> bool:
        """Whether a followed face became another person: everything changed at once, and far more than before.

        A real face may move, turn or blink; its clothes, hair and skin do not change their colours in that instant.
        """
        past = self._past[int(self._known["id"][known])]
        steps = now.step - past[-1].step
        longer = min(steps, 2)  # a face that was lost for a moment may have moved on
        lately = [longer * one.shift for one in past if np.isfinite(one.shift)]
        shifted = now.shift / max([*lately, LEAST_SHIFT + 10 * steps / self.fps])
        if not lately or shifted <= 1:
            return False
        for before, one in pairwise([*past, now]):
            if np.isnan(one.change):
                one.change = change_of(before, one, one.moved(before))
        changed = now.change / (longer * max([LEAST_CHANGE, *(one.change for one in past[1:])]))
        if changed <= MORE_CHANGE or changed * shifted <= MORE or is_relit(past[-1], now):
            return False
        half = max(1, round(now.cell / 2))
        nearby = Appearance.of(image[half:, half:], box, like=now)
        return change_of(now, nearby) < GRAIN

    def _meet(
        self, frame: Frame, which: np.ndarray, met: np.ndarray, fresh: np.ndarray, looks: Sequence[Appearance]
    ) -> None:
        """Note the sightings of known faces `which` and of fresh ones, and bridge the holes that just closed."""
        before = self._known[which]
        steps = np.maximum(frame.index - before["step"], 1)
        moved = (_centres(met["box"]) - _centres(before["box"])) / steps[:, None]
        met["id"], met["drift"] = before["id"], (before["drift"] + moved) / 2
        met["step"] = fresh["step"] = frame.index
        short = (steps > 1) & (steps - 1 <= (self._recent.maxlen or 0)) & ~before["cut"]
        for earlier in self._recent if short.any() else ():
            self._note(earlier.image, _between(before[short], met[short], earlier.index))
        self._known[which] = met
        room = max(0, MOST - int(self._live(frame.index).sum()))
        self.crowded |= len(fresh) > room
        fresh = fresh[np.argsort(-_sides(fresh["box"]) * fresh["score"])][:room]
        fresh["id"] = self._born + np.arange(len(fresh))
        self._born += len(fresh)
        self._note(frame.image, np.concatenate([met, fresh]))
        self._known = np.concatenate([self._known, fresh])
        step = self._taken + frame.index
        self._past |= {int(row["id"]): [Appearance.of(frame.image, row["box"], step)] for row in fresh}
        away = before["cut"] | (steps - 1 > GAP * self.fps)
        for row, now, back in zip(met, looks, away, strict=True):
            self._remember(frame.image, row, now, back)

    def _remember(self, image: np.ndarray, row: np.ndarray, now: Appearance, back: bool) -> None:
        """Add to a face's past; one that came back begins another, one that has grown gets a grid of its size."""
        past = self._past[int(row["id"])]
        past = [one for one in past if not back and now.step - one.step < PAST * self.fps]
        if past and not 1 / REGRID < cell_of(row["box"]) / now.cell < REGRID:
            change = change_of(past[-1], now, now.moved(past[-1]))
            now = replace(Appearance.of(image, row["box"], now.step), shift=now.shift, change=change)
        self._past[int(row["id"])] = [*past, now] if past else [Appearance.of(image, row["box"], now.step)]

    def _peer(self, frame: Frame) -> None:
        """Look for faces too small to be followed, now and then while nobody is there."""
        wait = PEER * self.fps - 1e-6
        if self.small is not None and not self._live(frame.index).any() and frame.index - self._peered >= wait:
            self._peered = frame.index
            self.glimpses.append((self._taken + frame.index, self.small(frame.image)))

    def _note(self, image: np.ndarray, rows: np.ndarray) -> None:
        if len(rows):
            if self._unseen and (len(self._unseen) >= LOOKS or self._unseen[0][0].shape != image.shape):
                self._see()
            self._rows.append(rows)
            self._unseen.append((image, rows["points"]))

    def _see(self) -> None:
        """Pass the faces that wait to `look`; together is faster."""
        if self._unseen:
            images, points = zip(*self._unseen, strict=True)
            which = np.repeat(np.arange(len(images)), [len(p) for p in points])
            self._views.append(self.look(images, np.concatenate(points), which))
            self._unseen = []


def spans_of(steps: np.ndarray, fps: float, join: float = 0.0) -> list[tuple[float, float]]:
    """Runs of ascending grid steps as (start, end) in seconds; holes of at most `join` seconds do not end a run."""
    if len(steps) == 0:
        return []
    runs = np.split(steps, np.flatnonzero(np.diff(steps) - 1 > join * fps + 1e-6) + 1)
    return [(float(run[0] / fps), float((run[-1] + 1) / fps)) for run in runs]


def _rows(faces: list[Face]) -> np.ndarray:
    rows = np.zeros(len(faces), ROW)
    if faces:
        rows["box"], rows["points"] = [f.box for f in faces], [f.landmarks for f in faces]
        rows["score"] = [f.score for f in faces]
    return rows


def _distinct(rows: np.ndarray) -> np.ndarray:
    """One row per face, best score first."""
    if len(rows) < 2:
        return rows
    boxes, scores = (torch.from_numpy(np.ascontiguousarray(rows[name])) for name in ("box", "score"))
    one = torch.zeros(len(rows), dtype=torch.long)
    return rows[nms(boxes, scores, one, ONE_FACE, by_smaller=True).numpy()]


def _expected(known: np.ndarray, step: int, fps: float) -> np.ndarray:
    """Boxes [n, 4] where the known faces should be by now; motion is trusted for half a second, fading."""
    elapsed = (step - known["step"])[:, None]
    shift = known["drift"] * elapsed * np.clip(1 - elapsed / (GAP * fps), 0, 1)
    return known["box"] + np.tile(shift, 2)


def _between(before: np.ndarray, after: np.ndarray, step: int) -> np.ndarray:
    """The rows that `step` misses between two sightings, moved evenly, score 0."""
    hole = (before["step"] < step) & (step < after["step"])
    before, after = before[hole], after[hole]
    share = (step - before["step"]) / (after["step"] - before["step"])
    rows = after.copy()
    rows["step"], rows["score"] = step, 0
    rows["box"] = before["box"] + share[:, None] * (after["box"] - before["box"])
    rows["points"] = before["points"] + share[:, None, None] * (after["points"] - before["points"])
    return rows


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """Mean green of 9 x 16 cells, every fourth pixel at most."""
    stride = min(4, max(1, image.shape[0] // 18), max(1, image.shape[1] // 32))
    green = image[::stride, ::stride, 1].astype(np.float32)
    height, width = (max(1, n // cells) for n, cells in zip(green.shape, (9, 16), strict=True))
    rows, columns = green.shape[0] // height, green.shape[1] // width
    return green[: rows * height, : columns * width].reshape(rows, height, columns, width).mean((1, 3))


def _centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _sides(boxes: np.ndarray) -> np.ndarray:
    return np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3), 1))


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union [n, m] of boxes [n, 4] and [m, 4]."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    return shared / (_sides(a)[:, None] ** 2 + _sides(b)[None] ** 2 - shared)
