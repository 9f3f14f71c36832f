"""Absolute error for continuous targets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from affuse.core.parts import Computed
from affuse.core.tasks import Task
from affuse.core.types import Batch, Output

CARD = {
    "summary": "mean absolute error over the dimensions of a continuous target",
    "source": "common practice (CMU-MOSI regression)",
    "entry": "L1",
    "tasks": ["values"],
    "licence": "Apache-2.0",
}


class L1(nn.Module):
    """l_i = mean_d |z_id - t_id|; an item whose target holds NaN has weight 0."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task, self.dimensions = task.name, task.width

    def weights(self, batch: Batch) -> Tensor:
        """Weight of every item [N] or frame [N, L]."""
        return batch.target_mask[self.task].float()

    def forward(self, output: Output, batch: Batch, computed: Computed | None = None) -> Tensor:
        """Loss of every item [N] or frame [N, L]."""
        target = torch.nan_to_num(batch.target[self.task].float())
        return (output.logits[self.task].float() - target).abs().mean(-1)
