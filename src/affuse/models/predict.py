"""A model's predictions for every utterance of a dataset, with any subset of its modalities."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from affuse.core.tasks import Task
from affuse.core.types import Batch, Encoded, Output
from affuse.layers.grid import logits_at
from affuse.models.model import Model

Subset = Collection[str] | None


class Batches(Protocol):
    """Anything that yields Batches covering all of its utterances."""

    def parts(self, size: int, whole: bool) -> Iterator[tuple[np.ndarray, Batch]]:
        """(rows, Batch) of about `size` utterances, or of `whole` conversations."""

    def frames(self, task: str) -> np.ndarray:
        """The number of labels that every utterance has of a task: its frames, or 1; [N]."""


@torch.inference_mode()
def predict(
    model: Model, data: Batches, device: torch.device, modalities: Subset = None, size: int = 64
) -> dict[str, np.ndarray]:
    """Task -> probabilities [N, C] (or values [N, D]), from these modalities only (None: all).

    For a task per frame [M, C]: one row per label, one utterance after the other.
    """
    return next(iter(predict_subsets(model, data, device, [modalities], size)))


@torch.inference_mode()
def predict_subsets(
    model: Model, data: Batches, device: torch.device, subsets: Sequence[Subset], size: int = 64
) -> list[dict[str, np.ndarray]]:
    """`predict` for several subsets of modalities; every utterance is encoded once."""
    training = model.training
    model.eval()
    counts = {name: data.frames(name) for name, task in model.tasks.items() if task.per_frame}
    found: list[dict[str, list[np.ndarray]]] = [{t: [] for t in model.tasks} for _ in subsets]
    seen = []
    for rows, batch in data.parts(size, model.conversational):
        seen.append(rows)
        batch = batch.to(device)
        encoded = model.encode(batch)
        for subset, collected in zip(subsets, found, strict=True):
            output = at_labels(model.fuse(only(model, encoded, subset), batch), batch)
            for name, task in model.tasks.items():
                collected[name].append(task.predict(output.logits[name]).cpu().numpy())
    model.train(training)
    order = np.concatenate(seen)
    return [{task: _ordered(parts, order, counts.get(task)) for task, parts in each.items()} for each in found]


def _ordered(parts: Sequence[np.ndarray], order: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """Predictions of all batches in the order of the utterances; of frames [n, L, C] those that an utterance has."""
    if counts is None:
        return np.concatenate(parts)[np.argsort(order)]
    each = [frames for part in parts for frames in part]
    return np.concatenate([each[at][: counts[row]] for row, at in enumerate(np.argsort(order))])


def at_labels(output: Output, batch: Batch) -> Output:
    """The output with predictions per frame at the times of the labels: from the step there, or the nearest one."""
    moved = {task: _at(output, batch, task) for task in batch.grid if task in output.logits}
    return replace(output, logits={**output.logits, **moved}) if moved else output


def _at(output: Output, batch: Batch, task: str) -> torch.Tensor:
    fused, length = output.fused, batch.target_mask[task].shape[1]
    assert fused.t0 is not None
    t0 = fused.t0 - batch.grid_t0[task] if task in batch.grid_t0 else fused.t0
    return logits_at(output.logits[task], fused.rate, t0, batch.grid[task], length)


def pooled_predictions(tasks: Mapping[str, Task], output: Output) -> dict[str, torch.Tensor]:
    """Task -> one prediction [N, C] per utterance; for a task per frame that of its pooled frames."""
    fused, found = output.fused, {}
    for name, task in tasks.items():
        logits = output.logits[name]
        if task.per_frame and fused.mask is not None:
            found[name] = task.pooled(logits, fused.mask)
        else:
            found[name] = task.predict(logits)
    return found


def only(model: Model, encoded: Encoded, modalities: Subset) -> Encoded:
    """The encoded streams without those of other modalities."""
    if modalities is None:
        return encoded
    keep = torch.tensor([s.modality in modalities for s in model.streams], device=encoded.present.device)
    return encoded.keep(keep.expand_as(encoded.present))
