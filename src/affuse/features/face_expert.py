"""What affuse-base's vision expert makes of a face, picture by picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affuse.core.types import Feature, StreamSpec
from affuse.features.face_crops import FaceCrops
from affuse.features.networks import affuse_base

if TYPE_CHECKING:
    from affuse.media.clip import Clip

CARD = {
    "summary": "embedding and seven probabilities of affuse-base's vision expert, 5 pictures per second",
    "source": "affuse; docs/affuse-base.md",
    "entry": "FaceExpert",
    "modalities": ["vision"],
    "licence": "weights for non-commercial use, see docs/affuse-base.md",
    "version": 1,
    "download": "ships with affuse",
    "rate": "fps, 5 by default",
    "dim": "the expert's embedding and 7 probabilities",
}


class FaceExpert:
    """Clip -> [T, D] at `fps`: the embedding of the most prominent face, then the probabilities; masked without it."""

    def __init__(self, *, fps: float = 5.0) -> None:
        self.fps, self._crops = fps, FaceCrops(fps=fps, margin=0.0)

    @property
    def spec(self) -> StreamSpec:
        """One vector per picture."""
        return StreamSpec("face_expert", "vision", (affuse_base.width(("face_crops",)),), self.fps)

    @property
    def weights_hash(self) -> str:
        """Hash of the detector's weights and of affuse-base, for the store's card."""
        return self._crops.weights_hash + affuse_base.weights_hash()

    def __call__(self, clip: Clip) -> Feature:
        """The expert's vectors of the clip's picture."""
        crops = self._crops(clip)
        return Feature(affuse_base.steps("face_crops", crops), crops.valid)
