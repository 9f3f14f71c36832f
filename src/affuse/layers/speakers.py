"""The speaker as a learned vector that does not depend on names, so that it serves new conversations and speakers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from affuse.layers.conversation import Conversations
from affuse.layers.edges import numbered, turns

SpeakerKind = Literal["relative", "turn", "none"]


class SpeakerEmbedding(nn.Module):
    """Adds a vector of the speaker to x.

    relative: one vector each for "the same speaker as before", "another speaker", and "the first utterance". turn: one
    vector each for the first, second... speaker of the conversation; speakers beyond the last of `most`, and utterances
    without a speaker, share the last. `reach`: how many utterances back the vector depends on (None: to the beginning).
    """

    def __init__(self, dim: int, kind: SpeakerKind, most: int = 8) -> None:
        super().__init__()
        self.kind, self.most = kind, most
        self.reach: int | None = {"relative": 1, "turn": None, "none": 0}[kind]
        self.table = None if kind == "none" else nn.Embedding(3 if kind == "relative" else most, dim)

    def forward(self, x: Tensor, conversations: Conversations) -> Tensor:
        """x [N, dim] or [N, S, dim] -> the same shape."""
        if self.table is None:
            return x
        if self.kind == "relative":
            number = changes(conversations)
        else:
            number, _ = numbered(turns(conversations), self.most)
        vector = self.table(number)
        return x + (vector if x.dim() == 2 else vector.unsqueeze(1))


def changes(c: Conversations) -> Tensor:
    """[N]: 0 at the beginning of a conversation, 1 after the same speaker, 2 after another one (or an unnamed one)."""
    same = torch.zeros_like(c.speaker, dtype=torch.bool)
    same[1:] = (c.speaker[1:] == c.speaker[:-1]) & (c.speaker[1:] >= 0)
    return torch.where(c.position == 0, 0, 2 - same.long())


def reach_of(past: int | None, steps: int, speaker: SpeakerEmbedding) -> int | None:
    """How many utterances back `steps` layers of `past` and the speaker embedding reach; None: without bound."""
    return None if past is None or speaker.reach is None else steps * past + speaker.reach
