"""What was said, as the token ids that a pretrained language model reads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affuse.core.errors import BadConfig
from affuse.core.hub import TEXT_MODELS
from affuse.core.types import Feature, StreamSpec
from affuse.features.networks import pretrained
from affuse.features.text import tokenizer_of

if TYPE_CHECKING:
    from affuse.media.clip import Clip

CARD = {
    "summary": "token ids of a pretrained transformer's tokeniser, for the encoder `language`, which is trained with "
    "the rest",
    "source": "Devlin et al., BERT, NAACL 2019; Wang et al., MiniLM, NeurIPS 2020",
    "entry": "Tokens",
    "modalities": ["text"],
    "licence": "Apache-2.0",
    "version": 1,
    "download": "MiniLM (91 MB, Apache-2.0), or its wheel: extra minilm; others by name",
    "rate": "one step per token",
    "dim": "a whole number",
    "extra": "minilm",
    "packages": ["transformers"],
}


class Tokens:
    """Clip -> token ids [T] int32 of its words, markers included.

    `model`: as for the extractor `text`, and the same as the encoder's. More than `length` tokens, or the model's own
    limit, are cut off. No words: absent.
    """

    def __init__(self, *, model: str = "minilm", length: int = 128) -> None:
        if length < 3:
            raise BadConfig(f"length = {length} leaves no room for a word between the markers", "give at least 3")
        self.model, self.length = model, length

    @cached_property
    def folder(self) -> Path:
        """Where the model's files are; MissingDependency says how to get them."""
        return pretrained.find(self.model, TEXT_MODELS, "text model")

    @property
    def spec(self) -> StreamSpec:
        """One number per token, which is no moment in time; MissingDependency where the model is missing."""
        _ = self.folder
        return StreamSpec("tokens", "text", ())

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights that the ids are for."""
        return pretrained.weights_hash(self.folder)

    def __call__(self, clip: Clip) -> Feature:
        """The token ids of the clip's words."""
        return self.many([clip])[0]

    def many(self, clips: Sequence[Clip]) -> list[Feature]:
        """One Feature per clip."""
        texts = [(clip.text or "").strip() for clip in clips]
        ids = self.ids(texts)
        return [Feature(row if text else row[:0]) for row, text in zip(ids, texts, strict=True)]

    def ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The token ids [T] int32 of each text, markers included, cut off at the limit."""
        tokenizer, limit = self._tokenizer
        rows = tokenizer(list(texts), truncation=True, max_length=min(limit, self.length))["input_ids"]
        return [np.array(row, np.int32) for row in rows]

    def fits(self, text: str) -> bool:
        """Whether nothing of a text would be cut off."""
        tokenizer, limit = self._tokenizer
        with pretrained.quiet():  # no notice that a text is too long: that is the question
            return len(tokenizer(text)["input_ids"]) <= min(limit, self.length)

    @cached_property
    def _tokenizer(self) -> tuple[Any, int]:
        return tokenizer_of(self.folder)
