"""A random BERT with a tokeniser of a few words, in transformers' format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "day", "night", "!"]
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}


def save_tiny_bert(folder: Path, **more: Any) -> Path:
    """The folder, filled."""
    import torch
    import transformers

    from affuse.core import hub

    (folder / "vocab.txt").write_text("\n".join(WORDS))
    with hub.quiet():
        transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
        torch.manual_seed(0)
        config = transformers.BertConfig(**{"vocab_size": len(WORDS), **SIZES, **more})
        transformers.BertModel(config).save_pretrained(folder)
    return folder
