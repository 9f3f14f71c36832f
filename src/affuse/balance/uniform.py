"""Uniform multi-loss training: the baseline that every balancer must beat."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from affuse.balance.balancer import Balancer, Step, linear_heads

CARD = {
    "summary": "a head per stream, whose losses are added to the fused one with equal weights",
    "source": "common practice; the baseline of MMPareto, Wei and Hu, ICML 2024",
    "entry": "Uniform",
    "licence": "Apache-2.0",
}


class Uniform(Balancer):
    """L = L_fused + weight sum_s L_s, L_s = l(W_s h_s + b_s, y)."""

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def setup(self, encoders: Mapping[str, nn.Module], dims: Mapping[str, int], outputs: int) -> None:
        self.heads = linear_heads(dims, outputs)

    def loss(self, step: Step) -> Tensor:
        own = step.losses({s: self.heads[s](h) for s, h in step.features.items()})
        return step.fused()[0] + step.term("balance.heads", self.weight * own)
