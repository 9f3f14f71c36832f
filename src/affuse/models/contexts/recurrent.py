"""LSTM or GRU over the utterances of a conversation, with or without attention over its states."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.layers.attention import Matching, SelfAttention, recall, remember
from affuse.layers.blocks import blocks
from affuse.layers.conversation import Conversations

CARD = {
    "summary": "LSTM or GRU over the conversation, both ways offline; self- or matching attention over its states",
    "source": "bc-LSTM: Poria et al. 2017; matching attention: Ghosal et al. 2019 (DialogueGCN)",
    "entry": "Recurrent",
    "stands": ["after", "before"],
    "modes": ["offline", "causal"],
    "licence": "Apache-2.0",
}

Hidden = Tensor | tuple[Tensor, Tensor] | None
State = dict[str, tuple[Hidden, tuple[Tensor, ...]]]  # the last hidden state, and the last outputs for the attention


class Recurrent(nn.Module):
    """One recurrent network per node set: bidirectional offline, forward only in causal mode.

    attention="self": LayerNorm(h + MHA(h)); "matching": sum_j softmax_j(tanh((W h_i + b) h_j)) h_j, in place of h_i.
    Both attend to the whole conversation, or in causal mode to the utterance and the `past` ones before it. residual
    adds the input (projected where widths differ). Dropout is applied between layers and after the last step.
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

    def forward(self, x: dict[str, Tensor], present: Tensor, conversations: Conversations) -> dict[str, Tensor]:
        """x[s] [N, d_s] -> [N, dim], offline [N, 2 dim], for each s."""
        among = blocks(conversations, self.past, None if self.mode == "offline" else 0) if self.attends else None
        found = {}
        for name, value in x.items():
            h = conversations.unpack(self.network[name](conversations.pack(value))[0])
            found[name] = self._finish(name, value, h if among is None else self.attention[name](h, among))
        return found

    def _finish(self, name: str, x: Tensor, h: Tensor) -> Tensor:
        h = self.dropout(h)
        return h + self.skip[name](x) if len(self.skip) else h

    def begin(self) -> State:
        """The state before the first utterance; raises BadConfig where attention is unbounded."""
        if self.attends and self.past is None:
            raise BadConfig("Recurrent attends to all of the past", "bound its past to use it live")
        return dict.fromkeys(self.dims, (None, ()))

    def push(
        self, x: dict[str, Tensor], present: Tensor, speaker: str, state: State
    ) -> tuple[dict[str, Tensor], State]:
        """x[s] [1, d_s] -> [1, dim] for each s, and the next state; the cost per utterance does not grow."""
        found: dict[str, Tensor] = {}
        after: State = {}
        for name, value in x.items():
            h, hidden = self.network[name](value, state[name][0])
            memory = remember(state[name][1], h, self.past) if self.attends else ()
            if self.attends:
                h = recall(self.attention[name], memory)
            found[name], after[name] = self._finish(name, value, h), (hidden, memory)
        return found, after
