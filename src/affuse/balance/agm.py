"""Adaptive gradient modulation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from affuse.balance.balancer import Balancer, Control, Step
from affuse.balance.shapley import shapley, subsets

CARD = {
    "summary": "slows streams whose share of the prediction (a Shapley value) exceeds its past, speeds up the others",
    "source": "Li et al., Boosting Multi-modal Model Performance with Adaptive Gradient Modulation, ICCV 2023",
    "entry": "AGM",
    "licence": "Apache-2.0",
}


class AGM(Balancer):
    """k_s = exp(alpha min(r*_s - r_s, 10)), r_s = exp(M/(M-1) (mean_t l_t - l_s)), r* of past mean losses.

    l_s = l(phi_s, y): the loss of stream s' Shapley output from probes with every subset of the streams (2^M probes per
    step), over the items that have it.

    Differs from the published code: an absent stream has absent features, not inputs of zeros; the prediction without
    any stream is subtracted for two streams too; only encoders are scaled, not the fusion; k = 1 in the first step.
    """

    mean: Tensor
    steps: Tensor
    sums: Tensor

    def __init__(self, *, alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha = alpha

    def setup(self, encoders: Mapping[str, nn.Module], dims: Mapping[str, int], outputs: int) -> None:
        self.register_buffer("mean", torch.full((len(dims),), float("nan")))
        self.register_buffer("steps", torch.zeros(len(dims)))
        self.register_buffer("sums", torch.zeros(len(dims), 2), persistent=False)

    def loss(self, step: Step) -> Tensor:
        self.add(step)
        return super().loss(step)

    @torch.no_grad()
    def add(self, step: Step) -> None:
        """Add the losses of the Shapley outputs of a piece."""
        phi = shapley({subset: step.only(*subset).to(self.sums) for subset in subsets(step.streams)})
        losses = [torch.stack([step.loss(phi[s], s), step.counts(s).sum()]) for s in step.streams]
        self.sums += torch.stack(losses)

    @torch.no_grad()
    def gradients(self, control: Control) -> None:
        loss, count = control.total(self.sums.clone()).unbind(1)
        now = torch.where(count > 0, loss / count, self.mean)
        k = coefficients(now, self.mean, self.alpha)
        self.steps += count > 0
        self.mean.copy_(torch.where(self.mean.isnan(), now, self.mean + (now - self.mean) / self.steps.clamp_min(1)))
        self.sums.zero_()
        control.note("loss", dict(zip(control.parameters, now.tolist(), strict=True)))
        control.scale(dict(zip(control.parameters, k.tolist(), strict=True)))


def coefficients(now: Tensor, mean: Tensor, alpha: float) -> Tensor:
    """k [S] from the losses of this step and their running means [S]; 1 where one of them is NaN."""

    def lead(loss: Tensor) -> Tensor:
        streams = len(loss)
        return torch.exp((streams / (streams - 1) * (loss.nanmean() - loss)).clamp(-50, 50))

    return torch.exp(alpha * (lead(mean) - lead(now)).clamp_max(10)).nan_to_num(1.0)
