"""LSTM or GRU over the utterances of a conversation, with or without attention over its states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.layers.blocks import Block, Blocks, blocks
from affuse.layers.conversation import Conversations
from affuse.models.contexts.transformer import attend

CARD = {
    "summary": "LSTM or GRU over the conversation, both ways offline; self- or matching attention over its states",
    "source": "bc-LSTM: Poria et al. 2017; matching attention: Ghosal et al. 2019 (DialogueGCN)",
    "entry": "Recurrent",
    "stands": ["after", "before"],
    "modes": ["offline", "causal"],
    "licence": "Apache-2.0",
}

Hidden = Tensor | tuple[Tensor, Tensor] | None
State = dict[str, tuple[Hidden, tuple[Tensor, ...]]]  # the last hidden state, and the outputs that can still be heard


class Recurrent(nn.Module):
    """One recurrent network per node set: bidirectional offline, forward only in causal mode.

    attention="self": LayerNorm(h + MHA(h)); "matching": sum_j softmax_j(tanh((W h_i + b) h_j)) h_j, in place of h_i.
    Both hear the whole conversation, or in causal mode themselves and `past` utterances. residual adds the input
    (projected where widths differ). Dropout stands between layers and after all.
    """

    def __init__(
        self, dims: dict[str, int], *, stands: Literal["before", "after"] = "after",
        mode: Literal["offline", "causal"] = "offline", cell: Literal["gru", "lstm"] = "gru", dim: int = 100,
        layers: int = 1, dropout: float = 0.2, attention: Literal["none", "self", "matching"] = "none",
        heads: int = 4, past: int | None = None, residual: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if past is not None and past < 0:
            raise BadConfig(f"past={past} is no number of utterances", "give past >= 0, or null for all")
        self.stands, self.mode, self.past, self.attends = stands, mode, past, attention != "none"
        width = dim * (1 + (mode == "offline"))
        self.dims = dict.fromkeys(dims, width)

        def network(d: int) -> nn.GRU | nn.LSTM:
            kind = nn.GRU if cell == "gru" else nn.LSTM
            return kind(d, dim, layers, dropout=dropout if layers > 1 else 0.0, bidirectional=mode == "offline")

        def over() -> nn.Module:
            return SelfAttention(width, heads, dropout) if attention == "self" else Matching(width)

        self.network = nn.ModuleDict({name: network(d) for name, d in dims.items()})
        self.attention = nn.ModuleDict({name: over() for name in dims} if self.attends else {})
        skips = {n: nn.Identity() if d == width else nn.Linear(d, width, bias=False) for n, d in dims.items()}
        self.skip = nn.ModuleDict(skips if residual else {})
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: dict[str, Tensor], present: Tensor, talk: Conversations) -> dict[str, Tensor]:
        """x[s] [N, d_s] -> [N, dim], offline [N, 2 dim], for each s."""
        among = blocks(talk, self.past, None if self.mode == "offline" else 0) if self.attends else None
        found = {}
        for name, value in x.items():
            h = talk.unpack(self.network[name](talk.pack(value))[0])
            found[name] = self._finish(name, value, h if among is None else self.attention[name](h, among))
        return found

    def _finish(self, name: str, x: Tensor, h: Tensor) -> Tensor:
        h = self.dropout(h)
        return h + self.skip[name](x) if len(self.skip) else h

    def begin(self) -> State:
        """The state before the first utterance; BadConfig where attention has no bound."""
        if self.attends and self.past is None:
            raise BadConfig("Recurrent attends to all of the past", "bound its past to use it live")
        return dict.fromkeys(self.dims, (None, ()))

    def push(
        self, x: dict[str, Tensor], present: Tensor, speaker: str, state: State
    ) -> tuple[dict[str, Tensor], State]:
        """x[s] [1, d_s] -> [1, dim] for each s, and the next state; what it costs does not grow."""
        found: dict[str, Tensor] = {}
        after: State = {}
        for name, value in x.items():
            h, hidden = self.network[name](value, state[name][0])
            memory = remember(state[name][1], h, self.past) if self.attends else ()
            if self.attends:
                h = recall(self.attention[name], memory)
            found[name], after[name] = self._finish(name, value, h), (hidden, memory)
        return found, after


def remember(memory: tuple[Tensor, ...], h: Tensor, past: int | None) -> tuple[Tensor, ...]:
    """The last `past` states [1, d], and h."""
    return (*memory, h)[-(past or 0) - 1 :]


def recall(attention: nn.Module, memory: Sequence[Tensor]) -> Tensor:
    """What attention gives for the last of the remembered states [1, d], which hears them all: [1, d]."""
    h = torch.cat(list(memory))
    key = torch.arange(len(h), device=h.device).unsqueeze(0)
    last = Block(key[:, -1:], key, torch.ones_like(key, dtype=torch.bool).unsqueeze(1))
    found: Tensor = attention(h, Blocks((last,), torch.zeros_like(key[0])))
    return found[-1:]


class SelfAttention(nn.Module):
    """LayerNorm(h + MHA(h)) within each conversation."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise BadConfig(f"{heads} heads do not share states of {dim}", "give dim as a multiple of heads")
        self.heads, self.dropout = heads, dropout
        self.project, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, h: Tensor, among: Blocks) -> Tensor:
        """h [N, dim] -> [N, dim]."""
        q, k, v = self.project(h).unflatten(1, (3, self.heads, -1)).unbind(1)
        dropout = self.dropout if self.training else 0.0
        mixed = attend(q * q.shape[-1] ** -0.5, k, v, among, dropout=dropout)
        return self.norm(h + self.out(mixed.flatten(1)))


class Matching(nn.Module):
    """DialogueGCN's general2: sum_j softmax_j(tanh((W h_i + b) h_j)) h_j."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.transform = nn.Linear(dim, dim)

    def forward(self, h: Tensor, among: Blocks) -> Tensor:
        """h [N, dim] -> [N, dim]."""
        query, heard = self.transform(h).unsqueeze(1), h.unsqueeze(1)
        return attend(query, heard, heard, among, scored=lambda scores, block: scores.tanh()).squeeze(1)
