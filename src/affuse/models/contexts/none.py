"""No conversational context: every utterance stands alone."""

from __future__ import annotations

from torch import nn

from affuse.core.types import Batch, Encoded

CARD = {
    "summary": "every utterance stands alone",
    "source": "baseline",
    "entry": "NoContext",
    "modes": ["offline", "causal"],
    "licence": "Apache-2.0",
}


class NoContext(nn.Module):
    """Hands the encoded utterances on as they are."""

    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, encoded: Encoded, batch: Batch) -> Encoded:
        """Encoded -> Encoded."""
        return encoded
