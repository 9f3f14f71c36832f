"""The streams learn from what the model says of all of them together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import Batch, Output

CARD = {
    "summary": "each stream's own answer is drawn to the fused one: KL divergence at a temperature",
    "source": "Ma et al., A Transformer-Based Model with Self-Distillation (SDT), IEEE TMM 2024",
    "entry": "SelfDistillation",
    "tasks": ["classes"],
    "auxiliary": True,
    "licence": "Apache-2.0",
}


class SelfDistillation(nn.Module):
    """l_i = mean over the present streams m of KL(p || p_m), p = softmax(z / temperature) of the fused logits, p_m of m's.

    The fused answer is the teacher: it gets no gradient (SDT's code gives it one). SDT adds the streams up, which is `weight`
    times their number here; its temperature is 1 (IEMOCAP) or 8 (MELD). Needs the streams' own heads: put it beside an
    objective with unimodal > 0, which trains them on the labels too. Raises BadConfig where there are none.
    """

    def __init__(self, classes: int, *, task: str = "emotion", temperature: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise BadConfig(f"temperature={temperature} is not above 0", "give 1, or more for softer targets")
        self.task, self.temperature = task, temperature

    def weights(self, batch: Batch) -> Tensor:
        """Weight of every item, [N]; 0 where it has no label, or no stream."""
        return (batch.target_mask[self.task] & batch.present.any(1)).float()

    def forward(self, output: Output, batch: Batch) -> Tensor:
        """Loss of every item, [N]."""
        if not output.unimodal:
            raise BadConfig(
                "self_distillation finds no answers of single streams", "set objectives.cross_entropy.unimodal above 0 (SDT: 1)"
            )
        log_p = self._log_softmax(output.logits[self.task].detach())
        each = [self._log_softmax(logits[self.task]) for logits in output.unimodal.values()]
        apart = (log_p.exp().unsqueeze(1) * (log_p.unsqueeze(1) - torch.stack(each, 1))).sum(2)
        present = batch.present.to(apart.dtype)
        return (apart * present).sum(1) / present.sum(1).clamp_min(1)

    def _log_softmax(self, logits: Tensor) -> Tensor:
        return (logits.float() / self.temperature).log_softmax(-1)
