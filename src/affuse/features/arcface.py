"""Embeddings of a network trained to recognise faces: ArcFace's IR-50 and its kin, with weights that you bring."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from affuse.core import checkpoints, io
from affuse.core.errors import BadFeatures
from affuse.core.types import Feature, StreamSpec
from affuse.features.networks import pretrained
from affuse.features.networks.pictures import BLOCK, Pool, faces, vectors

if TYPE_CHECKING:
    from torch import Tensor

    from affuse.features.face_crops import FaceCrops
    from affuse.layers.iresnet import IResNet
    from affuse.media.clip import Clip

CARD = {
    "summary": "512 numbers of an ArcFace-style network (IR-18 to IR-100) per aligned face; bring the weights",
    "source": "Deng et al. 2019, ArcFace; weights named as by InsightFace (arcface_torch) or face.evoLVe",
    "entry": "ArcFace",
    "modalities": ["vision"],
    "licence": "that of the weights (InsightFace's own: non-commercial research)",
    "version": 1,
    "download": "nothing; give weights=FILE (.safetensors, .pth or .pt, about 170 MB for IR-50) and sha256=",
    "rate": "fps, 5 by default; with pool=mean one vector",
    "dim": "512",
}
DIM = 512
WHAT = (
    "an IR network's weights (InsightFace's iresnet50 or face.evoLVe's IR-50, about 170 MB, "
    "licence of those who trained them)"
)


class ArcFace:
    """Clip -> [T, 512], one embedding at k / fps s; valid [T] where there is a face.

    Faces are aligned by five points to ArcFace's template (`margin`: context around it, share of the side; 0 as in
    training) at the network's own size, 112 pixels unless the weights say otherwise, RGB, (x - 127.5) / `divisor`
    (127.5 as InsightFace and face.evoLVe train; the latter's extraction script divides by 128). `first_stride` 1: the
    variant for 40-pixel faces. `unit`: vectors of length 1. `detector`: a YuNet, see `face_crops`.
    """

    def __init__(
        self,
        *,
        weights: Path | None = None,
        sha256: str = "",
        fps: float = 5.0,
        first_stride: Literal[1, 2] = 2,
        divisor: float = 127.5,
        unit: bool = True,
        pool: Pool = "none",
        margin: float = 0.0,
        detector: Path | None = None,
        detector_sha256: str = "",
    ) -> None:
        self.weights, self.sha256, self.fps, self.first_stride = weights, sha256, fps, first_stride
        self.divisor, self.unit, self.pool, self.margin = divisor, unit, pool, margin
        self.detector, self.detector_sha256 = detector, detector_sha256

    @property
    def spec(self) -> StreamSpec:
        """One embedding per picture, or one in all."""
        return StreamSpec("arcface", "vision", (DIM,), self.fps if self.pool == "none" else 0.0)

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights and of the detector's."""
        return io.file_sha256(self._file) + self._faces.weights_hash

    @cached_property
    def _file(self) -> Path:
        return pretrained.file(self.weights, self.sha256, WHAT)

    @cached_property
    def _faces(self) -> FaceCrops:
        return faces(self.fps, self.network.size, self.margin, self.detector, self.detector_sha256)

    @cached_property
    def network(self) -> IResNet:
        """The network with its weights; BadFeatures where they are not an IR network's."""
        from affuse.layers.iresnet import from_state

        network = from_state(_state(self._file), self.first_stride)
        if network.dim != DIM:
            raise BadFeatures(f"{self._file} gives {network.dim} numbers per face", f"give a network with {DIM}")
        return network

    def __call__(self, clip: Clip) -> Feature:
        """The embeddings of the most prominent person in the clip's picture."""
        steps = clip.steps(self.fps) if clip.has_video else 0
        return vectors(self._faces.blocks(clip, BLOCK), self.embed, steps, DIM, self.pool)

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Embeddings [n, 512] of aligned faces uint8 [n, size, size, 3]."""
        import torch

        with torch.inference_mode():
            x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127.5) / self.divisor
            y = self.network(x)
            vector: np.ndarray = (torch.nn.functional.normalize(y, dim=1) if self.unit else y).numpy()
        return vector


def _state(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a PyTorch one, of which the restricted unpickler reads tensors only."""
    import torch

    if path.suffix == ".safetensors":
        return io.read_tensors(path)
    return {k: torch.tensor(v) for k, v in checkpoints.load_state(path).items()}
