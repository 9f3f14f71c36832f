"""What models answer for utterances: of all modalities together, then of each alone; afterwards, or live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from affuse.core.types import Batch, Encoded, Output
from affuse.models.model import Model, join_encoded, keep_streams
from affuse.models.predict import only, to_prediction


@dataclass(frozen=True)
class Heard:
    """Utterances behind the encoders: an Encoded without tokens per model, and a Batch that only says who spoke when."""

    talk: Batch
    encoded: list[Encoded]


@torch.inference_mode()
def hear(models: Sequence[Model], batch: Batch, device: torch.device) -> Heard:
    """A Batch through every model's encoders; what is left of it is small."""
    batch = batch.to(device)
    encoded = [replace(model.encode(batch), tokens={}) for model in models]
    return Heard(replace(batch, x={}, mask={}, t0={}), encoded)


def join(parts: Sequence[Heard]) -> Heard:
    """Utterances that were heard one after the other, as if at once."""
    talks = [part.talk for part in parts]
    talk = replace(
        talks[0],
        present=torch.cat([talk.present for talk in talks]),
        conversation=[name for talk in talks for name in talk.conversation],
        position=[place for talk in talks for place in talk.position],
        speaker=[name for talk in talks for name in talk.speaker],
    )
    return Heard(talk, [join_encoded(of_one) for of_one in zip(*(part.encoded for part in parts), strict=True)])


def take(encoded: Encoded, rows: torch.Tensor | slice) -> Encoded:
    """Some utterances of an Encoded without tokens, in any order and as often as they are named."""
    mask = {s: v[rows] for s, v in encoded.mask.items()}
    return Encoded(encoded.streams, {}, mask, {s: v[rows] for s, v in encoded.pooled.items()}, encoded.present[rows])


def shares(heard: Heard, rows: Sequence[int], keep: torch.Tensor) -> Heard:
    """Utterances as often as `rows` names them, each by itself and with those streams only that keep [K, S] leaves it."""
    at = torch.tensor(rows, device=keep.device).to(heard.talk.present.device)
    encoded = [keep_streams(take(e, at), keep.to(at.device)) for e in heard.encoded]
    return Heard(replace(heard.talk, present=encoded[0].present, conversation=[], position=[], speaker=[]), encoded)


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """What is asked: all modalities together, then each alone."""
    return [tuple(modalities), *((m,) for m in modalities)]


@torch.inference_mode()
def answer(models: Sequence[Model], heard: Heard, modalities: Sequence[str]) -> list[np.ndarray]:
    """Mean probabilities [N, C] over the models for each of `subsets`, every conversation as a whole."""
    pairs = list(zip(models, heard.encoded, strict=True))
    return [
        np.mean([first_task(m, m.fuse(only(m, e, subset), heard.talk)) for m, e in pairs], axis=0)
        for subset in subsets(modalities)
    ]


def first_task(model: Model, output: Output) -> np.ndarray:
    """The probabilities [N, C] of a model's first task."""
    task = next(iter(model.spaces))
    return to_prediction(model, task, output.logits[task])


class Live:
    """`answer` for one conversation that goes on: each utterance from what came before it only.

    Raises BadConfig for a model that looks ahead, or back without end.
    """

    def __init__(self, models: Sequence[Model], modalities: Sequence[str]) -> None:
        self.models, self.subsets = models, subsets(modalities)
        self._streams = [[model.stream() for _ in self.subsets] for model in models]

    def push(self, heard: Heard) -> list[np.ndarray]:
        """Mean probabilities [N, C] for each of `subsets`, of the next utterances, given in the order of time."""
        answers = [[self._one(k, heard, i) for k in range(len(self.subsets))] for i in range(len(heard.talk))]
        return [np.concatenate(rows) for rows in zip(*answers, strict=True)]

    def _one(self, k: int, heard: Heard, i: int) -> np.ndarray:
        found = []
        for model, streams, encoded in zip(self.models, self._streams, heard.encoded, strict=True):
            row = only(model, take(encoded, slice(i, i + 1)), self.subsets[k])
            found.append(first_task(model, streams[k].step(row, heard.talk.speaker[i])))
        return np.mean(found, axis=0)
