"""On which other utterances an answer rested: by taking each away and looking at what the model says then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from affuse.core.timeline import Context, Segment
from affuse.core.types import Batch, Encoded
from affuse.inference.answers import Heard, first_task, hear, take
from affuse.models.model import Model, keep_streams

ROWS = 4096  # utterances that go through the model at a time
MOST, LEAST = 5, 0.01  # of the others that a segment names: how many, and of which influence


def influence(model: Model, batch: Batch, device: torch.device) -> np.ndarray:
    """[N, N]: row i says how far the answer for i moves without utterance j, 0..1; whatever the context is made of.

    Total variation, half the sum of |p - p'| over the classes of the first task; p' is the answer when all streams of
    j are absent while its place and its speaker stay. The diagonal is 0. N copies of N utterances go through the model
    behind the encoders.
    """
    heard = hear([model], batch, device)
    return _influence(model, heard.encoded[0], heard.talk)


@torch.inference_mode()
def _influence(model: Model, encoded: Encoded, talk: Batch) -> np.ndarray:
    n = len(talk)
    found = np.zeros((n, n))
    there = encoded.present.any(1).nonzero().squeeze(1)
    if not model.conversational or len(there) == 0:
        return found
    whole = first_task(model, model.fuse(encoded, talk))
    for taken in there.split(max(1, ROWS // n)):
        without = first_task(model, model.fuse(*_copies(encoded, talk, taken))).reshape(len(taken), n, -1)
        found[:, taken.cpu().numpy()] = np.abs(without - whole).sum(-1).T / 2
    np.fill_diagonal(found, 0.0)
    return found


def _copies(encoded: Encoded, talk: Batch, taken: torch.Tensor) -> tuple[Encoded, Batch]:
    """A copy of all conversations for each of `taken` [K], which is absent there; the copies do not know of each other."""
    n, k = len(talk), len(taken)
    rows = torch.arange(n, device=taken.device).repeat(k)
    keep = rows != taken.repeat_interleave(n)
    copies = keep_streams(take(encoded, rows), keep[:, None].expand(-1, len(encoded.streams)))
    names = [name and f"{copy} {name}" for copy in range(k) for name in talk.conversation]
    places = replace(talk, conversation=names, position=talk.position * k, speaker=talk.speaker * k)
    return copies, replace(places, present=copies.present)


def rested(segments: Sequence[Segment], models: Sequence[Model], heard: Heard) -> list[Segment]:
    """The segments with the others that their answers rested on most: the mean influence over the models."""
    found = np.mean([_influence(m, e, heard.talk) for m, e in zip(models, heard.encoded, strict=True)], axis=0)
    return [replace(s, context=_strongest(row)) if s.probabilities else s for s, row in zip(segments, found, strict=True)]


def _strongest(row: np.ndarray) -> list[Context]:
    order = np.argsort(-row, kind="stable")[:MOST]
    return [Context(int(j), float(row[j])) for j in order if row[j] >= LEAST]
