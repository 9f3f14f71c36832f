"""Calibrating multimodal learning."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from affuse.balance.balancer import Balancer, Control, Step

CARD = {
    "summary": "penalises a prediction that gets more confident when a stream is removed",
    "source": "Ma et al., Calibrating Multimodal Learning, ICML 2023",
    "entry": "CML",
    "licence": "Apache-2.0",
}


class CML(Balancer):
    """L = L_fused + weight mean_s E[relu(c(all but s) - c(all))], c = max_c p_c, or exp(-|error|) of values.

    One stream is removed at a time, from the items that have it and another one; both confidences have gradients.

    Differs from the published code: there streams are removed one after another, in a random order for every item, and
    each prediction is compared with the one before; all of these predictions are trained on the labels too; and only
    some items count, depending on which predictions are right.
    """

    sums: Tensor

    def __init__(self, *, weight: float = 0.1) -> None:
        super().__init__()
        self.weight = weight

    def setup(self, encoders: Mapping[str, nn.Module], dims: Mapping[str, int], outputs: int) -> None:
        self.register_buffer("sums", torch.zeros(len(dims)), persistent=False)

    def loss(self, step: Step) -> Tensor:
        loss, logits = step.fused()
        if self.weight == 0:
            return loss
        rises = torch.stack([self.rise(step, s, logits) for s in step.streams])
        self.sums += rises.detach()
        return loss + step.term("balance.confidence", self.weight * rises.mean())

    def rise(self, step: Step, stream: str, logits: Tensor) -> Tensor:
        """By how much confidence without the stream exceeds that of logits [N, C]: this piece's share of the mean."""
        others = step.of(set(step.streams) - {stream})
        without = step.run(others)[1]
        rise = (confidence(step, without) - confidence(step, logits)).relu()
        return (rise * step.counts(stream) * others.any(1)).sum()

    def gradients(self, control: Control) -> None:
        control.note("rise", dict(zip(control.parameters, control.total(self.sums.clone()).tolist(), strict=True)))
        self.sums.zero_()


def confidence(step: Step, logits: Tensor) -> Tensor:
    """The confidence of logits [N, C], 0..1, [N]."""
    return logits.float().softmax(1).amax(1) if step.categorical else step.score(logits)
