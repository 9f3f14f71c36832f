"""Gradient-Blending."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from affuse.balance.balancer import Balancer, Control, Epoch, Step, linear_heads

CARD = {
    "summary": "weights the fused loss and each stream's by their gain on held-out data, relative to their overfitting",
    "source": "Wang et al., What Makes Training Multi-modal Classification Networks Hard?, CVPR 2020",
    "entry": "GBlending",
    "licence": "Apache-2.0",
}


class GBlending(Balancer):
    """L = w_0 L_fused + sum_s w_s L_s, w_k ~ (max(G_k, 0) + eps) / (O_k^2 + eps), of mean 1.

    Over the last `every` epochs G_k is the decrease of the mean loss on `valid` (held out of train; the test split is
    not available here), O_k the increase of the gap between `valid` and `train`. All weights are 1 until the losses
    were measured twice. Raises BadConfig without `valid`.

    Differs from the paper: branches are not trained separately as copies, their losses are measured in the joint
    training; weights have the mean 1, not the sum, and eps keeps each above 0.
    """

    compares = True
    weights: Tensor
    before: Tensor

    def __init__(self, *, every: int = 5, eps: float = 0.01) -> None:
        super().__init__()
        self.every, self.eps = every, eps

    def setup(self, encoders: Mapping[str, nn.Module], dims: Mapping[str, int], outputs: int) -> None:
        self.heads = linear_heads(dims, outputs)
        self.register_buffer("weights", torch.ones(len(dims) + 1))
        self.register_buffer("before", torch.full((2, len(dims) + 1), float("nan")))

    def loss(self, step: Step) -> Tensor:
        streams = zip(self.weights[1:], step.features.items(), strict=True)
        own = [w * step.loss(self.heads[s](h), s) for w, (s, h) in streams]
        return step.fused(self.weights[0])[0] + step.term("balance.heads", torch.stack(own).sum())

    def gradients(self, control: Control) -> None:
        control.note("weight", dict(zip(["fused", *control.parameters], self.weights.tolist(), strict=True)))

    @torch.no_grad()
    def epoch_end(self, epoch: Epoch) -> None:
        if epoch.number % self.every:
            return
        now = torch.stack([self.mean_losses(step) for step in epoch.both()])
        if self.before.isfinite().all():
            self.weights.copy_(blend(self.before, now, self.eps))
        self.before.copy_(now)

    def mean_losses(self, step: Step) -> Tensor:
        """[S + 1]: mean loss of the fused prediction, and of every head over the items that have its stream."""
        fused = (step.item_loss(step.only(*step.streams)) * step.weight).sum() / step.weight.sum()
        own = [step.loss(self.heads[s](h), s) / step.counts(s).sum().clamp_min(1e-12) for s, h in step.features.items()]
        return torch.stack([fused, *own])


def blend(before: Tensor, now: Tensor, eps: float) -> Tensor:
    """Weights [K] from mean losses on (train, held-out) [2, K] at two times."""
    gain = (before[1] - now[1]).clamp_min(0)
    overfit = (now[1] - now[0]) - (before[1] - before[0])
    weights = (gain + eps) / (overfit.square() + eps)
    return weights / weights.mean()
