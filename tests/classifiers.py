"""Tiny random emotion classifiers in transformers' format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from affuse.features.networks import pretrained

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SOUND = {**SIZES, "conv_dim": (8,) * 7, "classifier_proj_size": 8}
WHISPER = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 64, "num_mel_bins": 8, "max_source_positions": 500,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "classifier_proj_size": 8,
}  # fmt: skip
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]}
DISTILBERT = {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2}
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "wav2vec2": ("Wav2Vec2Config", "Wav2Vec2ForSequenceClassification", SOUND),
    "layer": ("Wav2Vec2Config", "Wav2Vec2ForSequenceClassification", {**SOUND, "feat_extract_norm": "layer"}),
    "hubert": ("HubertConfig", "HubertForSequenceClassification", {**SOUND, "use_weighted_layer_sum": True}),
    "whisper": ("WhisperConfig", "WhisperForAudioClassification", WHISPER),
    "vit": ("ViTConfig", "ViTForImageClassification", {**SIZES, "image_size": 32, "patch_size": 8}),
    "resnet": ("ResNetConfig", "ResNetForImageClassification", RESNET),
    "bert": ("BertConfig", "BertForSequenceClassification", {**SIZES, "max_position_embeddings": 20}),
    "roberta": ("RobertaConfig", "RobertaForSequenceClassification", {**SIZES, "max_position_embeddings": 22}),
    "distilbert": ("DistilBertConfig", "DistilBertForSequenceClassification", DISTILBERT),
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "i", "am", "so", "happy", "sad", "how", "dare", "you", "!"]


def save_classifier(folder: Path, family: str, labels: Sequence[str], **more: Any) -> Path:
    """A random classifier of these labels, told well apart; a text model comes with a tokeniser."""
    config, network, sizes = FAMILIES[family]
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    words = {"vocab_size": len(WORDS), "pad_token_id": 0} if "bert" in family and family != "hubert" else {}
    torch.manual_seed(3)
    with pretrained.quiet():
        model = getattr(transformers, network)(getattr(transformers, config)(**sizes, **words, **named, **more))
        for name, parameter in model.named_parameters():
            if name.startswith("classifier"):
                torch.nn.init.normal_(parameter)
        model.save_pretrained(folder)
    if words:
        (folder / "vocab.txt").write_text("\n".join(WORDS))
        transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    if family in ("vit", "resnet"):
        said = {"size": 32, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
        (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder
