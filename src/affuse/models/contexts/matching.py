"""Matching attention over a conversation, as DialogueGCN has it after its graph."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.layers.attention import Matching
from affuse.layers.blocks import blocks
from affuse.layers.conversation import Conversations

CARD = {
    "summary": "each utterance as the mean of its neighbours, weighted by how well they match; for the end of a chain",
    "source": "Ghosal et al., DialogueGCN, EMNLP 2019 (general2 in its code)",
    "entry": "MatchingContext",
    "stands": ["after", "before"],
    "modes": ["offline", "causal", "lookahead"],
    "licence": "Apache-2.0",
}


class MatchingContext(nn.Module):
    """dropout(sum_j softmax_j(tanh((W x_i + b) x_j)) x_j) over utterances at most `past` before and `future` after i.

    None: all of the conversation. Chain it after another context. An absent utterance attends to others, but is not
    attended to.
    """

    def __init__(
        self, dims: dict[str, int], *, stands: Literal["after", "before"] = "after",
        mode: Literal["offline", "causal", "lookahead"] = "offline", lookahead: int = 0, past: int | None = None,
        future: int | None = None, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if mode == "lookahead" and lookahead < 1:
            raise BadConfig(f"lookahead={lookahead} is below 1", "give lookahead >= 1 utterances, or mode=causal")
        self.stands, self.mode, self.past = stands, mode, past
        self.ahead = future if mode == "offline" else lookahead if mode == "lookahead" else 0
        self.matching = nn.ModuleDict({name: Matching(width) for name, width in dims.items()})
        self.dropout = nn.Dropout(dropout)
        self.dims, self.reach = dict(dims), past

    def forward(self, x: dict[str, Tensor], present: Tensor, conversations: Conversations) -> dict[str, Tensor]:
        """x[s] [N, d_s] -> the same shapes."""
        among = blocks(conversations, self.past, self.ahead)
        return {s: self.dropout(self.matching[s](h, among, present[:, i])) for i, (s, h) in enumerate(x.items())}
