"""Who is in a clip's picture: faces followed block by block, which of them speaks, and whom to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from affuse.core.types import Feature
from affuse.features.face_crops import FaceCrops
from affuse.inference.timeline import FaceTrack
from affuse.media.clip import Clip
from affuse.media.speaking import VOICE_STEP, speaking
from affuse.media.tracks import Track

LIPS = 10.0  # pictures per second that show whose mouth moves
JOIN = 0.5  # s between blocks over which a stretch goes on
Spans = list[tuple[float, float]]


class People:
    """The faces of one clip; `voice`: probability of a voice every 32 ms, without which nobody can be heard."""

    def __init__(self, crops: FaceCrops, voice: np.ndarray) -> None:
        self.crops, self.voice = crops, voice
        self.finer = max(1, round(LIPS / crops.fps)) if (voice >= 0.5).any() else 1
        self._tracker = crops.tracker(self.finer)
        self._at = 0.0
        self._seen: dict[int, Spans] = {}
        self._speaking: dict[int, Spans] = {}

    def follow(self, path: Path, end: float) -> Block:
        """The faces between the end of the last block and `end` (s); ids go on from block to block."""
        clip, start = Clip(video=path, start=self._at, end=max(end, self._at)), self._at
        tracks = self.crops.follow(clip, self._tracker)
        fps = self.crops.fps * self.finer
        heard = self.voice[round(start / VOICE_STEP) :]
        spans = speaking(tracks, heard, fps, self.crops.margin) if self.finer > 1 else [[] for _ in tracks]
        block = Block(self, clip, start, tracks, [[(start + a, start + b) for a, b in s] for s in spans])
        for track, spoken in zip(tracks, block.spoken, strict=True):
            _extend(self._seen.setdefault(track.id, []), [(start + a, start + b) for a, b in track.seen(fps)])
            _extend(self._speaking.setdefault(track.id, []), spoken)
        self._at = clip.start + clip.duration
        return block

    def faces(self) -> list[FaceTrack]:
        """Everybody who was followed so far, in the order of appearance, counted from 1."""
        return [FaceTrack(i + 1, seen, self._speaking[i]) for i, seen in sorted(self._seen.items())]


@dataclass
class Block:
    """A part of a clip from `start` (s): its tracks, and the stretches (s on the clip's clock) in which each speaks."""

    people: People
    clip: Clip
    start: float
    tracks: Sequence[Track]
    spoken: list[Spans]
    _features: dict[int, Feature] = field(default_factory=dict)
    _read: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def speaker(self, start: float, end: float) -> int | None:
        """The track that speaks longest in [start, end) s; None if nobody's mouth moves with the voice."""
        times = [sum(max(0.0, min(b, end) - max(a, start)) for a, b in spans) for spans in self.spoken]
        return self.tracks[int(np.argmax(times))].id if max(times, default=0.0) > 0 else None

    def crops(self, start: float, end: float) -> Feature:
        """Crops in [start, end) s of whoever speaks there, else of the most prominent face there."""
        return self._part(self._whole(self._chosen(start, end)), start, end)

    def read(self, start: float, end: float, embed: Callable[[np.ndarray], np.ndarray]) -> Feature:
        """What `embed` makes of those crops [n, size, size, 3], [T, D]; each crop is read once, however stretches overlap."""
        chosen = self._chosen(start, end)
        whole = self._whole(chosen)
        steps = len(whole.values)
        if chosen not in self._read:
            self._read[chosen] = np.zeros((steps, embed(whole.values[:0]).shape[1]), np.float32), np.zeros(steps, bool)
        values, known = self._read[chosen]
        there = self._part(Feature(np.arange(steps), whole.valid), start, end)
        new = there.values[there.valid & ~known[there.values]]
        values[new], known[new] = embed(whole.values[new]), True
        return self._part(Feature(values, whole.valid), start, end)

    def _part(self, whole: Feature, start: float, end: float) -> Feature:
        return whole.between(self.people.crops.fps, start - self.start, end - self.start)

    def _chosen(self, start: float, end: float) -> int:
        """Whoever is to be looked at in [start, end) s; -1 where nobody is there."""
        chosen = self.speaker(start, end)
        if chosen is None:
            chosen = max(self.tracks, key=lambda t: self._weight(t, start, end)).id if self.tracks else -1
        return chosen

    def _weight(self, track: Track, start: float, end: float) -> float:
        """Prominence within [start, end) s."""
        times = self.start + track.steps / (self.people.crops.fps * self.people.finer)
        inside = (times >= start) & (times < end)
        sides = np.sqrt(np.prod(track.boxes[inside, 2:] - track.boxes[inside, :2], axis=1).clip(0))
        return float((sides * track.scores[inside]).sum())

    def _whole(self, track: int) -> Feature:
        """One person's crops over the whole block."""
        if track not in self._features:
            self._features[track] = self.people.crops.feature(self.clip, self.tracks, [track], self.people.finer)
        return self._features[track]


def _extend(spans: Spans, more: Spans) -> None:
    """Add later stretches; one that begins where the last ended goes on with it."""
    for start, end in more:
        if spans and start - spans[-1][1] <= JOIN:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
