"""Self-distillation: the heads of the single streams learn from the fused prediction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.parts import Computed
from affuse.core.tasks import Task
from affuse.core.types import Batch, Output

CARD = {
    "summary": "each stream's own prediction is drawn to the fused one: KL divergence at a temperature",
    "source": "Ma et al., A Transformer-Based Model with Self-Distillation (SDT), IEEE TMM 2024",
    "entry": "SelfDistillation",
    "tasks": ["classes"],
    "resolutions": ["utterance"],
    "auxiliary": True,
    "licence": "Apache-2.0",
}


class SelfDistillation(nn.Module):
    """l_i = mean over the present streams m of KL(p || p_m), p = softmax(z / temperature) of fused logits, p_m of m's.

    The fused prediction is the teacher and gets no gradient. Use it together with an objective with unimodal > 0, which
    trains the streams' own heads on the labels too. SDT's temperature is 1 (IEMOCAP) or 8 (MELD).

    Differs from the published code: there the teacher gets a gradient, and the streams are added up, which is `weight`
    times their number here.
    """

    needs = frozenset({"unimodal"})

    def __init__(self, task: Task, *, temperature: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise BadConfig(f"temperature={temperature} is not above 0", "give 1, or more for softer targets")
        self.task, self.temperature = task.name, temperature

    def weights(self, batch: Batch) -> Tensor:
        """Weight of every item, [N]; 0 where it has no label, or no stream."""
        return (batch.target_mask[self.task] & batch.present.any(1)).float()

    def forward(self, output: Output, batch: Batch, computed: Computed | None = None) -> Tensor:
        """Loss of every item, [N]."""
        log_p = self._log_softmax(output.logits[self.task].detach())
        each = [self._log_softmax(logits[self.task]) for logits in output.unimodal.values()]
        apart = (log_p.exp().unsqueeze(1) * (log_p.unsqueeze(1) - torch.stack(each, 1))).sum(2)
        present = batch.present.to(apart.dtype)
        return (apart * present).sum(1) / present.sum(1).clamp_min(1)

    def _log_softmax(self, logits: Tensor) -> Tensor:
        return (logits.float() / self.temperature).log_softmax(-1)
