"""What `image_model` and `video_model` share: a pretrained vision transformer, its pictures, and its layers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from affuse.core import io
from affuse.features.networks import pretrained
from affuse.features.networks.pictures import Pool, Source, View
from affuse.features.networks.pretrained import Known

if TYPE_CHECKING:
    from torch import Tensor


class VisionTransformer:
    """An extractor around a vision transformer; a subclass says what goes in and what becomes of the tokens.

    `known`: short names of models; `kind`: what such a model is called in messages. The parameters are described in
    `image_model`. Nothing is loaded before it is needed: the spec reads config.json only.
    """

    known: ClassVar[Mapping[str, Known]]
    kind: ClassVar[str]

    def __init__(
        self,
        model: str,
        view: View,
        fps: float,
        layers: tuple[int, ...],
        weights: tuple[float, ...],
        pool: Pool,
        margin: float,
        detector: Path | None,
        detector_sha256: str,
    ) -> None:
        self.model, self.view, self.fps, self.margin = model, view, fps, margin
        self.layers, self.weights, self.pool = layers, weights, pool
        self.detector, self.detector_sha256 = detector, detector_sha256

    @cached_property
    def folder(self) -> Path:
        """Where the model's files are; MissingDependency says how to get them."""
        return pretrained.find(self.model, self.known, self.kind)

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights; with the detector's where faces are looked at."""
        return pretrained.weights_hash(self.folder) + self._source.hash()

    @cached_property
    def _source(self) -> Source:
        return Source.of(self.folder, self.view, self.fps, self.margin, self.detector, self.detector_sha256)

    @cached_property
    def _config(self) -> dict[str, Any]:
        return self._settings(io.read_json(self.folder / "config.json"))

    @property
    def _width(self) -> int:
        return pretrained.mixture_width(self._config["hidden_size"], self.layers, self.weights)

    def _settings(self, config: dict[str, Any]) -> dict[str, Any]:
        """The part of config.json that describes the vision transformer; BadConfig where there is none."""
        raise NotImplementedError

    def _tokens(self, network: Any, pictures: np.ndarray, **more: bool) -> Tensor:
        """Tokens [n, K, D] of pictures uint8 [n, ..., size, size, 3]: the chosen layers, side by side or added up."""
        out = network(pixel_values=self._source.preparation.to_tensor(pictures), output_hidden_states=True, **more)
        return pretrained.mix((*out.hidden_states[:-1], out.last_hidden_state), self.layers, self.weights)
