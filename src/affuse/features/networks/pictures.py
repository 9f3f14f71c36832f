"""What picture models share: faces or frames of a clip in blocks, prepared for a network; one vector per picture."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from affuse.core import io
from affuse.core.errors import BadConfig
from affuse.core.types import Feature
from affuse.features.face_crops import LONGEST_SIDE, FaceCrops

if TYPE_CHECKING:
    from torch import Tensor

    from affuse.media.clip import Clip

View = Literal["face", "frame"]
Pool = Literal["none", "mean"]
Block = tuple[np.ndarray, np.ndarray]  # grid steps [n], pictures uint8 [n, H, W, 3]
BLOCK = 16  # pictures per forward pass
SURE = {"mtcnn": 0.9, "yunet": 0.7}  # scores at which the two find the same faces
RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # numbers of PIL, as preprocessor_config.json has them


@dataclass(frozen=True)
class Preparation:
    """How the network of a folder in transformers' format wants its pictures, from config and preprocessor_config.json.

    `size` [px] is the square that goes in; whole frames are first resized to `resize` (height, width), or where that is
    one number, so that it is their shorter side, and cut to the square in the middle. Pixels times `factor`, less
    `mean`, over `std` [3].
    """

    size: int
    resize: tuple[int, int] | int
    resample: str
    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, folder: Path) -> Preparation:
        """What the folder's files say; BadConfig where the network does not take squares."""
        config = io.read_json(folder / "config.json")
        path = folder / "preprocessor_config.json"
        settings: dict[str, Any] = io.read_json(path) if path.is_file() else {}
        own = config.get("vision_config", config).get("image_size", 224)
        cut = settings.get("crop_size") if settings.get("do_center_crop") else None
        resize = _resize(settings.get("size") or own, cut is not None)
        size = _square(cut if cut is not None else resize, folder)
        keep = settings.get("do_normalize", True)
        return cls(
            size,
            resize if settings.get("do_resize", True) else size,
            RESAMPLE.get(settings.get("resample", 2), "bicubic"),
            settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0,
            tuple(settings.get("image_mean") or (0.5,) * 3) if keep else (0.0,) * 3,
            tuple(settings.get("image_std") or (0.5,) * 3) if keep else (1.0,) * 3,
        )

    def to_square(self, image: np.ndarray) -> np.ndarray:
        """A frame uint8 [H, W, 3] as the square that goes in, uint8 [size, size, 3]; edges repeat where it is short."""
        import torch
        from torch.nn.functional import interpolate, pad

        x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]  # uint8 all the way: as PIL rounds, and fast
        if isinstance(self.resize, int):
            scale = self.resize / min(x.shape[2:])
            height, width = (max(self.resize, int(n * scale)) for n in x.shape[2:])
        else:
            height, width = self.resize
        smooth = self.resample != "nearest"
        x = interpolate(x, (height, width), mode=self.resample, antialias=smooth)
        short = [max(0, self.size - n) for n in (width, width, height, height)]
        if any(short):
            sides = [n // 2 if i % 2 == 0 else n - n // 2 for i, n in enumerate(short)]
            x = pad(x.float(), sides, mode="replicate").byte()
        top, left = ((n - self.size) // 2 for n in x.shape[2:])
        square: np.ndarray = x[0, :, top : top + self.size, left : left + self.size].permute(1, 2, 0).numpy()
        return square

    def to_tensor(self, images: np.ndarray) -> Tensor:
        """Squares uint8 [..., size, size, 3] as the network takes them: float32 [..., 3, size, size]."""
        import torch

        x = torch.from_numpy(images).float() * self.factor
        return ((x - torch.tensor(self.mean)) / torch.tensor(self.std)).movedim(-1, -3).contiguous()


def _resize(size: Any, cut: bool) -> tuple[int, int] | int:
    """`size` as the processors of transformers mean it: a number is the shorter side only where a cut follows."""
    if isinstance(size, Mapping):
        return int(size["shortest_edge"]) if "shortest_edge" in size else (int(size["height"]), int(size["width"]))
    if isinstance(size, list | tuple):
        return int(size[0]), int(size[1])
    return int(size) if cut else (int(size), int(size))


def _square(size: Any, folder: Path) -> int:
    height, width = (size, size) if isinstance(size, int) else (size.values() if isinstance(size, Mapping) else size)
    if height != width:
        raise BadConfig(f"the model in {folder} takes pictures of {height} x {width}", "use a model that takes squares")
    return int(height)


def faces(fps: float, size: int, margin: float, detector: Path | None, sha256: str) -> FaceCrops:
    """The faces that a network looks at; a `detector` of one's own is a YuNet, whose scores run lower than MTCNN's."""
    sure = SURE["mtcnn" if detector is None else "yunet"]
    return FaceCrops(fps=fps, size=size, min_score=sure, margin=margin, detector=detector, detector_sha256=sha256)


def size_options(network: Any, size: int, trained: int | None) -> dict[str, bool]:
    """Options of a network whose squares are not of the `size` [px] that it was `trained` on."""
    asks = "interpolate_pos_encoding" in inspect.signature(network.forward).parameters
    return {"interpolate_pos_encoding": True} if size != trained and asks else {}


@dataclass(frozen=True)
class Source:
    """Where a network's pictures come from: the most prominent person's aligned face, or whole frames."""

    view: View
    crops: FaceCrops
    preparation: Preparation

    @classmethod
    def of(cls, folder: Path, view: View, fps: float, margin: float, detector: Path | None, sha256: str) -> Source:
        """The pictures that the network of a folder looks at, `fps` per second; see `faces`."""
        ready = Preparation.of(folder)
        return cls(view, faces(fps, ready.size, margin, detector, sha256), ready)

    def hash(self) -> str:
        """Hash of the face detector's weights; "" for whole frames."""
        return self.crops.weights_hash if self.view == "face" else ""

    def blocks(self, clip: Clip, length: int = BLOCK) -> Iterator[Block]:
        """The clip's valid steps and their pictures uint8 [n, size, size, 3], at most `length` at a time."""
        if self.view == "face":
            yield from self.crops.blocks(clip, length)
            return
        frames = clip.frames(self.crops.fps, LONGEST_SIDE)
        squares = ((frame.index, self.preparation.to_square(frame.image)) for frame in frames)
        while some := list(islice(squares, length)):
            yield np.array([step for step, _ in some]), np.stack([image for _, image in some])


def vectors(
    blocks: Iterable[Block], embed: Callable[[np.ndarray], np.ndarray], steps: int, dim: int, pool: Pool
) -> Feature:
    """One vector per step, [steps, dim], invalid where the blocks have no picture; or their mean, see `pool_steps`."""
    values, valid = np.zeros((steps, dim), np.float32), np.zeros(steps, bool)
    for at, images in blocks:
        values[at], valid[at] = embed(images), True
    return pool_steps(Feature(values, valid), pool)


def pool_steps(feature: Feature, pool: Pool) -> Feature:
    """The feature itself, or with "mean" one vector [1, D], the mean over its valid steps (T = 0 if there are none)."""
    if pool == "none":
        return feature
    kept = feature.values if feature.valid is None else feature.values[feature.valid]
    return Feature(kept.mean(0, keepdims=True) if len(kept) else kept)
