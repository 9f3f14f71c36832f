"""MLP encoder on vectors, one per utterance or per step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import Encoding, StreamSpec
from affuse.layers.masked import masked_mean
from affuse.layers.standardise import RankGauss, RootStandardise, Standardise

CARD = {
    "summary": "standardised vectors through a small MLP, then the mean over time",
    "source": "common practice",
    "entry": "MLP",
    "modalities": ["audio", "vision", "text"],
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0",
}

NORMS = {"zscore": Standardise, "root": RootStandardise, "rank": RankGauss}


class MLP(nn.Module):
    """x [N, T, D] (NaN = missing number), mask [N, T] -> Encoding.

    `hidden` and `layers`: width and depth. `normalise`: zscore, root (zscore of signed square roots), or rank (by the
    distribution in the training split, to a standard normal). `noise`: standard deviation of Gaussian noise on the
    normalised inputs; `input_dropout` applies to them too. `members` > 1: the last layer is split into that many groups
    of units; training keeps a random group per utterance, evaluation all of them, divided by their number: an ensemble
    inside one encoder.
    """

    def __init__(
        self,
        spec: StreamSpec,
        *,
        hidden: int = 64,
        layers: int = 1,
        dropout: float = 0.3,
        input_dropout: float = 0.0,
        noise: float = 0.0,
        members: int = 1,
        normalise: Literal["zscore", "root", "rank"] = "zscore",
        clip: float = 5.0,
    ) -> None:
        super().__init__()
        if len(spec.shape) != 1:
            raise BadConfig(f"stream '{spec.name}' has steps of shape {spec.shape}", "mlp needs vectors (D,)")
        if layers < 1:
            raise BadConfig(f"layers = {layers}", "give at least 1")
        if hidden % members:
            message = f"hidden = {hidden} cannot be divided into {members} members"
            raise BadConfig(message, "make hidden a multiple of members")
        self.dim, self.rate, self.members, self.noise = hidden, spec.rate, members, noise
        self.norm = NORMS[normalise](spec.shape[0], clip)
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
        z = self.norm(x)
        if self.training and self.noise > 0:
            z = z + self.noise * torch.randn_like(z)
        tokens = self.net(z) * mask.unsqueeze(-1)
        if self.members > 1:
            tokens = tokens * self._member_mask(tokens)
        return Encoding(tokens, mask, masked_mean(tokens, mask))

    def _member_mask(self, tokens: Tensor) -> Tensor:
        """One random member per utterance while training, 1 / members of each otherwise; [N, 1, d]."""
        if not self.training:
            return tokens.new_full((1, 1, self.dim), 1 / self.members)
        chosen = torch.randint(self.members, (len(tokens),), device=tokens.device)
        kept = nn.functional.one_hot(chosen, self.members).to(tokens.dtype)
        return kept.repeat_interleave(self.dim // self.members, dim=1).unsqueeze(1)
