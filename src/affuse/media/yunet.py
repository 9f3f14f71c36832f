"""YuNet: faces in pictures by one small network (Wu et al., 2023), from an ONNX file that the user brings.

The anchor-free heads of strides 8, 16 and 32 give every cell a class and an objectness, a box (centre in cells from
the cell's corner, log of the size in cells) and five landmarks. https://github.com/ShiqiYu/libfacedetection.train
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from affuse.core.errors import BadFeatures
from affuse.layers import onnx
from affuse.media.faces import Face, Pyramid, nms, picture_of, resized, sample, stacked

STRIDES = (8, 16, 32)
HEADS = ("cls", "obj", "bbox", "kps")
OVERLAP = 0.3  # shared area over union above which two finds are one face
AROUND, CLOSE_UP = 2.0, 128  # sides of a known box that a second look shows, and its pixels
Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # boxes [B, 4], scores [B], points [B, 5, 2], picture [B]


class YuNet:
    """The detector of an ONNX file with dynamic or fixed input size; used like `faces.FaceDetector`.

    Pictures are shrunk so that their longest side is at most `max_side`; faces with a side below `min_face` pixels of
    the shrunk picture are left out, and finds with a score (root of class x objectness) below `threshold`.
    Raises MissingDependency (onnxruntime), BadFeatures for another kind of network.
    """

    def __init__(self, path: Path, min_face: int = 40, max_side: int = 640, threshold: float = 0.5) -> None:
        self.min_face, self.threshold = min_face, threshold
        self.session = onnx.session(path)
        names = {output.name for output in self.session.get_outputs()}
        if lost := {f"{head}_{stride}" for head in HEADS for stride in STRIDES} - names:
            remedy = "give a YuNet of 2023 (yunet_n or yunet_s, 12 outputs)"
            raise BadFeatures(f"{path} has no output {min(lost)}", remedy)
        (self.input,) = self.session.get_inputs()
        batch, _, *size = self.input.shape
        self.single = isinstance(batch, int)
        self.fixed = (size[0], size[1]) if all(isinstance(n, int) for n in size) else None
        self.max_side = min(max_side, *self.fixed) if self.fixed else max_side

    def detect(self, image: np.ndarray) -> list[Face]:
        """Faces of one uint8 picture [H, W, 3], best score first."""
        return self.detect_batch([image])[0]

    def detect_batch(self, images: Sequence[np.ndarray] | np.ndarray) -> list[list[Face]]:
        """Faces of each of N uint8 pictures [H, W, 3] of one size, best score first."""
        if len(images) == 0:
            return []
        pictures = stacked(images)
        shrink = min(1.0, self.max_side / max(pictures.shape[1:3]))
        boxes, scores, points, frame = self._find(resized(pictures, shrink).permute(0, 3, 1, 2).float())
        large = np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), 1)) >= self.min_face
        found: list[list[Face]] = [[] for _ in images]
        for i in np.flatnonzero(large):
            found[frame[i]].append(Face(boxes[i] / shrink, float(scores[i]), points[i] / shrink))
        return found

    def refine(self, images: Sequence[np.ndarray] | np.ndarray, boxes: np.ndarray) -> list[Face | None]:
        """The face near each of `boxes` [N, 4], or None, from a close-up of its surroundings.

        images: one picture per box, or one for all boxes. A box that moved by more than half its side is lost.
        """
        if len(boxes) == 0:
            return []
        known = np.asarray(boxes, np.float32)
        if self.fixed:  # a small close-up costs as much as the picture
            everywhere = self.detect_batch(images)
            per_box = everywhere * (len(boxes) // len(images))
            return [_same(faces, box) for faces, box in zip(per_box, known, strict=True)]
        pictures = stacked(images)
        side = AROUND * np.maximum((known[:, 2:] - known[:, :2]).max(1), 1)
        corner = (known[:, :2] + known[:, 2:]) / 2 - side[:, None] / 2
        zoom = side / CLOSE_UP
        turn = np.concatenate([zoom[:, None, None] * np.eye(2, dtype=np.float32), corner[:, :, None]], 2)
        frame = picture_of(torch.from_numpy(known), len(images))
        crops = sample(Pyramid(pictures), torch.from_numpy(turn).float(), frame, CLOSE_UP)
        near: list[list[Face]] = [[] for _ in known]
        for box, score, points, i in zip(*self._find(crops), strict=True):
            found = Face(box * zoom[i] + np.tile(corner[i], 2), float(score), points * zoom[i] + corner[i])
            near[i].append(found)
        return [_same(faces, box) for faces, box in zip(near, known, strict=True)]

    def _find(self, x: Tensor) -> Found:
        """Distinct faces of RGB pictures x [N, 3, H, W], 0..255, in their pixels."""
        height, width = self.fixed or tuple(-(-n // STRIDES[-1]) * STRIDES[-1] for n in x.shape[2:])
        fed = F.pad(x.flip(1), (0, width - x.shape[3], 0, height - x.shape[2])).numpy()  # it was trained on BGR
        parts = [fed[i : i + 1] for i in range(len(fed))] if self.single else [fed]
        names = [f"{head}_{stride}" for stride in STRIDES for head in HEADS]
        runs = [self.session.run(names, {self.input.name: part}) for part in parts]
        heads = [np.concatenate(outputs) for outputs in zip(*runs, strict=True)]
        levels = [self._decoded(heads[4 * i : 4 * i + 4], s, width // s) for i, s in enumerate(STRIDES)]
        boxes, scores, points, frame = (np.concatenate(parts) for parts in zip(*levels, strict=True))
        keep = nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(frame), OVERLAP).numpy()
        return boxes[keep], scores[keep], points[keep], frame[keep]

    def _decoded(self, heads: Sequence[np.ndarray], stride: int, columns: int) -> Found:
        """What the cells of one stride say: heads [N, K, 1], [N, K, 1], [N, K, 4], [N, K, 10]."""
        face, there, box, points = heads
        score = np.sqrt(face.clip(0, 1) * there.clip(0, 1))[..., 0]
        frame, cell = np.nonzero(score >= self.threshold)
        corner = np.stack([cell % columns, cell // columns], 1).astype(np.float32)
        centre, half = corner + box[frame, cell, :2], np.exp(box[frame, cell, 2:]) / 2
        marks = corner[:, None] + points[frame, cell].reshape(-1, 5, 2)
        return np.concatenate([centre - half, centre + half], 1) * stride, score[frame, cell], marks * stride, frame


def _same(faces: Sequence[Face], box: np.ndarray) -> Face | None:
    """The face whose centre is nearest to that of `box`, if it lies within half a side of it."""
    reach = float((box[2:] - box[:2]).max()) / 2
    centre = (box[:2] + box[2:]) / 2

    def distance(face: Face) -> float:
        return float(np.abs((face.box[:2] + face.box[2:]) / 2 - centre).max())

    nearest = min(faces, key=distance, default=None)
    return nearest if nearest is not None and distance(nearest) <= reach else None
