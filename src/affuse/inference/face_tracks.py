"""The faces of a clip, followed block by block: who is on screen, who speaks, and which face to encode."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from affuse.core.timeline import FaceTrack
from affuse.core.types import Feature
from affuse.features.face_crops import FaceCrops
from affuse.inference.windows import BLOCK_SECONDS
from affuse.media.clip import Clip
from affuse.media.speaking import VOICE_STEP, WIDE, mouth_motion, who_speaks
from affuse.media.tracks import MOST, PEER, Track

LIPS = 10.0  # pictures per second that show whose mouth moves
JOIN = 0.5  # s: two spans less apart than this are one
TAIL = 0.5  # s that are kept of every face, so that its mouth is compared across the border of two blocks
ARRAYS = ("steps", "boxes", "landmarks", "scores", "views")
Spans = list[tuple[float, float]]


class ClipFaces:
    """The faces of one clip; `voice`: probability of a voice every 32 ms, without which nobody is taken to speak."""

    def __init__(self, crops: FaceCrops, clip: Clip, voice: np.ndarray) -> None:
        self.crops, self.clip, self.voice = crops, clip, voice
        self.finer = max(1, round(LIPS / crops.fps)) if (voice >= 0.5).any() else 1
        self.rate = crops.fps * self.finer  # steps per second at which faces are followed
        self._tracker = crops.tracker(self.finer)
        self._step = 0  # up to which the faces were followed
        self._tracks: dict[int, Track] = {}  # steps from the clip's start; only those that may be needed again
        self._mouths: dict[int, list[np.ndarray]] = {}  # steps and motion [2, K] of the last WIDE s
        self._seen: dict[int, Spans] = {}
        self._speaking: dict[int, Spans] = {}

    def follow(self, start: float, end: float) -> FaceBlock:
        """The faces in [start, end) s. What lies before `start` is dropped: later calls start no earlier."""
        fps, since, part = self.crops.fps, self._step, int(BLOCK_SECONDS * self.rate)
        first = math.floor(start * fps + 1e-6) * self.finer
        for to in (*range(since + part, first, part), math.ceil(end * self.rate - 1e-6)):
            self._follow_to(to, first)
        self._find_speakers(since)
        last = min(math.ceil(end * fps - 1e-6) / fps, self.clip.duration)
        clip = replace(self.clip, start=first / self.rate, end=last)
        tracks = [_from(self._tracks[i], first) for i in sorted(self._tracks)]
        tracks = [replace(track, steps=track.steps - first) for track in tracks if len(track.steps)]
        return FaceBlock(self, clip, tracks, [self._speaking[track.id] for track in tracks])

    def _follow_to(self, to: int, first: int) -> None:
        """Follow the faces up to step `to`, and drop what lies before step `first`."""
        if to <= self._step:
            return
        at, tail = self._step, self._step - math.ceil(TAIL * self.rate)
        kept = [_from(track, min(first, tail)) for track in self._tracks.values()]
        self._tracks = {track.id: track for track in kept if len(track.steps)}
        clip = replace(self.clip, start=at / self.rate, end=min(to / self.rate, self.clip.duration))
        for track in self.crops.follow(clip, self._tracker):
            new = replace(track, steps=track.steps + at)
            whole = _joined(self._tracks[new.id], new) if new.id in self._tracks else new
            if self.finer > 1:
                motion = mouth_motion(_from(whole, tail), self.rate, self.crops.margin)[-len(new.steps) :]
                self._mouths.setdefault(new.id, []).append(np.stack([new.steps, motion]))
            self._tracks[new.id] = whole
            _extend(self._seen.setdefault(new.id, []), new.seen(self.rate))
            self._speaking.setdefault(new.id, [])
        self._step = to

    def _find_speakers(self, since: int) -> None:
        """Who spoke from step `since` on, and just before it, now that what followed is known."""
        wide = round(WIDE * self.rate)
        first, known = max(0, since - wide), (since - wide / 2) / self.rate
        mouths = [np.concatenate(parts, axis=1) for parts in self._mouths.values()]
        start = first / self.rate
        voice = self.voice[round(start / VOICE_STEP) :]
        spans = who_speaks([(steps.astype(int) - first, motion) for steps, motion in mouths], voice, self.rate)
        for i, speech in zip(self._mouths, spans, strict=True):
            self._speaking[i] = [(a, min(b, known)) for a, b in self._speaking[i] if a < known]
            _extend(self._speaking[i], [(max(start + a, known), start + b) for a, b in speech if start + b > known])
        lately = {i: mouth[:, mouth[0] >= self._step - wide] for i, mouth in zip(self._mouths, mouths, strict=True)}
        self._mouths = {i: [mouth] for i, mouth in lately.items() if mouth.size}

    def tracks(self) -> list[FaceTrack]:
        """Every face that was followed so far, in the order of appearance, counted from 1; spans end with the clip."""
        end = self.clip.duration
        inside = [(i, _until(end, seen), _until(end, self._speaking[i])) for i, seen in sorted(self._seen.items())]
        return [FaceTrack(i + 1, seen, speaking) for i, seen, speaking in inside if seen]

    def why_absent(self, start: float, end: float) -> str:
        """Why there is no face in [start, end) s: none at all, or none that is large enough (checked every 15 s)."""
        too_small = [small for step, small in self._tracker.glimpses if start - PEER <= step / self.rate < end]
        if any(too_small):
            return f"no face of {self.crops.min_face} pixels or more; smaller ones are there"
        return "no face"

    def notes(self) -> list[str]:
        """What a reader should know about the faces that were followed so far."""
        return [f"more than {MOST} faces at once: {MOST} of them are followed"] if self._tracker.crowded else []


@dataclass
class FaceBlock:
    """A part of a clip: its tracks, and the spans (s on the whole clip's clock) in which each of them speaks."""

    faces: ClipFaces
    clip: Clip
    tracks: Sequence[Track]
    speech: list[Spans]
    _features: dict[int, Feature] = field(default_factory=dict)
    _embedded: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def speaker(self, start: float, end: float) -> int | None:
        """The track that speaks longest in [start, end) s; None if no mouth moves with the voice."""
        times = [sum(max(0.0, min(b, end) - max(a, start)) for a, b in spans) for spans in self.speech]
        return self.tracks[int(np.argmax(times))].id if max(times, default=0.0) > 0 else None

    def why_absent(self, start: float, end: float) -> str:
        """Why there is no face in [start, end) s."""
        return self.faces.why_absent(start, end)

    def crops(self, start: float, end: float) -> Feature:
        """Crops in [start, end) s of the face that speaks there, else of the most prominent one."""
        return self._part(self._whole(self._chosen(start, end)), start, end)

    def embedded(self, start: float, end: float, embed: Callable[[np.ndarray], np.ndarray]) -> Feature:
        """`embed` of those crops [n, size, size, 3], as [T, D]; each is embedded once, however segments overlap."""
        chosen = self._chosen(start, end)
        whole = self._whole(chosen)
        steps = len(whole.values)
        if chosen not in self._embedded:
            width = embed(whole.values[:0]).shape[1]
            self._embedded[chosen] = np.zeros((steps, width), np.float32), np.zeros(steps, bool)
        values, known = self._embedded[chosen]
        there = self._part(Feature(np.arange(steps), whole.valid), start, end)
        new = there.values[there.valid & ~known[there.values]]
        values[new], known[new] = embed(whole.values[new]), True
        return self._part(Feature(values, whole.valid), start, end)

    def _part(self, whole: Feature, start: float, end: float) -> Feature:
        return whole.between(self.faces.crops.fps, start - self.clip.start, end - self.clip.start)

    def _chosen(self, start: float, end: float) -> int:
        """The track to encode in [start, end) s: who speaks, else the most prominent face; -1 where there is none."""
        chosen = self.speaker(start, end)
        if chosen is None:
            chosen = max(self.tracks, key=lambda t: self._weight(t, start, end)).id if self.tracks else -1
        return chosen

    def _weight(self, track: Track, start: float, end: float) -> float:
        """Prominence within [start, end) s."""
        times = self.clip.start + track.steps / self.faces.rate
        inside = (times >= start) & (times < end)
        sides = np.sqrt(np.prod(track.boxes[inside, 2:] - track.boxes[inside, :2], axis=1).clip(0))
        return float((sides * track.scores[inside]).sum())

    def _whole(self, track: int) -> Feature:
        """The crops of one track over the whole block."""
        if track not in self._features:
            self._features[track] = self.faces.crops.feature(self.clip, self.tracks, [track], self.faces.finer)
        return self._features[track]


def _from(track: Track, step: int) -> Track:
    """The track from a step on."""
    k = int(np.searchsorted(track.steps, step))
    return Track(track.id, *(getattr(track, name)[k:] for name in ARRAYS))


def _joined(track: Track, later: Track) -> Track:
    """A track and its later part as one."""
    return Track(track.id, *(np.concatenate([getattr(track, name), getattr(later, name)]) for name in ARRAYS))


def _until(end: float, spans: Spans) -> Spans:
    """The parts of the spans before a time: the last step of a grid may reach beyond the clip."""
    return [(a, min(b, end)) for a, b in spans if a < end]


def _extend(spans: Spans, more: Spans) -> None:
    """Add later spans; one that begins where the last ended is joined with it."""
    for start, end in more:
        if spans and start - spans[-1][1] <= JOIN:
            spans[-1] = (spans[-1][0], max(spans[-1][1], end))
        else:
            spans.append((start, end))
