"""ReconBoost: streams learn in stages, each from the errors of the others."""

from __future__ import annotations

import torch
from torch import Tensor

from affuse.balance.balancer import Balancer, Control, Step
from affuse.core.errors import BadConfig

CARD = {
    "summary": "streams learn one by one for some epochs, each from the errors of the others, then all together",
    "source": "Hua et al., ReconBoost: Boosting Can Achieve Modality Reconcilement, ICML 2024",
    "entry": "ReconBoost",
    "ordered": True,
    "licence": "Apache-2.0",
}


class ReconBoost(Balancer):
    """`stage` epochs of stream m alone, `rectify` epochs of L_fused, then the next stream.

    In the stage of m, with y in {0, 1}^C:

    L = -w1 y.log p_m + w2 (y * q).log p_m + alpha ||p_m - p'||^2

    p_m: the model's prediction from m alone, q: from all others, p': from the stream that learned before it, after the
    first stage (values are compared directly). For any task this is (w1 - w2 score(q)) l(p_m, y), which is the same for
    hard labels. Other encoders, and parameters without a gradient, do not change (batch norms still update their
    statistics).

    Differs from the published code: there p_m has no gradient in the last term, which therefore has no effect; the
    first two terms are means over the C classes, 1/C of those here; q is 1 in the first stage; every stage has a new
    optimiser; and all streams share one head of two layers, with a learned factor for the sum of the logits.
    """

    def __init__(
        self, *, w1: float = 5.0, w2: float = 1.0, alpha: float = 0.5, stage: int = 4, rectify: int = 4
    ) -> None:
        super().__init__()
        if stage < 1 or rectify < 0:
            message = f"balance.stage = {stage}, balance.rectify = {rectify}"
            raise BadConfig(message, "give stages of 1 epoch or more, and rectify >= 0")
        self.w1, self.w2, self.alpha, self.stage, self.rectify = w1, w2, alpha, stage, rectify

    def learner(self, epoch: int, streams: list[str]) -> tuple[str, str]:
        """(the stream that learns alone in this epoch, the one before it); "" where there is none."""
        number, within = divmod(epoch, self.stage + self.rectify)
        now, before = streams[number % len(streams)], streams[(number - 1) % len(streams)]
        return (now if within < self.stage else ""), (before if number else "")

    def loss(self, step: Step) -> Tensor:
        stream, before = self.learner(step.epoch, step.streams)
        if not stream:
            return super().loss(step)
        logits = step.learning(stream).alone(stream)[1]
        wanted = self.w1 - self.w2 * self.solved(step, stream)
        loss = step.term("balance.boosting", (step.item_loss(logits) * wanted * step.counts(stream)).sum())
        if not before or self.alpha == 0:
            return loss
        return loss + step.term("balance.agreement", self.alpha * self.apart(step, before, logits, stream))

    @torch.no_grad()
    def solved(self, step: Step, stream: str) -> Tensor:
        """How well all other streams predict, [N]; 0 where there is none."""
        others = step.of(set(step.streams) - {stream})
        return step.score(step.probe(others)) * others.any(1)

    def apart(self, step: Step, before: str, logits: Tensor, stream: str) -> Tensor:
        """Squared distance between the stream's predictions (logits [N, C]) and those of `before`, where both exist."""
        with torch.no_grad():
            others = step.only(before)
        now, was = (z.float().softmax(1) if step.categorical else z.float() for z in (logits, others))
        return ((now - was).square().sum(1) * step.counts(stream) * (step.counts(before) > 0)).sum()

    def gradients(self, control: Control) -> None:
        streams = list(control.parameters)
        stream, _ = self.learner(control.epoch, streams)
        if stream:
            control.skip_idle()
        control.note("learns", {s: float(stream in ("", s)) for s in streams})
