"""Aligned face crops on a time grid: what picture encoders look at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from affuse.core import io
from affuse.core.errors import BadConfig
from affuse.core.types import Feature, StreamSpec
from affuse.features.networks import pretrained

if TYPE_CHECKING:
    from affuse.media.clip import Clip
    from affuse.media.tracks import Detector, FaceTracker, Track

CARD = {
    "summary": "upright face crops of the most prominent person, 5 per second, masked while that face is away",
    "source": "MTCNN, Zhang et al. 2016 (weights of the mtcnn wheel, MIT); alignment after Umeyama 1991",
    "entry": "FaceCrops",
    "modalities": ["vision"],
    "licence": "Apache-2.0",
    "version": 2,
    "download": "nothing: the weights of the mtcnn wheel (2 MB, MIT)",
    "rate": "fps, 5 by default",
    "dim": "size x size x 3, 48 by default",
}
LONGEST_SIDE = 640  # pixels; the decoder scales larger pictures down
AHEAD = 16  # pictures decoded at a time: decoder and networks taking turns picture by picture empty each other's caches


class FaceCrops:
    """Clip -> uint8 [T, size, size, 3], the face of one person at t / fps s; valid [T]: that face was found.

    `min_face`: smallest face side in pixels of the picture (longest side at most 640); `min_score`: 0..1, below
    which a find is no face; `margin`: context around ArcFace's tight crop, as a share of its side. `detector`: the ONNX
    file of a YuNet that takes MTCNN's place (its scores end at about 0.95: set min_score=0.7), `detector_sha256` its
    checksum.
    A clip without any face is all invalid; a clip without a picture has T = 0.
    """

    def __init__(
        self,
        *,
        fps: float = 5.0,
        size: int = 48,
        min_face: int = 40,
        min_score: float = 0.9,
        margin: float = 0.2,
        detector: Path | None = None,
        detector_sha256: str = "",
    ) -> None:
        if not 0 < fps < math.inf or min(size, min_face) < 1:
            raise BadConfig(
                f"no face crops have fps={fps}, size={size}, min_face={min_face}",
                "give fps above 0, and 1 pixel or more",
            )
        self.fps, self.size, self.min_face, self.min_score, self.margin = fps, size, min_face, min_score, margin
        self.detector, self.detector_sha256 = detector, detector_sha256

    @property
    def spec(self) -> StreamSpec:
        """One crop per step, 0..1 for a model."""
        return StreamSpec("face_crops", "vision", (self.size, self.size, 3), self.fps, 1 / 255)

    @property
    def weights_hash(self) -> str:
        """Hash of the detector's weights, for the store's card."""
        from affuse.media.mtcnn import WEIGHTS_HASH

        return WEIGHTS_HASH if self._file is None else io.file_sha256(self._file)

    @cached_property
    def _file(self) -> Path | None:
        """The detector's file, checked; None for MTCNN."""
        if self.detector is None:
            return None
        return pretrained.file(
            self.detector, self.detector_sha256, "a YuNet face detector (ONNX, 0.3 MB, Apache-2.0)", "detector"
        )

    @cached_property
    def _detector(self) -> Detector:
        return self._finder(self.min_face)

    @cached_property
    def _closer(self) -> Detector:
        return self._finder(max(1, self.min_face // 2))

    def _finder(self, min_face: int) -> Detector:
        from affuse.media.faces import FaceDetector
        from affuse.media.yunet import YuNet

        return FaceDetector(min_face, LONGEST_SIDE) if self._file is None else YuNet(self._file, min_face, LONGEST_SIDE)

    def __call__(self, clip: Clip) -> Feature:
        """The crops of the most prominent person in the clip's picture."""
        return self.feature(clip, self.follow(clip))

    def tracker(self, finer: int = 1) -> FaceTracker:
        """A tracker for one recording, `finer` grid steps to each step of the crops; passed on, it keeps the ids.

        While nobody is there, it also looks for faces of half of `min_face` (its `glimpses`).
        """
        from affuse.media.tracks import FaceTracker

        fps, least = self.fps * finer, self.min_score
        return FaceTracker(self._detector, fps, min_score=least, look=self._look, small=self._sees_small)

    def follow(self, clip: Clip, tracker: FaceTracker | None = None) -> list[Track]:
        """Everybody's track, its `views` uint8 [K, size, size, 3] the crops, in one pass over the clip's picture.

        A recording goes block by block through one `tracker`, each block a Clip that begins where the last one ended.
        """
        from affuse.media.tracks import FaceTracker

        if not clip.has_video:
            return []
        if tracker is None:
            tracker = FaceTracker(self._detector, self.fps, min_score=self.min_score, look=self._look)
        frames = clip.frames(tracker.fps, LONGEST_SIDE)
        while some := list(islice(frames, AHEAD)):
            for frame in some:
                tracker.step(frame)
        return tracker.take(clip.steps(tracker.fps))

    def feature(
        self, clip: Clip, tracks: Sequence[Track], ids: Iterable[int] | None = None, finer: int = 1
    ) -> Feature:
        """The crops of the most prominent of the clip's tracks, or of the tracks `ids` of one person together."""
        ranked = sorted(tracks, key=lambda track: track.prominence)
        asked = {track.id for track in ranked[-1:]} if ids is None else set(ids)
        steps = clip.steps(self.fps) if clip.has_video else 0
        values = np.zeros((steps, self.size, self.size, 3), np.uint8)
        valid = np.zeros(steps, bool)
        for track in (track for track in ranked if track.id in asked):
            here = (track.steps % finer == 0) & (track.steps < steps * finer)
            at = track.steps[here] // finer
            values[at], valid[at] = track.views[here], True
        return Feature(values, valid)

    def blocks(self, clip: Clip, length: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The valid steps [n] and crops [n, size, size, 3] of a clip, at most `length` at a time.

        Same crops as from a call, in flat memory however long the clip: a first pass over the picture follows the
        faces, a second one cuts out the most prominent person.
        """
        from affuse.media.tracks import FaceTracker

        tracks = self.follow(clip, FaceTracker(self._detector, self.fps, min_score=self.min_score))
        if not tracks:
            return
        front = sorted(tracks, key=lambda track: track.prominence)[-1]
        where = dict(zip(front.steps.tolist(), front.landmarks, strict=True))
        there = (frame for frame in clip.frames(self.fps, LONGEST_SIDE) if frame.index in where)
        while some := list(islice(there, length)):
            crops = [self._look([frame.image], where[frame.index][None], np.zeros(1, int)) for frame in some]
            yield np.array([frame.index for frame in some]), np.concatenate(crops)

    def _sees_small(self, image: np.ndarray) -> bool:
        """Whether a picture shows faces below `min_face`."""
        (faces,) = self._closer.detect_batch(image[None])
        return any(face.score >= self.min_score and face.side < self.min_face for face in faces)

    def _look(self, images: Sequence[np.ndarray], landmarks: np.ndarray, which: np.ndarray) -> np.ndarray:
        from affuse.media.faces import align_batch

        return align_batch(images, landmarks, self.size, self.margin, which)
