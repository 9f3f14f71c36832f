"""On which other utterances an answer rests: each is taken away, and the change of the answer is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from affuse.core.timeline import Context, Segment
from affuse.core.types import Batch, Encoded
from affuse.inference.utterances import Utterances, encode, predictions
from affuse.models.model import Model

ROWS = 4096  # utterances that go through the model at a time
MOST, LEAST = 5, 0.01  # how many others a segment names at most, and their least influence


def influence(model: Model, batch: Batch, device: torch.device, task: str = "") -> np.ndarray:
    """[N, N]: how far the answer for utterance i (row) moves without utterance j (column), 0..1, under any context.

    Total variation, half the sum of |p - p'| over the classes of `task` (empty: the first); p' is the answer when all
    streams of j are absent while its place and its speaker stay. The diagonal is 0. N copies of the N encoded
    utterances go through the rest of the model.
    """
    utterances = encode([model], batch, device)
    return _influence(model, utterances.encoded[0], utterances.batch, task or next(iter(model.tasks)))


@torch.inference_mode()
def _influence(model: Model, encoded: Encoded, conversations: Batch, task: str) -> np.ndarray:
    n = len(conversations)
    found = np.zeros((n, n))
    there = encoded.present.any(1).nonzero().squeeze(1)
    if not model.conversational or len(there) == 0:
        return found
    whole = predictions(model, model.fuse(encoded, conversations))[task]
    for taken in there.split(max(1, ROWS // n)):
        without = predictions(model, model.fuse(*_copies(encoded, conversations, taken)))[task]
        without = without.reshape(len(taken), n, -1)
        found[:, taken.cpu().numpy()] = np.abs(without - whole).sum(-1).T / 2
    np.fill_diagonal(found, 0.0)
    return found


def _copies(encoded: Encoded, conversations: Batch, taken: torch.Tensor) -> tuple[Encoded, Batch]:
    """One copy of all conversations for each of `taken` [K], which is absent there; each copy stands by itself."""
    n, k = len(conversations), len(taken)
    rows = torch.arange(n, device=taken.device).repeat(k)
    keep = rows != taken.repeat_interleave(n)
    copies = encoded.take(rows).keep(keep[:, None].expand(-1, len(encoded.streams)))
    repeated = replace(
        conversations,
        present=copies.present,
        conversation=[name and f"{copy} {name}" for copy in range(k) for name in conversations.conversation],
        position=conversations.position * k,
        speaker=conversations.speaker * k,
    )
    return copies, repeated


def with_context(
    segments: Sequence[Segment], models: Sequence[Model], utterances: Utterances, task: str
) -> list[Segment]:
    """The segments with the others that influenced their answers most, by the mean influence over the models."""
    pairs = zip(models, utterances.encoded, strict=True)
    found = np.mean([_influence(m, e, utterances.batch, task) for m, e in pairs], axis=0)
    return [
        replace(s, context=_strongest(row)) if s.probabilities else s for s, row in zip(segments, found, strict=True)
    ]


def _strongest(row: np.ndarray) -> list[Context]:
    order = np.argsort(-row, kind="stable")[:MOST]
    return [Context(int(j), float(row[j])) for j in order if row[j] >= LEAST]
