"""Multimodal learning with alternating unimodal adaptation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from affuse.balance.balancer import Balancer, Control, Step

CARD = {
    "summary": "streams learn in turns, each alone; shared weights change so that the others' predictions stay",
    "source": "Zhang et al., Multimodal Representation Learning by Alternating Unimodal Adaptation, CVPR 2024",
    "entry": "MLA",
    "ordered": True,
    "licence": "Apache-2.0",
}


class MLA(Balancer):
    """Turn s of a batch: L = L_s, the model's loss from stream s alone; W <- W + D P for weights W of all streams.

    D: the change of W by the optimiser's step, with momentum and weight decay. P projects onto the directions
    orthogonal to the other streams' mean features in their latest turns. Other encoders, and parameters without a
    gradient, do not change. The method is made for one head of all streams: fusion=late, fusion.shared=true,
    fusion.how=entropy. With other fusions no weight reads the features of every stream (concatenated features are
    orthogonal already), and the streams only learn in turns. A bias of the head is not projected.

    Differs from the published code: there the gradient is projected, which momentum and Adam undo (under plain SGD it
    is the same); P holds all turns so far, that of s too, and is divided by its norm in each; its update divides by a
    matrix entry by entry; and because of a wrong parameter name it is never used.
    """

    means: Tensor
    sums: Tensor

    def __init__(self, *, alpha: float = 0.1) -> None:
        super().__init__()
        self.alpha = alpha
        self.before: list[Tensor] = []  # the shared weights before the optimiser's step

    def setup(self, encoders: Mapping[str, nn.Module], dims: Mapping[str, int], outputs: int) -> None:
        self.turns = len(dims)
        same = len(set(dims.values())) == 1
        width = max(dims.values()) if same else 0  # streams of different widths share no weights
        self.register_buffer("means", torch.zeros(len(dims), width))
        self.register_buffer("sums", torch.zeros(width + 1), persistent=False)

    def loss(self, step: Step) -> Tensor:
        stream = step.streams[step.turn]
        if self.means.numel():
            counts = (step.counts(stream) > 0).to(self.sums)
            self.sums += torch.cat([counts @ step.features[stream].detach().to(self.sums), counts.sum()[None]])
        return step.term("balance.alone", step.learning(stream).alone(stream)[0])

    @torch.no_grad()
    def gradients(self, control: Control) -> None:
        control.skip_idle()
        self.before = [weight.clone() for weight in control.shared]
        total = control.total(self.sums.clone())
        self.sums.zero_()
        if total[-1] > 0:
            self.means[control.turn] = total[:-1] / total[-1]

    @torch.no_grad()
    def stepped(self, control: Control) -> None:
        others = torch.arange(self.turns, device=self.means.device) != control.turn
        p = projection(self.means[others], self.alpha)
        for weight, before in zip(control.shared, self.before, strict=True):
            weight.copy_(before + (weight - before) @ p.to(weight))


def projection(means: Tensor, alpha: float) -> Tensor:
    """P [d, d]: from the identity, P <- P - P h h^T P / (alpha + h^T P h) for every row h of means [K, d]."""
    p = torch.eye(means.shape[1], dtype=means.dtype, device=means.device)
    for h in means:
        k = p @ h
        p = p - torch.outer(k, k) / (alpha + h @ k)
    return p
