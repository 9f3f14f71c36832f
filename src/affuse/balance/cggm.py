"""Classifier-guided gradient modulation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from affuse.balance.balancer import Apply, Balancer, Control, Features, Measure, Scores, Step, linear_heads
from affuse.core.errors import BadConfig

CARD = {
    "summary": "slows the encoders whose classifiers improve most, and aligns the directions of the gradients",
    "source": "Guo et al., Classifier-guided Gradient Modulation for Enhanced Multimodal Learning, NeurIPS 2024",
    "entry": "CGGM",
    "licence": "Apache-2.0",
}

EPS = 1e-3  # errors smaller than this have no direction


class CGGM(Balancer):
    """k_s = rho B_s, B_s = (S - D_s) / S, S = sum_s D_s; L = L_fused + lam (1/M) [sum_s |B_s| - sum_s B_s c_s].

    B in L is that of the step before. D_s: the change, from step to step, of the score of the guide of stream s, a
    linear classifier on its detached features that learns at `guide_rate` times the optimiser's rate. c_s with
    direction "gradients": the cosine between the errors (`residual`) of guide and model, per item, for values over the
    items of a piece; with "weights": the cosine between the weights of the guide and those of the last layer that read
    the stream.

    Differs from the published code: scores are means, averaged over steps with `beta`; B is kept in 0..2, and is 1
    where |S| < tol. `faithful` is the published equation, on gradients: B is then unbounded, so give a `clip`
    (published: 0.8), which applies to all of them. In the published code the cosine is that of weights, and guides are
    in the main optimiser too, so that they learn at its rate (`guide_rate` 1). Raises BadConfig for `faithful` with
    multipliers of learning rates, which would be unbounded.
    """

    magnitude: Tensor

    def __init__(
        self, *, rho: float = 1.3, lam: float = 0.2, direction: Literal["gradients", "weights"] = "gradients",
        measure: Measure = "true_prob", beta: float = 0.9, guide_rate: float = 0.5, tol: float = 1e-3,
        faithful: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.rho, self.lam, self.direction, self.own_rate = rho, lam, direction, guide_rate
        self.measure, self.beta, self.tol, self.faithful = measure, beta, tol, faithful

    def setup(self, encoders: Mapping[str, nn.Module], dims: Mapping[str, int], outputs: int) -> None:
        self.guides = linear_heads(dims, outputs)
        self.scores = Scores(len(dims), self.beta, self.measure)
        self.register_buffer("magnitude", torch.ones(len(dims)))

    def acts(self, apply: Apply) -> Apply:
        if self.faithful and apply == "lr":
            unbounded = "balance.faithful=true has multipliers without a bound"
            message = f"{unbounded}, and balance.apply=lr acts after gradients are clipped"
            raise BadConfig(message, "set balance.apply=grad, or balance.faithful=false")
        return "grad" if self.faithful else apply

    def loss(self, step: Step) -> Tensor:
        return self.guided(step, step, self.guide_logits(step))

    def guide_logits(self, step: Step) -> Features:
        """The guides' logits [N, C] by stream."""
        return {s: self.guides[s](h.detach()) for s, h in step.features.items()}

    def guided(self, step: Step, shown: Step, own_logits: Features) -> Tensor:
        """The loss where the guides' logits are from `step`, and the model gets `shown`."""
        self.scores.add(step, own_logits)
        loss, logits = shown.fused()
        loss = loss + step.term("balance.guides", step.losses(own_logits))
        if self.lam == 0:
            return loss
        c = self._of_weights(step) if self.direction == "weights" else self._of_gradients(shown, logits, own_logits)
        share = torch.stack([shown.counts(s).sum() for s in shown.streams])  # of the items that have the stream
        penalty = (share * (self.magnitude.abs() - self.magnitude * c)).mean()
        return loss + step.term("balance.direction", self.lam * penalty)

    def gradients(self, control: Control) -> None:
        before = self.scores.value.clone()
        now = self.scores.update(control)
        gain = now - (before.nan_to_num(0.0) if self.faithful else before)
        self.magnitude.copy_(magnitudes(gain, self.tol, self.faithful))
        control.scale(dict(zip(control.parameters, (self.rho * self.magnitude).tolist(), strict=True)))

    def _of_gradients(self, shown: Step, logits: Tensor, own_logits: Features) -> Tensor:
        model = residual(shown, logits)
        errors = {s: residual(shown, own.detach()) for s, own in own_logits.items()}
        return torch.stack([agreement(shown, error, model, shown.counts(s)) for s, error in errors.items()])

    def _of_weights(self, step: Step) -> Tensor:
        blocks = step.blocks()
        if not blocks:
            raise BadConfig(
                "balance.direction = weights compares guides with the columns of a linear head, and the model has none",
                "set fusion=concat with fusion.dim=0 and no context, or balance.direction=gradients",
            )
        guides = {s: guide.weight.detach().flatten() for s, guide in self.guides.items()}  # type: ignore[operator]
        return torch.stack([cosine_similarity(guides[s], blocks[s].flatten(), dim=0) for s in step.streams])


def magnitudes(change: Tensor, tol: float = 1e-3, faithful: bool = False) -> Tensor:
    """B [S] from score changes D [S] (NaN: unknown, counts as 0)."""
    change = change.nan_to_num(0.0)
    total = change.sum()
    if faithful:
        return (total + 1e-8 - change) / (total + 1e-8)
    if total.abs() < tol:
        return torch.ones_like(change)
    return ((total - change) / total).clamp(0, 2)


def residual(step: Step, logits: Tensor) -> Tensor:
    """Gradient by logits z [N, C] of each item's cross-entropy, softmax(z) - y, or half the squared error, z - y."""
    if step.categorical:
        return logits.float().softmax(1) - step.shares(logits.shape[1])
    return logits.float() - torch.nan_to_num(step.target).reshape(logits.shape)


def agreement(step: Step, one: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """Cosine of residuals [N, C]: for classes per item, averaged with weights [N]; for values over the items."""
    if step.categorical:
        return (cosine_similarity(one, other, dim=1, eps=EPS) * weight).sum() / weight.sum().clamp_min(1e-12)
    root = weight.sqrt()[:, None]
    return cosine_similarity(root * one, root * other, dim=0, eps=EPS).mean()
