"""A random ALBERT with a small Unigram tokeniser, in transformers' format: one block that runs at every depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PIECES = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "▁good", "▁bad", "▁day", "▁night", "▁", "s", "!"]
SIZES = {
    "hidden_size": 16,
    "embedding_size": 6,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}


def save_tiny_albert(folder: Path, **more: Any) -> Path:
    """The folder, filled: safetensors, and a fast tokeniser built here."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    from affuse.core import hub

    scored = [(piece, -1.0 - k / 10) for k, piece in enumerate(PIECES)]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=1))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    markers = [(name, PIECES.index(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=markers)
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    with hub.quiet():
        transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
        torch.manual_seed(0)
        config = transformers.AlbertConfig(**{"vocab_size": len(PIECES), **SIZES, **more})
        transformers.AlbertModel(config).save_pretrained(folder)
    return folder
