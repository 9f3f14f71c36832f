"""No conversational context: every utterance stands alone."""

from __future__ import annotations

from torch import Tensor, nn

from affuse.layers.conversation import Conversations

CARD = {
    "summary": "every utterance stands alone",
    "source": "baseline",
    "entry": "NoContext",
    "stands": ["before"],
    "modes": ["offline", "causal"],
    "licence": "Apache-2.0",
}


class NoContext(nn.Module):
    """Hands the utterances on as they are; a recipe's `context: none` is an empty list of parts."""

    stands = "before"

    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: dict[str, Tensor], present: Tensor, talk: Conversations) -> dict[str, Tensor]:
        """x[s] [N, d_s] -> the same."""
        return x
