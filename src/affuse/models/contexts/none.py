"""No conversational context: every utterance by itself."""

from __future__ import annotations

from torch import Tensor, nn

from affuse.layers.conversation import Conversations

CARD = {
    "summary": "every utterance by itself",
    "source": "baseline",
    "entry": "NoContext",
    "stands": ["before"],
    "modes": ["offline", "causal"],
    "licence": "Apache-2.0",
}


class NoContext(nn.Module):
    """Returns the utterances unchanged; `context: none` in a recipe is an empty list of parts."""

    stands = "before"

    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: dict[str, Tensor], present: Tensor, conversations: Conversations) -> dict[str, Tensor]:
        """x[s] [N, d_s] -> the same."""
        return x
