"""Multi-loss balanced training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from affuse.balance.balancer import Balancer, Control, Scores, Step, linear_heads

CARD = {
    "summary": "a head per stream; streams that predict worse than the others are sped up, better ones slowed",
    "source": "Kontras et al., Improving Multimodal Learning with Multi-Loss Gradient Modulation, BMVC 2024",
    "entry": "MLB",
    "licence": "Apache-2.0",
}


class MLB(Balancer):
    """L = L_fused + sum_s L_s; k_s = 1 + tanh(alpha (rho_s - 1)), rho_s = mean of the other streams' scores / score_s.

    Where rho_s > 1 the tanh has the factor beta - 1, so that 1 - tanh(alpha) < k < beta. Scores are those of the
    streams' own heads.

    Differs from the published code: only encoders are scaled, not the heads; one rule serves any number of streams.
    """

    def __init__(self, *, alpha: float = 0.8, beta: float = 2.0) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def setup(self, encoders: Mapping[str, nn.Module], dims: Mapping[str, int], outputs: int) -> None:
        self.heads = linear_heads(dims, outputs)
        self.scores = Scores(len(dims))

    def loss(self, step: Step) -> Tensor:
        logits = {s: self.heads[s](h) for s, h in step.features.items()}
        self.scores.add(step, logits)
        return super().loss(step) + step.term("balance.heads", step.losses(logits))

    def gradients(self, control: Control) -> None:
        k = coefficients(self.scores.update(control), self.alpha, self.beta)
        control.scale(dict(zip(control.parameters, k.tolist(), strict=True)))


def coefficients(score: Tensor, alpha: float, beta: float = 2.0) -> Tensor:
    """k [S] from scores [S]; 1 for a stream that never occurred."""
    rho = others(score) / score.clamp_min(1e-12)
    swing = torch.tanh(alpha * (rho - 1))
    return (1 + torch.where(rho > 1, beta - 1, 1.0) * swing).nan_to_num(1.0)


def others(score: Tensor) -> Tensor:
    """Mean of the other streams' scores [S], of those that occurred (not NaN)."""
    known = score.isfinite().to(score.dtype)
    total = score.nan_to_num(0.0)
    return (total.sum() - total) / (known.sum() - known)
