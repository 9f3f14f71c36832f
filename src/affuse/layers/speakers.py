"""Who speaks, as a learned vector that needs no names: any speaker of any conversation, also of one never seen."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from affuse.layers.conversation import Conversations
from affuse.layers.edges import numbered, turns

SpeakerKind = Literal["relative", "turn", "none"]


class SpeakerEmbedding(nn.Module):
    """Adds a vector of the speaker to x. relative: of whether they spoke just before, another did, or nobody yet;
    turn: of the first, second... to speak in the conversation, those past the last of `most`, and anonymous ones, share one.

    `reach`: how many utterances back it looks (None: to the beginning).
    """

    def __init__(self, dim: int, kind: SpeakerKind, most: int = 8) -> None:
        super().__init__()
        self.kind, self.most = kind, most
        self.reach: int | None = {"relative": 1, "turn": None, "none": 0}[kind]
        self.table = None if kind == "none" else nn.Embedding(3 if kind == "relative" else most, dim)

    def forward(self, x: Tensor, talk: Conversations) -> Tensor:
        """x [N, dim] or [N, S, dim] -> the same shape."""
        if self.table is None:
            return x
        vector = self.table(changes(talk) if self.kind == "relative" else numbered(turns(talk), self.most)[0])
        return x + (vector if x.dim() == 2 else vector.unsqueeze(1))


def changes(c: Conversations) -> Tensor:
    """[N]: 0 at the beginning of a conversation, 1 where the speaker goes on, 2 where another one does (or nobody knows)."""
    same = torch.zeros_like(c.speaker, dtype=torch.bool)
    same[1:] = (c.speaker[1:] == c.speaker[:-1]) & (c.speaker[1:] >= 0)
    return torch.where(c.position == 0, 0, 2 - same.long())


def reach_of(past: int | None, steps: int, speaker: SpeakerEmbedding) -> int | None:
    """How far back `steps` times `past` and the speaker look; None without end."""
    return None if past is None or speaker.reach is None else steps * past + speaker.reach
