"""Utterances of several conversations in one batch: their order and speakers, without padding to the longest."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


@dataclass(frozen=True)
class Conversations:
    """N utterances ordered by conversation, and by time within it.

    order [N]: their rows in the batch; conversation [N]: 0..B-1, ascending; position [N]: 0..L_b-1; speaker [N]: one
    number for each speaker of each conversation (-1: no speaker is named); length [B].
    """

    order: Tensor
    conversation: Tensor
    position: Tensor
    speaker: Tensor
    length: Tensor

    def __len__(self) -> int:
        return len(self.order)

    @property
    def start(self) -> Tensor:
        """[B]: where each conversation begins."""
        return self.length.cumsum(0) - self.length

    def sort(self, x: Tensor) -> Tensor:
        """Rows of the batch [N, ...] in the order of the conversations."""
        return x[self.order]

    def unsort(self, x: Tensor) -> Tensor:
        """The inverse of `sort`: rows [N, ...] in the order of the batch again."""
        return torch.empty_like(x).index_copy(0, self.order, x)

    def pack(self, x: Tensor) -> PackedSequence:
        """Sorted rows [N, d] in the form that torch's recurrent layers read without padding."""
        longest_first = torch.argsort(self.length, descending=True, stable=True)
        rank = torch.argsort(longest_first)
        key = self.position * len(self.length) + rank[self.conversation]
        sizes = torch.bincount(self.position).cpu()
        return PackedSequence(x[torch.argsort(key)], sizes, longest_first, rank)

    def unpack(self, packed: PackedSequence) -> Tensor:
        """The rows of `pack`, sorted again: [N, d]."""
        rank = packed.unsorted_indices
        assert rank is not None
        key = self.position * len(self.length) + rank[self.conversation]
        return packed.data[torch.argsort(torch.argsort(key))]


def conversations(
    conversation: Sequence[Hashable],
    position: Sequence[float],
    speaker: Sequence[Hashable],
    device: torch.device | str = "cpu",
) -> Conversations:
    """The conversations of a batch, from the conversation, position and speaker of each row.

    A row whose conversation is "" is a conversation of its own. Rows of equal position keep their order.
    """
    found: dict[Hashable, int] = {}
    named = [name if name else (i, "alone") for i, name in enumerate(conversation)]
    code = torch.tensor([found.setdefault(name, len(found)) for name in named], dtype=torch.int64)
    time = torch.tensor(position, dtype=torch.float64)
    order = torch.argsort(time, stable=True)
    order = order[torch.argsort(code[order], stable=True)]
    length = torch.bincount(code, minlength=len(found))
    start = length.cumsum(0) - length
    speakers: dict[Hashable, int] = {}
    who = [speakers.setdefault((named[i], s), len(speakers)) if s else -1 for i, s in enumerate(speaker)]
    rank = torch.arange(len(order)) - start[code[order]]
    parts = (order, code[order], rank, torch.tensor(who, dtype=torch.int64)[order], length)
    return Conversations(*(part.to(device) for part in parts))
