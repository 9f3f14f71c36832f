"""xLSTM over the utterances of a conversation."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from affuse.layers.conversation import Conversations
from affuse.layers.xlstm import XLSTM, Kind

CARD = {
    "summary": "mLSTM or sLSTM blocks over the conversation, both ways offline",
    "source": "Beck et al., xLSTM: Extended Long Short-Term Memory, NeurIPS 2024",
    "entry": "XLSTMContext",
    "stands": ["after", "before"],
    "modes": ["offline", "causal"],
    "licence": "Apache-2.0",
}

State = dict[str, list[Any]]  # the blocks' states of every node set


class XLSTMContext(nn.Module):
    """One stack of `blocks` per node set, on W x: in both directions offline, forward only in causal mode.

    An utterance that is absent is a step of zeros, as for the other recurrent contexts. Raises BadConfig for a `dim`
    that does not divide by `heads`.
    """

    def __init__(
        self, dims: dict[str, int], *, stands: Literal["before", "after"] = "after",
        mode: Literal["offline", "causal"] = "offline", dim: int = 96, blocks: tuple[Kind, ...] = ("mlstm",),
        heads: int = 4, expand: int = 2, kernel: int = 4, dropout: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stands, self.mode = stands, mode
        self.dims = dict.fromkeys(dims, dim)
        self.start = nn.ModuleDict({name: nn.Linear(d, dim) for name, d in dims.items()})
        self.over = nn.ModuleDict(
            {
                name: XLSTM(
                    dim, kinds=blocks, heads=heads, expand=expand, kernel=kernel, both=mode == "offline",
                    dropout=dropout,
                )
                for name in dims
            }
        )  # fmt: skip

    def forward(self, x: dict[str, Tensor], present: Tensor, conversations: Conversations) -> dict[str, Tensor]:
        """x[s] [N, d_s] -> [N, dim] for each s."""
        rows, steps = len(conversations.length), int(conversations.length.max())
        at = conversations.conversation, conversations.position
        mask = torch.zeros(rows, steps, dtype=torch.bool, device=present.device)
        mask[at] = True
        found = {}
        for name, value in x.items():
            h = self.start[name](value)
            whole = h.new_zeros(rows, steps, h.shape[1]).index_put(at, h)
            found[name] = self.over[name](whole, mask)[at]
        return found

    def begin(self) -> State:
        """The state before the first utterance."""
        return {name: over.begin() for name, over in self.over.items()}  # type: ignore[operator]

    def push(
        self, x: dict[str, Tensor], present: Tensor, speaker: str, state: State
    ) -> tuple[dict[str, Tensor], State]:
        """x[s] [1, d_s] -> [1, dim] for each s, and the next state; the cost per utterance does not grow."""
        found: dict[str, Tensor] = {}
        after: State = {}
        for name, value in x.items():
            h, over = self.start[name](value), self.over[name]
            found[name], after[name] = over.step(h, state[name])  # type: ignore[operator]
        return found, after
