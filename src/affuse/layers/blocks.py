"""Conversations in padded blocks, for dense products: on a CPU these are much faster than sums along edges.

Conversations of similar length share a block, so that little of it is padding. Where past and future are both bounded,
long conversations are cut into pieces, each together with the neighbours of its utterances: time and memory grow with
N times the window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from affuse.core.errors import BadConfig
from affuse.layers.conversation import Conversations

PIECE = 64  # utterances; shorter conversations are not worth cutting
CELLS = 2**18  # of one block [B, Q, K]


@dataclass(frozen=True)
class Block:
    """B pieces of conversations: query [B, Q] and key [B, K] are sorted rows.

    attended [B, Q, K]: whether the query attends to the key. Padding repeats a row of the piece; it neither attends nor
    is attended to.
    """

    query: Tensor
    key: Tensor
    attended: Tensor

    def of_query(self, value: Tensor) -> Tensor:
        """value [N, S] of each query, [B, S, Q, 1]."""
        return rows(value, self.query).transpose(1, 2).unsqueeze(3)

    def of_key(self, value: Tensor) -> Tensor:
        """value [N, S] of each key, [B, S, 1, K]."""
        return rows(value, self.key).transpose(1, 2).unsqueeze(2)

    def within(self, present: Tensor) -> Tensor:
        """[B, S, Q, K]: `attended` within each of S streams, where both ends are present [N, S]."""
        return self.attended.unsqueeze(1) & self.of_query(present) & self.of_key(present)

    @property
    def later(self) -> Tensor:
        """[B, Q, K]: how many utterances a key comes after the query."""
        return self.key.unsqueeze(1) - self.query.unsqueeze(2)


@dataclass(frozen=True)
class Blocks:
    """All N utterances of a batch, each once among the queries of the parts.

    place [N]: its index among the queries of all parts, one part after the other.
    """

    parts: tuple[Block, ...]
    place: Tensor

    def join(self, found: Sequence[Tensor]) -> Tensor:
        """The results of each part [B, Q, ...], as sorted rows [N, ...]."""
        return torch.cat([value.flatten(0, 1) for value in found]).index_select(0, self.place)

    def weighted_sum(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """sum_k weights_qk x_k: weights [B, S, Q, K] of each part, x [N, S, d] -> [N, S, d]."""
        pairs = zip(self.parts, weights, strict=True)
        return self.join([torch.einsum("bsqk,bksd->bqsd", w, rows(x, block.key)) for block, w in pairs])

    def received(self, weights: Sequence[Tensor]) -> Tensor:
        """sum_k weights_qk: weights [B, S, Q, K] of each part -> [N, S]."""
        return self.join([w.sum(3).transpose(1, 2) for w in weights])


def rows(x: Tensor, index: Tensor) -> Tensor:
    """x[index]: x [N, ...], index [B, L] -> [B, L, ...]; its gradient is computed faster than that of x[index]."""
    return x.index_select(0, index.flatten()).unflatten(0, index.shape)


def blocks(c: Conversations, past: int | None, future: int | None, cells: int = CELLS) -> Blocks:
    """Blocks in which each utterance attends to itself, `past` utterances before and `future` after it (None: all)."""
    if min(past or 0, future or 0) < 0:
        raise BadConfig(f"no window has past={past}, future={future}", "give utterances >= 0, or None for all")
    first, count, low, high = _pieces(c, past, future)
    size = ((high - low).float().log() / math.log(1.25)).ceil().long()
    parts, place, used = [], torch.zeros_like(c.order), 0
    for bucket in size.unique().tolist():
        chosen = (size == bucket).nonzero().squeeze(1)
        q, k = int(count[chosen].max()), int((high - low)[chosen].max())
        for part in chosen.split(max(1, cells // (q * k))):
            query, is_query = _run(first[part], count[part], q)
            key, is_key = _run(low[part], (high - low)[part], k)
            later = key.unsqueeze(1) - query.unsqueeze(2)
            attended = is_query.unsqueeze(2) & is_key.unsqueeze(1)
            attended = attended if past is None else attended & (later >= -past)
            parts.append(Block(query, key, attended if future is None else attended & (later <= future)))
            place[query[is_query]] = used + is_query.flatten().nonzero().squeeze(1)
            used += query.numel()
    return Blocks(tuple(parts), place)


def _pieces(c: Conversations, past: int | None, future: int | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each piece: the first row and the number of its queries, the first row and the end of its keys."""
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
    """Rows [B, longest] first, first + 1..., the last one repeated as padding; and a mask that excludes the padding."""
    step = torch.arange(longest, device=first.device)
    return first.unsqueeze(1) + torch.minimum(step, count.unsqueeze(1) - 1), step < count.unsqueeze(1)
