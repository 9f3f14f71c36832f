"""Aligned face crops on a time grid: what picture encoders look at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from affuse.core.types import Feature, StreamSpec

if TYPE_CHECKING:
    from affuse.media.clip import Clip
    from affuse.media.faces import Face, FaceDetector
    from affuse.media.video import Frame

CARD = {
    "summary": "upright face crops, 5 per second, with frames without a face masked",
    "source": "MTCNN, Zhang et al. 2016 (weights of the mtcnn wheel, MIT); alignment after Umeyama 1991",
    "entry": "FaceCrops",
    "modalities": ["vision"],
    "licence": "Apache-2.0",
    "version": 1,
}
CHUNK = 32  # frames in memory at a time
LONGEST_SIDE = 640  # pixels; the decoder scales larger pictures down
REFRESH = 2.0  # seconds between full searches while a face stays in place
SAME = 0.3  # overlap of two boxes that are taken for one face standing still or moving slowly
KNOWN = 0.7  # score that confirms a face between two full searches that both found it


class FaceCrops:
    """Clip -> uint8 [T, size, size, 3], the most prominent face at t / fps s; valid [T]: a face was found.

    `min_face`: smallest face side in pixels of the picture (longest side at most 640); `min_score`: 0..1, below
    which a find is no face; `margin`: context around ArcFace's tight crop, as a share of its side.
    A clip without any face is all invalid; a clip without a picture has T = 0.
    """

    def __init__(
        self, *, fps: float = 5.0, size: int = 48, min_face: int = 40, min_score: float = 0.9, margin: float = 0.2
    ) -> None:
        self.fps, self.size, self.min_face, self.min_score, self.margin = fps, size, min_face, min_score, margin

    @property
    def spec(self) -> StreamSpec:
        """One crop per step, 0..1 for a model."""
        return StreamSpec("face_crops", "vision", (self.size, self.size, 3), self.fps, 1 / 255)

    @property
    def weights_hash(self) -> str:
        """Hash of the detector's weights, for the store's card."""
        from affuse.media.mtcnn import WEIGHTS_HASH

        return WEIGHTS_HASH

    @cached_property
    def _detector(self) -> FaceDetector:
        from affuse.media.faces import FaceDetector

        return FaceDetector(self.min_face, LONGEST_SIDE)

    def __call__(self, clip: Clip) -> Feature:
        """The crops of the clip's picture."""
        from affuse.media.faces import align_batch

        steps = clip.steps(self.fps) if clip.has_video else 0
        values = np.zeros((steps, self.size, self.size, 3), np.uint8)
        valid = np.zeros(steps, bool)
        for frames in _chunks(clip.frames(self.fps, LONGEST_SIDE)):
            images = np.stack([frame.image for frame in frames])
            faces = self._one_each(images)
            seen = [i for i, face in enumerate(faces) if face is not None]
            at = [frames[i].index for i in seen]
            landmarks = np.array([face.landmarks for face in faces if face is not None])
            values[at], valid[at] = align_batch(images[seen], landmarks, self.size, self.margin), True
        return Feature(values, valid)

    def _one_each(self, images: np.ndarray) -> list[Face | None]:
        """The most prominent face of each picture: full searches at key frames, cheap ones between two that agree."""
        intervals = math.ceil((len(images) - 1) / max(1.0, REFRESH * self.fps))
        keys = np.unique(np.linspace(0, len(images) - 1, intervals + 1).round().astype(int))
        faces: list[Face | None] = [None] * len(images)
        self._search(images, keys, faces)
        between, boxes = _tracked(keys, faces)
        for i, face in zip(between, self._detector.refine(images[between], boxes), strict=True):
            faces[i] = face if face is not None and face.score >= min(KNOWN, self.min_score) else None
        searched = set(keys.tolist())
        self._search(images, [i for i, face in enumerate(faces) if face is None and i not in searched], faces)
        return faces

    def _search(self, images: np.ndarray, where: np.ndarray | list[int], faces: list[Face | None]) -> None:
        from affuse.media.faces import largest

        for i, found in zip(where, self._detector.detect_batch(images[where]), strict=True):
            faces[i] = largest([face for face in found if face.score >= self.min_score])


def _chunks(frames: Iterator[Frame]) -> Iterator[list[Frame]]:
    """Up to CHUNK frames of one size at a time."""
    chunk: list[Frame] = []
    for frame in frames:
        if chunk and (len(chunk) == CHUNK or frame.image.shape != chunk[0].image.shape):
            yield chunk
            chunk = []
        chunk.append(frame)
    if chunk:
        yield chunk


def _tracked(keys: np.ndarray, faces: list[Face | None]) -> tuple[list[int], np.ndarray]:
    """Frames between two key frames that show one face, and its box [n, 4] there, moved evenly."""
    where: list[int] = []
    boxes: list[np.ndarray] = []
    for a, b in zip(keys[:-1].tolist(), keys[1:].tolist(), strict=True):
        first, last = faces[a], faces[b]
        if first is None or last is None or _overlap(first.box, last.box) < SAME:
            continue
        share = np.arange(1, b - a)[:, None] / (b - a)
        where += range(a + 1, b)
        boxes.append(first.box + share * (last.box - first.box))
    return where, np.concatenate([np.zeros((0, 4)), *boxes])


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    shared = float(np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)))
    return shared / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)
