"""Learning the modality gap: the streams' predictions are drawn together first, then the task gets more weight."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from affuse.balance.balancer import Balancer, Control, Step

CARD = {
    "summary": "draws the streams' predictions together early in training, by their Jensen-Shannon divergence",
    "source": "Yang et al., Facilitating Multimodal Classification via Dynamically Learning Modality Gap, NeurIPS 2024",
    "entry": "LFM",
    "licence": "Apache-2.0",
}


class LFM(Balancer):
    """L = 2 (a L_fused + (1 - a) D), D = JS(p_1, ..., p_M) of the predictions from each stream alone; values: variance.

    a increases over the epochs along half a cosine from `first` to 1.

    Differs from the published code: this JS is the Jensen-Shannon divergence, mean_s KL(p_s || mean p) (there the
    arguments are swapped); a is this curve, neither a fitted polynomial nor learned.
    """

    paced = True

    def __init__(self, *, first: float = 0.2) -> None:
        super().__init__()
        self.first = first

    def loss(self, step: Step) -> Tensor:
        a = self.share(step.epoch, step.epochs)
        logits = torch.stack([step.alone(s)[1] for s in step.streams])
        apart = (divergence if step.categorical else variance)(logits, step.present.T)
        return step.fused(2 * a)[0] + step.term("balance.divergence", 2 * (1 - a) * (apart * step.weight).sum())

    def share(self, epoch: int, epochs: int) -> float:
        """a of an epoch, counted from 0; constant after the last one."""
        last = max(1, epochs - 1)
        return 1 - (1 - self.first) * (1 + math.cos(math.pi * min(epoch, last) / last)) / 2

    def gradients(self, control: Control) -> None:
        control.note("share", {"fused": self.share(control.epoch, control.epochs)})


def divergence(logits: Tensor, present: Tensor) -> Tensor:
    """Jensen-Shannon divergence [N] in nats of softmax(logits [S, N, C]), over the streams that are present [S, N]."""
    part = parts(present)[..., None]
    p = logits.log_softmax(2)
    mean = (p + part.log()).logsumexp(0)
    return (part * p.exp() * (p - mean)).sum((0, 2)).where(present.any(0), 0.0)


def variance(values: Tensor, present: Tensor) -> Tensor:
    """Variance [N] of values [S, N, D] over the streams that are present [S, N], averaged over D."""
    part = parts(present)[..., None]
    return (part * (values - (part * values).sum(0)).square()).sum(0).mean(1).where(present.any(0), 0.0)


def parts(present: Tensor) -> Tensor:
    """[S, N]: 1 / (number of streams present) where present, else 0; equal shares where no stream is present."""
    shown = (present | ~present.any(0)).float()
    return shown / shown.sum(0)
