"""The order of training: bucketed by length, seeded per epoch, optionally class-balanced."""

from __future__ import annotations

import numpy as np

BUCKETS = 8  # batches that are sorted by length at a time
FRAME_BUCKETS = 40  # where every frame is predicted: padding costs most there, and an order by chance least


def epoch_batches(
    lengths: np.ndarray,
    size: int,
    seed: int,
    epoch: int,
    labels: np.ndarray | None = None,
    buckets: int = BUCKETS,
) -> list[np.ndarray]:
    """Effective batches of one epoch: arrays of at most `size` row indices.

    lengths [N] put utterances of similar length together (`buckets` batches are sorted at a time); with
    labels [N] every class is drawn equally often. The order depends on (seed, epoch) alone, so that a
    resumed run continues exactly.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths)) if labels is None else _balanced(labels, rng)
    span = size * buckets
    pools = [order[i : i + span] for i in range(0, len(order), span)]
    pools = [pool[np.argsort(lengths[pool], kind="stable")] for pool in pools]
    batches = [pool[i : i + size] for pool in pools for i in range(0, len(pool), size)]
    if len(batches) > 1 and len(batches[-1]) < size // 4:  # a tiny batch gives noisy norm statistics
        batches[-2:] = [np.concatenate(batches[-2:])]
    return [batches[i] for i in rng.permutation(len(batches))]


def conversation_batches(
    conversation: np.ndarray, size: int, seed: int, epoch: int, labels: np.ndarray | None = None
) -> list[np.ndarray]:
    """Effective batches of whole conversations [N], about `size` utterances each (a longer one is a batch of its own).

    With labels [N] (-1: unlabelled) conversations are drawn in proportion to how rare their classes are: the mean of
    1 / sqrt(count of the utterance's class), with replacement, but once at most per batch.
    """
    rng = np.random.default_rng([seed, epoch])
    names, code, count = np.unique(conversation, return_inverse=True, return_counts=True)
    if labels is None:
        order = rng.permutation(len(names))
    else:
        known = labels >= 0
        rare = np.where(
            known, 1 / np.sqrt(np.maximum(np.bincount(labels[known], minlength=1), 1))[np.maximum(labels, 0)], 0
        )
        weight = np.bincount(code, rare) / np.maximum(np.bincount(code, known), 1)
        order = rng.choice(len(names), len(names), p=weight / weight.sum())
    ends = np.cumsum(count[order])
    parts = np.split(order, np.flatnonzero(np.diff((ends - 1) // size)) + 1)
    return [np.flatnonzero(np.isin(code, part)) for part in parts]


def _balanced(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """N draws in which every class occurs equally often; a class is exhausted before it repeats."""
    classes = np.unique(labels[labels >= 0])
    quota = np.full(len(classes), len(labels) // len(classes))
    quota[rng.permutation(len(classes))[: len(labels) - quota.sum()]] += 1
    drawn = [_repeat(np.flatnonzero(labels == c), q, rng) for c, q in zip(classes, quota, strict=True)]
    return rng.permutation(np.concatenate(drawn))


def _repeat(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    rounds = -(-count // len(rows))
    return np.concatenate([rng.permutation(rows) for _ in range(rounds)])[:count]


def share(
    batch: np.ndarray, rank: int, world: int, accumulate: int, conversation: np.ndarray | None = None
) -> list[np.ndarray]:
    """The part of an effective batch that one process runs, in at most `accumulate` pieces.

    All processes have equally many pieces, of which the last may be empty. With `conversation` (of every row of the
    split) a conversation stays together.
    """
    units = batch if conversation is None else np.unique(conversation[batch])
    most = -(-len(units) // world)
    pieces = np.array_split(units[rank::world], min(accumulate, most))
    return pieces if conversation is None else [batch[np.isin(conversation[batch], piece)] for piece in pieces]
