"""Conversations side by side in padded blocks: for dense products, which beat sums along edges by far on a CPU.

Conversations of similar length share a block, so that little of it is padding. Where past and future are both bounded, long
ones are cut into pieces, each with those that its utterances hear: time and memory grow with N times the window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from affuse.core.errors import BadConfig
from affuse.layers.conversation import Conversations

PIECE = 64  # utterances of a conversation that are not worth cutting
CELLS = 2**18  # of one block [B, Q, K]


@dataclass(frozen=True)
class Block:
    """B pieces of conversations: query [B, Q] and key [B, K] are sorted rows, hears [B, Q, K] who hears whom.

    Padding repeats a row of the piece; it neither hears nor is heard.
    """

    query: Tensor
    key: Tensor
    hears: Tensor

    def of_query(self, value: Tensor) -> Tensor:
        """value [N, S] of each query, [B, S, Q, 1]."""
        return rows(value, self.query).transpose(1, 2).unsqueeze(3)

    def of_key(self, value: Tensor) -> Tensor:
        """value [N, S] of each key, [B, S, 1, K]."""
        return rows(value, self.key).transpose(1, 2).unsqueeze(2)

    def within(self, present: Tensor) -> Tensor:
        """[B, S, Q, K]: who hears whom within each of S streams, both present [N, S]."""
        return self.hears.unsqueeze(1) & self.of_query(present) & self.of_key(present)

    @property
    def later(self) -> Tensor:
        """[B, Q, K]: how many utterances a key comes after the query."""
        return self.key.unsqueeze(1) - self.query.unsqueeze(2)


@dataclass(frozen=True)
class Blocks:
    """All N utterances of a batch, each once among the queries of the parts; place [N]: where, part after part."""

    parts: tuple[Block, ...]
    place: Tensor

    def join(self, found: Sequence[Tensor]) -> Tensor:
        """What each part found [B, Q, ...], as sorted rows [N, ...]."""
        return torch.cat([value.flatten(0, 1) for value in found]).index_select(0, self.place)

    def hear(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """sum_k weights_qk x_k: weights [B, S, Q, K] of each part, x [N, S, d] -> [N, S, d]."""
        pairs = zip(self.parts, weights, strict=True)
        return self.join([torch.einsum("bsqk,bksd->bqsd", w, rows(x, block.key)) for block, w in pairs])

    def received(self, weights: Sequence[Tensor]) -> Tensor:
        """sum_k weights_qk: weights [B, S, Q, K] of each part -> [N, S]."""
        return self.join([w.sum(3).transpose(1, 2) for w in weights])


def rows(x: Tensor, index: Tensor) -> Tensor:
    """x[index]: x [N, ...], index [B, L] -> [B, L, ...]; its gradient is a sum by rows, quicker than that of x[index]."""
    return x.index_select(0, index.flatten()).unflatten(0, index.shape)


def blocks(c: Conversations, past: int | None, future: int | None, cells: int = CELLS) -> Blocks:
    """Blocks in which each utterance hears those at most `past` before and `future` after it (None: all), and itself."""
    if min(past or 0, future or 0) < 0:
        raise BadConfig(f"no window has past={past}, future={future}", "give utterances >= 0, or None for all")
    first, count, low, high = _pieces(c, past, future)
    size = ((high - low).float().log() / math.log(1.25)).ceil().long()
    parts, place, used = [], torch.zeros_like(c.order), 0
    for bucket in size.unique().tolist():
        chosen = (size == bucket).nonzero().squeeze(1)
        q, k = int(count[chosen].max()), int((high - low)[chosen].max())
        for part in chosen.split(max(1, cells // (q * k))):
            query, asks = _run(first[part], count[part], q)
            key, speaks = _run(low[part], (high - low)[part], k)
            later = key.unsqueeze(1) - query.unsqueeze(2)
            hears = asks.unsqueeze(2) & speaks.unsqueeze(1)
            hears = hears if past is None else hears & (later >= -past)
            parts.append(Block(query, key, hears if future is None else hears & (later <= future)))
            place[query[asks]] = used + asks.flatten().nonzero().squeeze(1)
            used += query.numel()
    return Blocks(tuple(parts), place)


def _pieces(c: Conversations, past: int | None, future: int | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each piece's first row and count of queries, its lowest key and the end of its keys."""
    if past is None or future is None:
        return c.start, c.length, c.start, c.start + c.length
    step = max(PIECE, past + future)
    pieces = (c.length + step - 1) // step
    start, end = ((at.repeat_interleave(pieces)) for at in (c.start, c.start + c.length))
    rank = torch.arange(len(start), device=start.device) - (pieces.cumsum(0) - pieces).repeat_interleave(pieces)
    first = start + rank * step
    count = (end - first).clamp_max(step)
    return first, count, torch.maximum(start, first - past), torch.minimum(end, first + count + future)


def _run(first: Tensor, count: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Rows [B, longest] first, first + 1..., the last repeated, and which of them count."""
    step = torch.arange(longest, device=first.device)
    return first.unsqueeze(1) + torch.minimum(step, count.unsqueeze(1) - 1), step < count.unsqueeze(1)
