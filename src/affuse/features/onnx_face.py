"""Any network of a face in an ONNX file: expressions, action units, embeddings."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from affuse.core import io
from affuse.core.errors import BadConfig
from affuse.core.types import Feature, StreamSpec
from affuse.features.networks import pretrained
from affuse.features.networks.pictures import BLOCK, Pool, faces, vectors

if TYPE_CHECKING:
    from affuse.features.face_crops import FaceCrops
    from affuse.media.clip import Clip

CARD = {
    "summary": "an output of any ONNX network (expressions, embeddings) per aligned face; bring the file",
    "source": "your own; for example vladmandic/face-api's expressions or mini-XCEPTION (Arriaga et al. 2017)",
    "entry": "OnnxFace",
    "modalities": ["vision"],
    "licence": "that of the file",
    "version": 1,
    "extra": "onnx",
    "packages": ["onnxruntime"],
    "download": "nothing; give weights=FILE.onnx and sha256=",
    "rate": "fps, 5 by default; with pool=mean one vector",
    "dim": "the numbers per face of the chosen output",
}
WHAT = "a face network (.onnx; size and licence as its makers say)"
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}


class OnnxFace:
    """Clip -> [T, D], `output` (name or number) of the network at k / fps s; valid [T] where there is a face.

    The network gets (x * `scale` + `shift` - `mean`) / `std` of pixels x in 0..255, `colour` channels in `layout`, at
    the size that it asks for (or `size`, where it takes any). `margin`: context around ArcFace's tight crop, share of
    the side. `pool` "mean": one vector, the mean over valid steps. `detector`: see `face_crops`.
    """

    def __init__(
        self,
        *,
        weights: Path | None = None,
        sha256: str = "",
        output: str | int = 0,
        size: int = 0,
        colour: Literal["rgb", "bgr", "gray"] = "rgb",
        layout: Literal["nchw", "nhwc"] = "nchw",
        scale: float = 1.0,
        shift: float = 0.0,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
        fps: float = 5.0,
        pool: Pool = "none",
        margin: float = 0.2,
        detector: Path | None = None,
        detector_sha256: str = "",
    ) -> None:
        self.weights, self.sha256, self.output, self.size = weights, sha256, output, size
        self.colour, self.layout, self.scale, self.shift, self.mean, self.std = colour, layout, scale, shift, mean, std
        self.fps, self.pool, self.margin = fps, pool, margin
        self.detector, self.detector_sha256 = detector, detector_sha256

    @cached_property
    def _file(self) -> Path:
        return pretrained.file(self.weights, self.sha256, WHAT)

    @cached_property
    def _session(self) -> Any:
        from affuse.layers import onnx

        return onnx.session(self._file)

    @property
    def spec(self) -> StreamSpec:
        """One vector per picture, or one in all."""
        return StreamSpec("onnx_face", "vision", (self._dim,), self.fps if self.pool == "none" else 0.0)

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the file and of the detector's."""
        return io.file_sha256(self._file) + self._faces.weights_hash

    @cached_property
    def _dim(self) -> int:
        """Numbers per face; where the file does not say, they are counted."""
        shape = self._session.get_outputs()[self._number].shape[1:]
        if shape and all(isinstance(n, int) for n in shape):
            return int(np.prod(shape))
        return int(self.embed(np.zeros((1, self._side, self._side, 3), np.uint8)).shape[1])

    @cached_property
    def _number(self) -> int:
        names = [o.name for o in self._session.get_outputs()]
        if self.output in names:
            return names.index(str(self.output))
        if isinstance(self.output, int) and 0 <= self.output < len(names):
            return self.output
        raise BadConfig(
            f"{self._file} has no output {self.output!r}", f"outputs: {', '.join(names)} (or 0 to {len(names) - 1})"
        )

    @cached_property
    def _side(self) -> int:
        """Pixels of the square that goes in; BadConfig where the network wants another input than the options say."""
        shape = self._session.get_inputs()[0].shape
        nchw, there = self.layout == "nchw", f"{self._file} takes {shape}"
        if len(self._session.get_inputs()) != 1 or len(shape) != 4:
            raise BadConfig(there, "give a network with one input of pictures, [N, C, H, W] or [N, H, W, C]")
        channels, *sides = (shape[1], *shape[2:]) if nchw else (shape[3], *shape[1:3])
        if isinstance(channels, int) and channels != CHANNELS[self.colour]:
            raise BadConfig(
                f"{there}, not {CHANNELS[self.colour]} channels in {self.layout}", "set colour= and layout= to fit"
            )
        known = {n for n in (*sides, self.size or None) if isinstance(n, int)}
        if len(known) != 1:
            raise BadConfig(
                f"{there}, size={self.size}", "set size= (pixels of the square) where it takes any, else leave it out"
            )
        return int(known.pop())

    @cached_property
    def _faces(self) -> FaceCrops:
        return faces(self.fps, self._side, self.margin, self.detector, self.detector_sha256)

    def __call__(self, clip: Clip) -> Feature:
        """The output of the network for the most prominent face in the clip's picture."""
        steps = clip.steps(self.fps) if clip.has_video else 0
        return vectors(self._faces.blocks(clip, BLOCK), self.embed, steps, self._dim, self.pool)

    def embed(self, images: np.ndarray) -> np.ndarray:
        """The output [n, D] for aligned faces uint8 [n, size, size, 3] RGB."""
        source = self._session.get_inputs()[0]
        x, most = self._input(images), source.shape[0]
        parts = np.split(x, len(x)) if most == 1 else [x]
        wanted = [self._session.get_outputs()[self._number].name]
        found = [self._session.run(wanted, {source.name: part})[0] for part in parts]
        return np.concatenate(found).reshape(len(images), -1).astype(np.float32)

    def _input(self, images: np.ndarray) -> np.ndarray:
        x: np.ndarray = images.astype(np.float32)
        x = (x @ LUMA)[..., None] if self.colour == "gray" else x[..., ::-1] if self.colour == "bgr" else x
        x = (x * self.scale + self.shift - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2) if self.layout == "nchw" else x, dtype=np.float32)
