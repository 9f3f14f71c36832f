"""Gradient-Blending."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from affuse.balance.balancer import Balancer, Control, Epoch, Step, linear_heads

CARD = {
    "summary": "weighs the fused loss and each stream's by what they gain on held-out data against how they overfit",
    "source": "Wang et al., What Makes Training Multi-modal Classification Networks Hard?, CVPR 2020",
    "entry": "GBlending",
    "licence": "Apache-2.0",
}


class GBlending(Balancer):
    """L = w_0 L_fused + sum_s w_s L_s, w_k ~ (max(G_k, 0) + eps) / (O_k^2 + eps), of mean 1.

    Over the last `every` epochs G_k is the fall of the mean loss on `valid` (held out of train; the test split cannot
    be reached from here), O_k the growth of the gap between `valid` and `train`. All weights are 1 until two looks were
    taken. Differs from the paper: branches are not trained apart as copies, their losses are looked at in the one joint
    training; weights have the mean 1, not the sum, and eps keeps each above 0. Raises BadConfig without `valid`.
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
        own = [w * step.loss(self.heads[s](h), s) for w, (s, h) in zip(self.weights[1:], step.features.items(), strict=True)]
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
        """Mean loss of the fused answer and of every head, over the items that have the stream. [S + 1]"""
        fused = (step.item_loss(step.only(*step.streams)) * step.weight).sum() / step.weight.sum()
        own = [step.loss(self.heads[s](h), s) / step.counts(s).sum().clamp_min(1e-12) for s, h in step.features.items()]
        return torch.stack([fused, *own])


def blend(before: Tensor, now: Tensor, eps: float) -> Tensor:
    """Weights [K] of mean losses on (train, held-out) [2, K] at two times."""
    gain = (before[1] - now[1]).clamp_min(0)
    overfit = (now[1] - now[0]) - (before[1] - before[0])
    weights = (gain + eps) / (overfit.square() + eps)
    return weights / weights.mean()
