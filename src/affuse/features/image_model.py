"""What a pretrained vision transformer sees in a face or a frame, picture by picture."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from affuse.core.errors import BadConfig
from affuse.core.hub import VIT
from affuse.core.types import Feature, StreamSpec
from affuse.features.networks import pretrained
from affuse.features.networks.pictures import Pool, View, size_options, vectors
from affuse.features.networks.pretrained import Known
from affuse.features.networks.vision import VisionTransformer

if TYPE_CHECKING:
    from torch import Tensor

    from affuse.media.clip import Clip

CARD = {
    "summary": "embeddings of aligned faces or whole frames by ViT, CLIP, DINOv2, BEiT or another plain vision "
    "transformer",
    "source": "Dosovitskiy et al. 2021 (ViT); Radford et al. 2021 (CLIP); Oquab et al. 2024 (DINOv2); Bao et al. 2022 "
    "(BEiT)",
    "entry": "ImageModel",
    "modalities": ["vision"],
    "licence": "the model's own; DINOv2 and ViT Apache-2.0, CLIP MIT",
    "version": 1,
    "extra": "text",
    "packages": ["transformers"],
    "download": "from the Hugging Face hub, once: dinov2-small 88 MB, dinov2 and vit 346 MB, clip 1710 MB; or a folder",
    "rate": "fps, 5 by default; with pool=mean one vector",
    "dim": "the model's hidden size: 384 (dinov2-small), 768 (dinov2, vit), 1024 (clip)",
}
KNOWN = {
    "dinov2-small": Known("facebook/dinov2-small", 88, "Apache-2.0"),
    "dinov2": Known("facebook/dinov2-base", 346, "Apache-2.0"),
    "vit": VIT,
    "clip": Known("openai/clip-vit-large-patch14", 1710, "MIT"),
}


class ImageModel(VisionTransformer):
    """Clip -> [T, D], one vector at k / fps s; valid [T] where there is a face (or, with view="frame", a picture).

    `model`: a short name of KNOWN, a folder in transformers' format or a hub id, with safetensors; its size, mean,
    deviation and resampling come from preprocessor_config.json. `view`: the most prominent face, aligned and with
    `margin` around it (share of the side), or whole frames, resized and cut as the model was trained. `token`: the
    class token, or the mean of the patches. `layers` (-1: the model's output) stand side by side, or are added up by
    `weights`. `pool` "mean": one vector, the mean over valid steps. `detector`: see `face_crops`.
    """

    known, kind = KNOWN, "vision model"

    def __init__(
        self,
        *,
        model: str = "dinov2-small",
        view: View = "face",
        fps: float = 5.0,
        layers: tuple[int, ...] = (-1,),
        weights: tuple[float, ...] = (),
        token: Literal["cls", "mean"] = "cls",
        pool: Pool = "none",
        margin: float = 0.2,
        detector: Path | None = None,
        detector_sha256: str = "",
    ) -> None:
        super().__init__(model, view, fps, layers, weights, pool, margin, detector, detector_sha256)
        self.token = token

    def _settings(self, config: dict[str, Any]) -> dict[str, Any]:
        vision = {"type": config.get("model_type", ""), **config.get("vision_config", config)}
        if not {"hidden_size", "patch_size"} <= vision.keys():
            raise BadConfig(f"{self.folder} is no plain vision transformer", "use ViT, CLIP, DINOv2, BEiT or the like")
        return vision

    @property
    def spec(self) -> StreamSpec:
        """One vector per picture, or one in all."""
        return StreamSpec("image_model", "vision", (self._width,), self.fps if self.pool == "none" else 0.0)

    def __call__(self, clip: Clip) -> Feature:
        """The vectors of the clip's picture; blocks of pictures go through the model one after another."""
        steps = clip.steps(self.fps) if clip.has_video else 0
        return vectors(self._source.blocks(clip), self.embed, steps, self._width, self.pool)

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Vectors [n, D] of pictures uint8 [n, size, size, 3] of the model's own size."""
        import torch

        network, more = self._network
        with torch.inference_mode():
            vector: np.ndarray = self._select(self._tokens(network, images, **more), images.shape[1]).numpy()
        return vector

    def _select(self, tokens: Tensor, size: int) -> Tensor:
        """The class token or the mean of the patches of tokens [n, K, D]; patches come last."""
        extra = tokens.shape[1] - (size // int(self._config["patch_size"])) ** 2
        if extra < 1 and self.token == "cls":
            raise BadConfig(f"{self.folder} has no class token", "set token=mean")
        return tokens[:, 0] if self.token == "cls" else tokens[:, max(extra, 0) :].mean(1)

    @cached_property
    def _network(self) -> tuple[Any, dict[str, bool]]:
        """The network, and its options where pictures are not of the size that it was trained on."""
        network = pretrained.load(self.folder, "CLIPVisionModel" if self._config["type"] == "clip" else "AutoModel")
        return network, size_options(network, self._source.preparation.size, self._config.get("image_size"))
