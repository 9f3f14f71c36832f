"""What the extractors of affuse-base's experts share: the model, and one of its modalities run on features."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from affuse.core import io, run_files
from affuse.core.config import PRETRAINED

if TYPE_CHECKING:
    from affuse.core.types import Feature
    from affuse.models.model import Model

BASE = PRETRAINED / "affuse-base"


@cache
def base() -> tuple[Model, dict[str, Any]]:
    """(affuse-base, its RepVGG fused; the parameters of its extractors)."""
    from affuse.layers.repvgg import fused
    from affuse.models.saved import load_model

    described = io.read_json(BASE / run_files.DESCRIPTION)
    return fused(load_model(described, BASE / run_files.WEIGHTS)), described["extractors"]


@cache
def weights_hash() -> str:
    """SHA-256 of affuse-base."""
    return io.file_sha256(BASE / run_files.WEIGHTS)


def width(streams: tuple[str, ...]) -> int:
    """Numbers per step: the streams' embeddings side by side, then the probabilities."""
    model, _ = base()
    encoders: Any = model.encoders
    return sum(encoders[s].dim for s in streams) + len(model.tasks["emotion"])


def utterance(features: Mapping[str, Feature]) -> np.ndarray:
    """[1, width] of one utterance: embeddings of these streams of one modality, and their calibrated probabilities."""
    import torch

    from affuse.core.types import Feature
    from affuse.stores.collate import collate

    model, _ = base()
    absent = {s.name: Feature(np.zeros((0, *s.shape), np.float32)) for s in model.streams}
    with torch.inference_mode():
        batch = collate(model.streams, {n: [features.get(n, empty)] for n, empty in absent.items()})
        encoded = model.encode(batch)
        p = model.tasks["emotion"].predict(model.fuse(encoded, batch).logits["emotion"])
        return torch.cat([*(encoded.pooled[s] for s in features), p], 1).numpy()


def steps(stream: str, feature: Feature) -> np.ndarray:
    """[T, width] of every step of one stream by itself, 0 where it is not valid."""
    import torch

    from affuse.stores.collate import collate

    model, _ = base()
    (spec,) = [s for s in model.streams if s.name == stream]
    head: Any = model.stream_heads[stream]
    with torch.inference_mode():
        batch = collate([spec], {stream: [feature]})
        encoding = model.encoders[stream](batch.x[stream], batch.mask[stream])
        p = model.tasks["emotion"].predict(head["emotion"](encoding.tokens[0]))
        both = torch.cat([encoding.tokens[0], p], 1) * encoding.mask[0].unsqueeze(1)
        return both[: len(feature.values)].numpy()
