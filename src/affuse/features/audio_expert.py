"""What affuse-base's audio expert makes of a voice."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from affuse.core.types import Feature, StreamSpec
from affuse.features.extractor import make_extractor
from affuse.features.networks import affuse_base

if TYPE_CHECKING:
    from affuse.media.clip import Clip

CARD = {
    "summary": "embedding and seven probabilities of affuse-base's audio expert, one vector per utterance",
    "source": "affuse; docs/affuse-base.md",
    "entry": "AudioExpert",
    "modalities": ["audio"],
    "licence": "weights for non-commercial use, see docs/affuse-base.md",
    "version": 1,
    "download": "ships with affuse",
    "rate": "utterance",
    "dim": "the expert's embeddings and 7 probabilities",
}
STREAMS = ("waveform", "functionals")


class AudioExpert:
    """Clip -> [1, D]: embeddings of the waveform and of the functionals, then the probabilities. No sound: absent."""

    @property
    def spec(self) -> StreamSpec:
        """One vector per utterance."""
        return StreamSpec("audio_expert", "audio", (affuse_base.width(STREAMS),))

    @property
    def weights_hash(self) -> str:
        """Hash of affuse-base, for the store's card."""
        return affuse_base.weights_hash()

    @cached_property
    def _inputs(self) -> dict[str, Any]:
        """The extractors of the expert's streams, as it was trained with."""
        return {name: make_extractor(name, affuse_base.base()[1][name]) for name in STREAMS}

    def __call__(self, clip: Clip) -> Feature:
        """The expert's vector of the clip's sound."""
        found = {name: extractor(clip) for name, extractor in self._inputs.items()}
        if any(f.coverage == 0 for f in found.values()):
            return Feature(np.zeros((0, *self.spec.shape), np.float32))
        return Feature(affuse_base.utterance(found))
