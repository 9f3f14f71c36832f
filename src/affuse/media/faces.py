"""Faces in pictures: detection (MTCNN), cheap re-detection near known boxes, and alignment by five landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from affuse.core.errors import BadMedia
from affuse.media import mtcnn

STEP = 0.709  # pyramid factor: the area halves from scale to scale
CELL, STRIDE = 12, 2  # P-net's field of view and step
ASTRAY = 0.7  # score of a box that R-net has centred below which the box as it was may be the better one
PROPOSALS = 256  # candidates kept per picture and scale, so that texture cannot blow up the memory
# ArcFace's five points (eyes, nose, mouth corners) in a 112 x 112 crop (Deng et al., 2019)
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)


@dataclass(frozen=True)
class Face:
    """One face: box (x0, y0, x1, y1) in pixels of the picture, score 0..1, landmarks [5, 2].

    Landmarks are the eyes, the nose and the mouth corners, left before right as seen in the picture.
    """

    box: np.ndarray
    score: float
    landmarks: np.ndarray

    @property
    def side(self) -> float:
        """Geometric mean of width and height in pixels."""
        return float(np.sqrt(np.prod(np.maximum(self.box[2:] - self.box[:2], 0))))


def largest(faces: Sequence[Face]) -> Face | None:
    """The face with the greatest area x score; None without faces."""
    return max(faces, key=lambda face: face.side**2 * face.score, default=None)


class FaceDetector:
    """MTCNN on CPU or GPU, whole batches of pictures at a time.

    Pictures are shrunk so that their longest side is at most `max_side`; `min_face` is the side of the smallest
    face that is looked for, in pixels of the shrunk picture. `thresholds` of the three stages are lower than the
    paper's (0.6, 0.7, 0.7): dim and blurred faces survive to the last stage, whose score tells faces apart.
    """

    def __init__(
        self,
        min_face: int = 40,
        max_side: int = 640,
        device: str = "cpu",
        thresholds: tuple[float, float, float] = (0.5, 0.3, 0.5),
    ) -> None:
        self.min_face, self.max_side, self.device, self.thresholds = min_face, max_side, device, thresholds
        self.pnet, self.rnet, self.onet = mtcnn.load(device)

    def detect(self, image: np.ndarray) -> list[Face]:
        """Faces of one uint8 picture [H, W, 3], best score first."""
        return self.detect_batch([image])[0]

    @torch.no_grad()
    def detect_batch(self, images: Sequence[np.ndarray] | np.ndarray) -> list[list[Face]]:
        """Faces of each of N uint8 pictures [H, W, 3] of one size, best score first."""
        if len(images) == 0:
            return []
        mips, shrink = self._mips(images)
        boxes, frame = self._propose(mips)
        boxes, frame = self._refined(mips, boxes, frame)
        found = self._output(mips, boxes, frame)
        return _faces(*found, shrink, len(images))

    @torch.no_grad()
    def refine(self, images: Sequence[np.ndarray] | np.ndarray, boxes: np.ndarray) -> list[Face | None]:
        """The face near each of `boxes` [N, 4], or None: R- and O-net only, no pyramid.

        images: one picture per box, or one for all boxes. For pictures next to one whose face is known; a box that
        moved by more than about a third of its side is lost.
        """
        if len(boxes) == 0:
            return []
        mips, shrink = self._mips(images)
        near = torch.as_tensor(np.asarray(boxes), dtype=torch.float32, device=self.device) * shrink
        near, frame = _square(near), picture_of(near, len(images))
        offsets, _ = self.rnet(_crops(mips, near, frame, 24))
        tries = torch.cat([_square(_shifted(near, offsets)), near])  # R-net centres; a few faces it leads astray
        found, scores, points = self._scored(mips, tries, frame.repeat(2))
        centred, asis = scores.chunk(2)
        astray = (centred < ASTRAY) & (asis > centred)
        better = torch.arange(len(near), device=self.device) + len(near) * astray
        good = better[scores[better] > self.thresholds[2]]
        faces = _faces(found[good], scores[good], points[good], good % len(near), shrink, len(boxes))
        return [face[0] if face else None for face in faces]

    def _mips(self, images: Sequence[np.ndarray] | np.ndarray) -> tuple[Pyramid, float]:
        pictures = stacked(images).to(self.device)
        shrink = min(1.0, self.max_side / max(pictures.shape[1:3]))
        return Pyramid(resized(pictures, shrink)), shrink

    def _propose(self, mips: Pyramid) -> tuple[Tensor, Tensor]:
        """P-net over all scales: square boxes [B, 4] and the picture of each [B]."""
        height, width = mips[0].shape[1:3]
        scale = CELL / self.min_face
        parts = []
        while min(height, width) * scale >= CELL:
            parts.append(self._propose_at(mips, scale))
            scale *= STEP
        if not parts:
            return torch.zeros(0, 4, device=self.device), torch.zeros(0, dtype=torch.long, device=self.device)
        boxes, scores, frame = (torch.cat(p) for p in zip(*parts, strict=True))
        keep = nms(boxes, scores, frame, 0.7)
        return _square(boxes[keep]), frame[keep]

    def _propose_at(self, mips: Pyramid, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        offsets, prob = self.pnet(_normal(resized(mips[0], scale).permute(0, 3, 1, 2).float()))
        frame, row, column = (prob > self.thresholds[0]).nonzero(as_tuple=True)
        scores = prob[frame, row, column]
        corner = torch.stack([column, row], 1).float() * STRIDE
        cells = torch.cat([corner, corner + CELL], 1) / scale
        boxes = _shifted(cells, offsets[frame, :, row, column])
        keep = nms(boxes, scores, frame, 0.5, PROPOSALS)
        return boxes[keep], scores[keep], frame[keep]

    def _refined(self, mips: Pyramid, boxes: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        offsets, scores = self.rnet(_crops(mips, boxes, frame, 24))
        passed = scores > self.thresholds[1]
        boxes, offsets, scores, frame = boxes[passed], offsets[passed], scores[passed], frame[passed]
        keep = nms(boxes, scores, frame, 0.7)
        return _square(_shifted(boxes[keep], offsets[keep])), frame[keep]

    def _output(self, mips: Pyramid, boxes: Tensor, frame: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        boxes, scores, points = self._scored(mips, boxes, frame)
        passed = scores > self.thresholds[2]
        boxes, scores, points, frame = boxes[passed], scores[passed], points[passed], frame[passed]
        keep = nms(boxes, scores, frame, 0.7, by_smaller=True)
        return boxes[keep], scores[keep], points[keep], frame[keep]

    def _scored(self, mips: Pyramid, boxes: Tensor, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        offsets, points, scores = self.onet(_crops(mips, boxes, frame, 48))
        points = boxes[:, None, :2] + points * (boxes[:, None, 2:] - boxes[:, None, :2])
        return _shifted(boxes, offsets), scores, points


def _faces(
    boxes: Tensor, scores: Tensor, points: Tensor, frame: Tensor, shrink: float, count: int
) -> list[list[Face]]:
    found: list[list[Face]] = [[] for _ in range(count)]
    rows = zip((boxes / shrink).cpu().numpy(), scores.tolist(), (points / shrink).cpu().numpy(), strict=True)
    for i, (box, score, landmarks) in zip(frame.tolist(), rows, strict=True):
        found[i].append(Face(box, score, landmarks))
    return found


def picture_of(boxes: Tensor, pictures: int) -> Tensor:
    """The picture of each box [N]: its own, or the only one."""
    if pictures not in (1, len(boxes)):
        raise BadMedia(f"{pictures} pictures for {len(boxes)} faces", "give one picture per face, or one for all")
    which = torch.arange(len(boxes), device=boxes.device)
    return which if pictures > 1 else torch.zeros_like(which)


def stacked(images: Sequence[np.ndarray] | np.ndarray) -> Tensor:
    """uint8 pictures of one size as [N, H, W, 3]."""
    shapes = {image.shape for image in images}
    array: np.ndarray = np.empty(0)
    if isinstance(images, np.ndarray):
        array = np.array(images)  # pictures may be read only, and tensors are not
    elif len(shapes) == 1:
        array = np.stack(list(images))
    if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8 or array.size == 0:
        message = f"pictures must be uint8 [H, W, 3] of one size, not {sorted(shapes)} {array.dtype}"
        raise BadMedia(message, "decode to RGB")
    return torch.from_numpy(array)


def resized(pictures: Tensor, factor: float) -> Tensor:
    """uint8 pictures [N, H, W, 3] scaled by `factor` with anti-aliasing, still uint8 (ten times faster than floats)."""
    size = [max(1, round(n * factor)) for n in pictures.shape[1:3]]
    if size == list(pictures.shape[1:3]):
        return pictures
    x = F.interpolate(pictures.permute(0, 3, 1, 2), size=size, mode="bilinear", antialias=True)
    return x.permute(0, 2, 3, 1)


class Pyramid:
    """The uint8 pictures [N, H, W, 3] and their halvings down to about 24 pixels, each made when it is asked for."""

    def __init__(self, pictures: Tensor) -> None:
        self.levels = [pictures]
        self.sizes = [tuple(pictures.shape[1:3])]
        while min(self.sizes[-1]) >= 48:
            height, width = (max(1, round(n * 0.5)) for n in self.sizes[-1])
            self.sizes.append((height, width))

    def __getitem__(self, level: int) -> Tensor:
        """[N, h, w, 3] of a level; 0 is the picture itself."""
        while len(self.levels) <= level:
            self.levels.append(resized(self.levels[-1], 0.5))
        return self.levels[level]


def sample(mips: Pyramid, matrices: Tensor, frame: Tensor, size: int) -> Tensor:
    """Warped crops [B, 3, size, size], float 0..255, bilinear, edges repeated.

    matrices [B, 2, 3] take crop pixels (centres at +0.5) to picture pixels; frame [B]: the index of the picture. Each
    crop reads the level whose resolution is nearest above its own.
    """
    device = matrices.device
    zoom = (matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0]).abs().sqrt()
    wanted = zoom.clamp_min(1).log2().long().clamp(max=len(mips.sizes) - 1)
    used, level = wanted.unique(return_inverse=True)
    pixels = [mips[k].reshape(-1, 3) for k in used.tolist()]
    atlas = pixels[0] if len(pixels) == 1 else torch.cat(pixels) if pixels else mips[0].reshape(-1, 3)
    sizes = torch.tensor(mips.sizes, device=device)[used]
    lengths = torch.tensor([len(p) for p in pixels], dtype=torch.int64, device=device)
    axis = torch.arange(size, device=device) + 0.5
    across, down = axis.repeat(size), axis.repeat_interleave(size)
    height, width = sizes[level, 0, None], sizes[level, 1, None]
    full = mips.sizes[0]
    halved = torch.stack([width / full[1], height / full[0]], 1)  # not quite 2 ** -level: odd sizes are rounded
    # written out, because a matrix product rounds otherwise in a batch than alone
    xy = (matrices[:, :, :1] * across + matrices[:, :, 1:2] * down + matrices[:, :, 2:]) * halved - 0.5
    first = (lengths.cumsum(0) - lengths)[level, None] + frame[:, None] * height * width
    x, y = (xy[:, i].clamp_min(0).minimum(n - 1.0) for i, n in enumerate((width, height)))
    x0, y0 = x.long(), y.long()
    x1, y1 = (x0 + 1).minimum(width - 1), (y0 + 1).minimum(height - 1)
    top, bottom = first + y0 * width, first + y1 * width
    corners = atlas.index_select(0, torch.stack([top + x0, top + x1, bottom + x0, bottom + x1]).flatten())
    a, b, c, d = corners.float().view(4, *x.shape, 3)
    u, v = (x - x0)[..., None], (y - y0)[..., None]
    return torch.lerp(torch.lerp(a, b, u), torch.lerp(c, d, u), v).transpose(1, 2).reshape(-1, 3, size, size)


def _crops(mips: Pyramid, boxes: Tensor, frame: Tensor, size: int) -> Tensor:
    """Upright boxes [B, 4] as network input [B, 3, size, size]."""
    sides = (boxes[:, 2:] - boxes[:, :2]) / size
    return _normal(sample(mips, torch.cat([torch.diag_embed(sides), boxes[:, :2, None]], 2), frame, size))


def _normal(x: Tensor) -> Tensor:
    return (x - 127.5) / 128


def _shifted(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Boxes moved by offsets in units of their own width and height."""
    return boxes + offsets * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


def _square(boxes: Tensor) -> Tensor:
    """Squares around the same centres, as long as the longer side (one pixel at least)."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True).clamp_min(1) / 2
    return torch.cat([centre - half, centre + half], 1)


def nms(
    boxes: Tensor,
    scores: Tensor,
    group: Tensor,
    threshold: float,
    top: int | None = None,
    by_smaller: bool = False,
) -> Tensor:
    """Greedy non-maximum suppression within each group: kept indices, best score first within a group.

    boxes [B, 4], scores [B], group [B] (0, 1, ...). Overlap is intersection over union, or over the smaller area.
    At most `top` boxes of a group are looked at.
    """
    if len(boxes) == 0:
        return group
    order = torch.argsort(scores, descending=True, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    counts = torch.bincount(group)
    place = torch.arange(len(order), device=boxes.device) - (counts.cumsum(0) - counts)[group[order]]
    if top is not None:
        order, place = order[place < top], place[place < top]
    padded = boxes.new_zeros(len(counts), int(place.max()) + 1, 4)
    padded[group[order], place] = boxes[order]
    beats = (_overlap(padded, by_smaller) > threshold).triu(1)  # [G, K, K]: row suppresses column
    keep = beats.new_ones(padded.shape[:2])
    while True:  # the greedy choice is the only fixed point; each round fixes one more link of every chain
        kept = ~(beats & keep[:, :, None]).any(1)
        if bool((kept == keep).all()):
            return order[keep[group[order], place]]
        keep = kept


def _overlap(boxes: Tensor, by_smaller: bool) -> Tensor:
    """Pairwise overlap [G, K, K] of boxes [G, K, 4]."""
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    shared = (high - low).clamp_min(0).prod(-1)
    area = (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)
    a, b = area[:, :, None], area[:, None, :]
    return shared / (torch.minimum(a, b) if by_smaller else a + b - shared).clamp_min(1e-9)


def similarity(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Similarity transforms [N, 2, 3] that take points [N, K, 2] nearest to target [K, 2] in least squares.

    In the plane, Umeyama's solution (1991) without reflection is one complex regression: w = a z + b.
    """
    z, w = (np.ascontiguousarray(p, np.float64).view(np.complex128)[..., 0] for p in (points, target))
    mean_z, mean_w = z.mean(-1, keepdims=True), w.mean(-1, keepdims=True)
    spread = np.maximum((np.abs(z - mean_z) ** 2).sum(-1), 1e-12)
    a = (np.conj(z - mean_z) * (w - mean_w)).sum(-1) / spread
    b = mean_w[..., 0] - a * mean_z[:, 0]
    rows = [np.stack([a.real, -a.imag, b.real], -1), np.stack([a.imag, a.real, b.imag], -1)]
    return np.stack(rows, -2)


def template(size: int, margin: float = 0.0) -> np.ndarray:
    """Places of the five landmarks [5, 2] in a crop of `size` pixels with `margin` (share of the side) more context."""
    points: np.ndarray = ((TEMPLATE - 56) / (1 + margin) + 56) * (size / 112)
    return points


def align(image: np.ndarray, landmarks: np.ndarray, size: int = 112, margin: float = 0.0) -> np.ndarray:
    """The face with landmarks [5, 2] in a uint8 picture [H, W, 3], upright in uint8 [size, size, 3]."""
    return align_batch(image[None], landmarks[None], size, margin)[0]


def align_batch(
    images: Sequence[np.ndarray] | np.ndarray,
    landmarks: np.ndarray,
    size: int = 112,
    margin: float = 0.0,
    which: np.ndarray | None = None,
) -> np.ndarray:
    """N upright faces: uint8 [N, size, size, 3], from pictures of one size: `which` [N], else one each, or one for all.

    landmarks [N, 5, 2]; a least-squares similarity transform takes them to `template(size, margin)`.
    """
    if len(landmarks) == 0:
        return np.zeros((0, size, size, 3), np.uint8)
    forward = similarity(landmarks, template(size, margin))
    turn = np.linalg.inv(forward[:, :, :2])
    back = torch.from_numpy(np.concatenate([turn, -turn @ forward[:, :, 2:]], 2)).float()
    frame = picture_of(back, len(images)) if which is None else torch.as_tensor(which)
    crops = sample(Pyramid(stacked(images)), back, frame, size)
    return crops.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
