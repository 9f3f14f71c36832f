"""Faces over time: who is where in each picture, from one full search now and then and cheap ones in between."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from affuse.media.faces import Face, nms
from affuse.media.video import Frame

# P pictures of one size, landmarks [n, 5, 2], the picture [n] of each -> views [n, ...]
Look = Callable[[Sequence[np.ndarray], np.ndarray, np.ndarray], np.ndarray]
LOOKS = 8  # pictures whose faces are looked at together

RETRY = 0.2  # s between full searches while a face is missing or none is known
GAP = 0.5  # s for which a face that vanished is looked for near its last place
BACK = 10.0  # s within which a face that comes back to the same place at the same size gets its id back
SAME_PLACE, SAME_SIZE = 0.35, 1.3  # what "same" means there: centre distance in sides, ratio of sides
REACH, RUN, FAR = 0.5, 5.0, 2.0  # a followed face moves by at most REACH + RUN * seconds of its sides, and FAR
GROW = 1.6  # and grows or shrinks by at most this factor
KNOWN = 0.7  # score that confirms a face already followed; a new one needs `min_score`
ONE_FACE = 0.6  # shared area, of the smaller box, above which two finds are one face
MOST = 8  # people followed at a time
CUT_LIKENESS, CUT_CHANGE = 0.5, 8.0  # below this correlation and above these grey levels, another scene
ROW = np.dtype(
    [("id", "i4"), ("step", "i8"), ("box", "f4", 4), ("points", "f4", (5, 2)), ("score", "f4"), ("drift", "f4", 2)]
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
        """Stretches (s) in which the face is there; holes of at most `join` seconds are passed over."""
        return stretches(self.steps, fps, join)


def track_faces(
    frames: Iterable[Frame], detector: Detector, fps: float, *, look: Look = _nothing, **rules: float
) -> list[Track]:
    """The faces of a clip's frames, `fps` grid steps per second; `rules` are those of `FaceTracker`."""
    tracker = FaceTracker(detector, fps, look=look, **rules)
    for frame in frames:
        tracker.step(frame)
    return tracker.take()


class FaceTracker:
    """Follows faces through frames that come in order; keeps what it found, `bridge` s of pictures and LOOKS more.

    The full detector runs at the start, after a cut, every `every` s, and every 0.2 s while a followed face is missing
    or nobody is there; R- and O-net alone see the rest, near where each face is expected. So somebody who joins
    others is noticed up to `every` s late. Holes of up to `bridge` s are interpolated; tracks with fewer than
    `min_seconds` of pictures are dropped. Who comes back within 10 s to the same place at the same size keeps the id,
    anybody else gets a new one: faces are not told apart by looks. A cut ends all tracks.
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
    ) -> None:
        self.detector, self.fps, self.look = detector, fps, look
        self.every, self.min_seconds, self.min_score = every, min_seconds, min_score
        self.searches = self.refinements = 0
        self._known = np.zeros(0, ROW)  # the last sighting of each face that may still be met again
        self._recent: deque[Frame] = deque(maxlen=int(bridge * fps + 1e-6))
        self._picture: tuple[tuple[int, ...], np.ndarray] | None = None  # shape and thumbnail of the last one
        self._searched = -np.inf  # step of the last full search
        self._born = self._named = self._frames = 0
        self._names: dict[int, int] = {}  # born -> public id: a false face that is dropped uses up none
        self._rows: list[np.ndarray] = []
        self._views: list[np.ndarray] = []
        self._unseen: list[tuple[np.ndarray, np.ndarray]] = []  # pictures and landmarks that wait to be looked at

    def step(self, frame: Frame) -> None:
        """Find the followed faces in the next frame, and new ones where a full search is due."""
        self._frames += 1
        if self._cut(frame.image):
            self._known, self._searched = self._known[:0], -np.inf
            self._recent.clear()
        missed = frame.index - self._known["step"] - 1
        self._known, missed = self._known[missed <= BACK * self.fps], missed[missed <= BACK * self.fps]
        live = missed <= GAP * self.fps
        around = _expected(self._known, frame.index, self.fps)
        faces, full = self._faces(frame, around[live])
        which, found = self._matched(around, live, frame.index, faces)
        fresh = np.setdiff1d(np.flatnonzero(faces["score"] >= self.min_score), found) if full else found[:0]
        self._meet(frame, which, faces[found], faces[fresh])
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
        self._searched -= steps
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

    def _cut(self, image: np.ndarray) -> bool:
        """Whether this picture shows another scene than the last one, brightness and contrast aside."""
        last, now = self._picture, _thumbnail(image)
        self._picture = image.shape, now
        if last is None or last[0] != image.shape:
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
        sure = faces[faces["score"] >= self.min_score]  # what only the cheap search sees must be clear to live on
        both = np.concatenate([searched[searched["score"] >= low], sure])
        return _distinct(both)[: 2 * MOST], True

    def _near(self, image: np.ndarray, around: np.ndarray, low: float) -> np.ndarray:
        if len(around) == 0:
            return np.zeros(0, ROW)
        self.refinements += 1
        return _rows([f for f in self.detector.refine(image[None], around) if f is not None and f.score >= low])

    def _matched(
        self, around: np.ndarray, live: np.ndarray, step: int, faces: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (known, face) of the assignment with most overlap and least distance, within each track's bounds."""
        side, other = _sides(around)[:, None], _sides(faces["box"])[None]
        apart = np.linalg.norm(_centres(around)[:, None] - _centres(faces["box"]), axis=-1) / side
        grown = np.abs(np.log(other / side))
        seconds = (step - self._known["step"]) / self.fps
        reach = np.where(live, np.minimum(REACH + RUN * seconds, FAR), SAME_PLACE)[:, None]
        ratio = np.log(np.where(live, GROW, SAME_SIZE))[:, None]
        fits = (apart <= reach) & (grown <= ratio) & (live[:, None] | (faces["score"] >= self.min_score)[None])
        cost = np.where(fits, 1 - _overlap(around, faces["box"]) + apart + grown + ~live[:, None], 1e3)
        which, found = map(np.asarray, linear_sum_assignment(cost))
        good = fits[which, found]
        return which[good], found[good]

    def _meet(self, frame: Frame, which: np.ndarray, met: np.ndarray, fresh: np.ndarray) -> None:
        """Note the sightings of known faces `which` and of fresh ones, and bridge the holes that just closed."""
        before = self._known[which]
        steps = np.maximum(frame.index - before["step"], 1)
        moved = (_centres(met["box"]) - _centres(before["box"])) / steps[:, None]
        met["id"], met["drift"] = before["id"], (before["drift"] + moved) / 2
        room = max(0, MOST - int((frame.index - self._known["step"] <= GAP * self.fps + 1).sum()))
        fresh = fresh[np.argsort(-_sides(fresh["box"]) * fresh["score"])][:room]
        fresh["id"] = self._born + np.arange(len(fresh))
        self._born += len(fresh)
        met["step"] = fresh["step"] = frame.index
        now = np.concatenate([met, fresh])
        short = (steps > 1) & (steps - 1 <= (self._recent.maxlen or 0))
        for earlier in self._recent if short.any() else ():
            self._note(earlier.image, _between(before[short], met[short], earlier.index))
        self._note(frame.image, now)
        self._known[which] = met
        self._known = np.concatenate([self._known, fresh])

    def _note(self, image: np.ndarray, rows: np.ndarray) -> None:
        if len(rows):
            if self._unseen and (len(self._unseen) >= LOOKS or self._unseen[0][0].shape != image.shape):
                self._see()
            self._rows.append(rows)
            self._unseen.append((image, rows["points"]))

    def _see(self) -> None:
        """Look at the faces that wait; together is faster."""
        if self._unseen:
            images, points = zip(*self._unseen, strict=True)
            which = np.repeat(np.arange(len(images)), [len(p) for p in points])
            self._views.append(self.look(images, np.concatenate(points), which))
            self._unseen = []


def stretches(steps: np.ndarray, fps: float, join: float = 0.0) -> list[tuple[float, float]]:
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
