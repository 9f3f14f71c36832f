"""MLP encoder on vectors, one per utterance or per step."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import Encoding, StreamSpec
from affuse.layers.masked import masked_mean
from affuse.layers.standardise import Standardise

CARD = {
    "summary": "standardised vectors through a small MLP, then the mean over time",
    "source": "common practice",
    "entry": "MLP",
    "modalities": ["audio", "vision", "text"],
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0",
}


class MLP(nn.Module):
    """x [N, T, D] (NaN = missing number), mask [N, T] -> Encoding.

    `hidden` and `layers`: width and depth; `input_dropout` falls on the standardised inputs.
    """

    def __init__(
        self,
        spec: StreamSpec,
        *,
        hidden: int = 64,
        layers: int = 1,
        dropout: float = 0.3,
        input_dropout: float = 0.0,
        clip: float = 5.0,
    ) -> None:
        super().__init__()
        if len(spec.shape) != 1:
            raise BadConfig(f"stream '{spec.name}' has steps of shape {spec.shape}", "mlp needs vectors (D,)")
        if layers < 1:
            raise BadConfig(f"layers = {layers}", "give at least 1")
        self.dim = hidden
        self.norm = Standardise(spec.shape[0], clip)
        widths = [spec.shape[0], *[hidden] * layers]
        stack: list[nn.Module] = [nn.Dropout(input_dropout)]
        for a, b in zip(widths, widths[1:], strict=False):
            stack += [nn.Linear(a, b), nn.GELU(), nn.Dropout(dropout)]
        self.net = nn.Sequential(*stack)

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the normalisation on (x, mask) of the training split."""
        self.norm.fit(batches)

    def forward(self, x: Tensor, mask: Tensor) -> Encoding:
        """Encoding with tokens [N, T, d], mask [N, T], pooled [N, d]."""
        tokens = self.net(self.norm(x)) * mask.unsqueeze(-1)
        return Encoding(tokens, mask, masked_mean(tokens, mask))
