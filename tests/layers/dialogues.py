"""Conversations for the tests of graph layers."""

from __future__ import annotations

import torch

from affuse.layers.conversation import Conversations, conversations


def dialogues(lengths: list[int], speakers: int = 2, anonymous: bool = False, seed: int = 0) -> Conversations:
    """Dialogues of these lengths, in order, with random speakers (some of them nobody where `anonymous`)."""
    generator = torch.Generator().manual_seed(seed)
    names, times = [f"d{b}" for b, n in enumerate(lengths) for _ in range(n)], [i for n in lengths for i in range(n)]
    who = torch.randint(-1 if anonymous else 0, speakers, (len(names),), generator=generator).tolist()
    return conversations(names, times, ["" if w < 0 else f"s{w}" for w in who])


def slot(lengths: list[int], b: int) -> slice:
    """The rows of dialogue b."""
    return slice(sum(lengths[:b]), sum(lengths[: b + 1]))
