"""On-the-fly gradient modulation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from affuse.balance.balancer import Balancer, Control, Scores, Step

CARD = {
    "summary": "slows the streams that predict better than the weakest",
    "source": "Peng et al., Balanced Multimodal Learning via On-the-fly Gradient Modulation, CVPR 2022",
    "entry": "OGM",
    "licence": "Apache-2.0",
}


class OGM(Balancer):
    """k_s = 1 - tanh(alpha rho_s) where rho_s > 1, else 1; rho_s = score_s / min_t score_t.

    For two streams this is the paper's equation, for more the rule of BalanceBenchmark. It acts in epochs `start` <= e
    < `end` (None: to the last). A stream's score is that of the model's prediction from it alone; with a linear layer
    on concatenated features this is the paper's W_s h_s + b, except for how the bias is shared.
    """

    noise = False

    def __init__(self, *, alpha: float = 0.8, start: int = 0, end: int | None = None) -> None:
        super().__init__()
        self.alpha, self.start, self.end = alpha, start, end

    def setup(self, encoders: Mapping[str, nn.Module], dims: Mapping[str, int], outputs: int) -> None:
        self.scores = Scores(len(dims))

    def loss(self, step: Step) -> Tensor:
        self.scores.add(step)
        return super().loss(step)

    def gradients(self, control: Control) -> None:
        k = coefficients(self.scores.update(control), self.alpha)
        if self.start <= control.epoch and (self.end is None or control.epoch < self.end):
            control.scale(dict(zip(control.parameters, k.tolist(), strict=True)), self.noise)


def coefficients(score: Tensor, alpha: float) -> Tensor:
    """k [S] of scores [S]."""
    rho = score / score.min().clamp_min(1e-12)
    return torch.where(rho > 1, 1 - torch.tanh(alpha * rho), torch.ones_like(rho))
