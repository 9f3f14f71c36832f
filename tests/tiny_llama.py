"""A random LLaMA with the tokeniser of the tiny BERT, in transformers' format: it reads from left to right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny_bert import WORDS

SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 24, "max_position_embeddings": 200,
}  # fmt: skip
END = WORDS.index("[SEP]")


def save_tiny_llama(folder: Path, **more: Any) -> Path:
    """The folder, filled; its padding is its end marker, as where published models have none of their own."""
    import torch
    import transformers

    from affuse.core import hub

    (folder / "vocab.txt").write_text("\n".join(WORDS))
    ids = {"vocab_size": len(WORDS), "pad_token_id": END, "eos_token_id": END, "bos_token_id": WORDS.index("[CLS]")}
    with hub.quiet():
        transformers.BertTokenizer(str(folder / "vocab.txt"), pad_token="[SEP]").save_pretrained(folder)
        torch.manual_seed(0)
        transformers.LlamaModel(transformers.LlamaConfig(**{**ids, **SIZES, **more})).save_pretrained(folder)
    return folder
