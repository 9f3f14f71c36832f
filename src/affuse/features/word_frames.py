"""Words on a grid of time: the vector of whatever word is being said."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from affuse.core.errors import BadConfig
from affuse.core.types import Feature, StreamSpec
from affuse.features.text import TextEmbedding

if TYPE_CHECKING:
    from affuse.media.clip import Clip

CARD = {
    "summary": "the vector of the word that is being said, so many per second; word times, else words spread over the "
    "speech",
    "source": "affuse; models as of the text extractor",
    "entry": "WordFrames",
    "modalities": ["text"],
    "licence": "Apache-2.0",
    "version": 1,
    "download": "MiniLM (91 MB, Apache-2.0), or its wheel: extra minilm; others by name",
    "rate": "rate, 10 by default",
    "dim": "384 (minilm), 768 (bert, roberta, albert, deberta), per layer",
    "extra": "minilm",
    "packages": ["transformers"],
}


class WordFrames:
    """Clip -> [T, D] at `rate` Hz: step k is the word that is said at (k + 1/2) / rate s, not valid where none is.

    A word is the mean of its tokens, encoded in its utterance. Its time is the clip's `word_times` [W, 2] (s from the
    utterance's start, one pair per word of the text as white space separates it); without them, the words share the
    speech that is found, in proportion to their letters, or without sound the whole utterance. Words beyond the model's
    limit are not valid. Raises BadConfig where times and words differ in number.
    """

    def __init__(
        self,
        *,
        rate: float = 10.0,
        model: str = "minilm",
        layers: tuple[int, ...] = (-1,),
        weights: tuple[float, ...] = (),
    ) -> None:
        if not 0 < rate < math.inf:
            raise BadConfig(f"word_frames.rate = {rate} is no rate", "give steps per second above 0")
        self.rate, self.model, self.layers, self.weights = rate, model, layers, weights

    @cached_property
    def _words(self) -> TextEmbedding:
        return TextEmbedding(model=self.model, tokens=True, layers=self.layers, weights=self.weights)

    @property
    def spec(self) -> StreamSpec:
        """One word per step."""
        return StreamSpec("word_frames", "text", self._words.spec.shape, self.rate)

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights."""
        return self._words.weights_hash

    def __call__(self, clip: Clip) -> Feature:
        """The words of the clip at their times."""
        words, steps = (clip.text or "").split(), clip.steps(self.rate)
        if not words or not steps:
            return Feature(np.zeros((0, *self.spec.shape), np.float32))
        vectors, known = self._words.words(words)
        times = np.array(clip.word_times, float).reshape(-1, 2) if clip.word_times else spread(words, _speech(clip))
        if len(times) != len(words):
            raise BadConfig(f"{len(times)} word times for {len(words)} words", "give one pair per word of the text")
        middle = (np.arange(steps) + 0.5) / self.rate
        at = np.clip(np.searchsorted(times[:, 0], middle, side="right") - 1, 0, None)
        said = (times[at, 0] <= middle) & (middle < times[at, 1]) & known[at]
        return Feature(np.where(said[:, None], vectors[at], 0).astype(np.float32), said)


def _speech(clip: Clip) -> np.ndarray:
    """Segments of speech [K, 2] in seconds from the clip's start; all of it where none is found."""
    from affuse.media.speech import find_speech

    path = clip.audio or clip.video
    end = clip.start + clip.duration
    found = find_speech(path, clip.start, end)[1] if path is not None and clip.has_audio else []
    return np.array(found or [(clip.start, end)]) - clip.start


def spread(words: list[str], speech: np.ndarray) -> np.ndarray:
    """Times [W, 2] of words laid end to end over the segments of speech [K, 2], long in proportion to their letters.

    A word that meets the end of a segment goes on in the next one.
    """
    letters = np.array([len(word) for word in words], float)
    share = np.concatenate([[0.0], np.cumsum(letters)]) / letters.sum()
    spoken = np.concatenate([[0.0], np.cumsum(speech[:, 1] - speech[:, 0])])
    begins = np.interp(share[:-1] * spoken[-1], spoken, np.arange(len(spoken)))
    ends = np.interp(share[1:] * spoken[-1], spoken, np.arange(len(spoken)))

    def clock(at: np.ndarray, before: bool) -> np.ndarray:
        """Position in segments to seconds; a whole number is the end of a segment, or the begin of the next."""
        k = np.clip(np.ceil(at) - 1 if before else np.floor(at), 0, len(speech) - 1).astype(int)
        return speech[k, 0] + (at - k) * (speech[k, 1] - speech[k, 0])

    return np.stack([clock(begins, False), clock(ends, True)], 1)
