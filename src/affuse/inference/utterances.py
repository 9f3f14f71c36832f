"""What models predict for utterances: from all modalities together, then from each alone; afterwards, or live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from affuse.core.tasks import Task
from affuse.core.types import Batch, Encoded, Output
from affuse.models.live import LiveSession
from affuse.models.model import Model
from affuse.models.predict import only, pooled_predictions

Predicted = dict[str, list[np.ndarray]]  # task -> predictions [N, C] for each of `subsets`


@dataclass(frozen=True)
class Utterances:
    """Utterances behind the encoders: an Encoded per model, and a Batch that only says who spoke when."""

    batch: Batch
    encoded: list[Encoded]


@torch.inference_mode()
def encode(models: Sequence[Model], batch: Batch, device: torch.device) -> Utterances:
    """A Batch through every model's encoders; sequences are kept only for a fusion that reads them."""
    batch = batch.to(device)
    each = [model.encode(batch) for model in models]
    kept = [e if model.reads_tokens else e.without_tokens() for model, e in zip(models, each, strict=True)]
    return Utterances(replace(batch, x={}, mask={}, t0={}), kept)


def join(parts: Sequence[Utterances]) -> Utterances:
    """Utterances that were encoded one after the other, as if at once."""
    batches = [part.batch for part in parts]
    whole = replace(
        batches[0],
        present=torch.cat([batch.present for batch in batches]),
        conversation=[name for batch in batches for name in batch.conversation],
        position=[place for batch in batches for place in batch.position],
        speaker=[name for batch in batches for name in batch.speaker],
    )
    return Utterances(whole, [Encoded.join(of_one) for of_one in zip(*(part.encoded for part in parts), strict=True)])


def repeated(utterances: Utterances, rows: Sequence[int], keep: torch.Tensor) -> Utterances:
    """Utterances as often as `rows` names them, each by itself, with those streams only that keep [K, S] leaves it."""
    at = torch.tensor(rows, device=keep.device).to(utterances.batch.present.device)
    encoded = [e.take(at).keep(keep.to(at.device)) for e in utterances.encoded]
    batch = replace(utterances.batch, present=encoded[0].present, conversation=[], position=[], speaker=[])
    return Utterances(batch, encoded)


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """What is asked: all modalities together, then each alone."""
    return [tuple(modalities), *((m,) for m in modalities)]


@torch.inference_mode()
def predict(models: Sequence[Model], utterances: Utterances, modalities: Sequence[str]) -> Predicted:
    """Mean predictions of the models for each task and each of `subsets`, every conversation as a whole."""
    pairs = list(zip(models, utterances.encoded, strict=True))
    each = [
        _mean([predictions(m, m.fuse(only(m, e, subset), utterances.batch)) for m, e in pairs])
        for subset in subsets(modalities)
    ]
    return {task: [found[task] for found in each] for task in models[0].tasks}


def predictions(model: Model, output: Output) -> dict[str, np.ndarray]:
    """Task -> the predictions [N, C] of a model for utterances."""
    return {task: p.cpu().numpy() for task, p in pooled_predictions(model.tasks, output).items()}


def _mean(found: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {task: np.mean([each[task] for each in found], axis=0) for task in found[0]}


def tasks_of(models: Sequence[Model]) -> dict[str, Task]:
    """The tasks of models that answer together; thresholds are the mean of theirs."""
    found = {}
    for name, task in models[0].tasks.items():
        chosen = [m.tasks[name].thresholds for m in models]
        thresholds = tuple(np.mean(chosen, axis=0).tolist()) if all(chosen) else ()
        found[name] = replace(task, thresholds=thresholds)
    return found


class Live:
    """`predict` for one conversation that goes on: each utterance from what came before it only.

    Raises BadConfig for a model that looks ahead, or back without end.
    """

    def __init__(self, models: Sequence[Model], modalities: Sequence[str]) -> None:
        self.models, self.subsets = models, subsets(modalities)
        self._sessions = [[LiveSession(model) for _ in self.subsets] for model in models]

    def push(self, utterances: Utterances) -> Predicted:
        """Mean predictions for each task and subset, of the next utterances, given in the order of time."""
        each = [[self._one(k, utterances, i) for k in range(len(self.subsets))] for i in range(len(utterances.batch))]
        tasks = self.models[0].tasks
        return {t: [np.concatenate([row[k][t] for row in each]) for k in range(len(self.subsets))] for t in tasks}

    def _one(self, k: int, utterances: Utterances, i: int) -> dict[str, np.ndarray]:
        found = []
        for model, sessions, encoded in zip(self.models, self._sessions, utterances.encoded, strict=True):
            row = only(model, encoded.take(slice(i, i + 1)), self.subsets[k])
            found.append(predictions(model, sessions[k].step(row, utterances.batch.speaker[i])))
        return _mean(found)
