"""A model's predictions for every utterance of a dataset, with any subset of its modalities."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

import numpy as np
import torch

from affuse.core.types import Batch, Encoded
from affuse.models.model import Model, keep_streams


class Batches(Protocol):
    """Anything that yields Batches covering all of its utterances."""

    def parts(self, size: int, whole: bool) -> Iterator[tuple[np.ndarray, Batch]]:
        """(rows, Batch) of about `size` utterances, or of `whole` conversations."""


@torch.inference_mode()
def predict(
    model: Model, data: Batches, device: torch.device, modalities: Collection[str] | None = None, size: int = 64
) -> dict[str, np.ndarray]:
    """Task -> probabilities [N, C] (or values [N, D]), using only these modalities (None: all)."""
    return next(iter(predict_subsets(model, data, device, [modalities], size)))


@torch.inference_mode()
def predict_subsets(
    model: Model,
    data: Batches,
    device: torch.device,
    subsets: list[Collection[str] | None],
    size: int = 64,
) -> list[dict[str, np.ndarray]]:
    """`predict` for several subsets of modalities; every utterance is encoded once."""
    training = model.training
    model.eval()
    found: list[dict[str, list[np.ndarray]]] = [{t: [] for t in model.spaces} for _ in subsets]
    seen = []
    for rows, batch in data.parts(size, model.conversational):
        seen.append(rows)
        batch = batch.to(device)
        encoded = model.encode(batch)
        for subset, collected in zip(subsets, found, strict=True):
            output = model.fuse(only(model, encoded, subset), batch)
            for task, logits in output.logits.items():
                collected[task].append(to_prediction(model, task, logits))
    model.train(training)
    back = np.argsort(np.concatenate(seen))
    return [{task: np.concatenate(parts)[back] for task, parts in collected.items()} for collected in found]


def only(model: Model, encoded: Encoded, modalities: Collection[str] | None) -> Encoded:
    """Encoded with the streams of other modalities taken away."""
    if modalities is None:
        return encoded
    keep = torch.tensor([s.modality in modalities for s in model.streams], device=encoded.present.device)
    return keep_streams(encoded, keep.expand_as(encoded.present))


def to_prediction(model: Model, task: str, logits: torch.Tensor) -> np.ndarray:
    """Logits as probabilities (classes) or as values."""
    classes = model.spaces[task].kind == "classes"
    return (model.probabilities(task, logits) if classes else logits.float()).cpu().numpy()
