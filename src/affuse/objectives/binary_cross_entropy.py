"""Cross-entropy of each label, for tasks in which several labels can hold at once."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from affuse.core.parts import Computed
from affuse.core.tasks import Task
from affuse.core.types import Batch, Output

CARD = {
    "summary": "binary cross-entropy of each label, focal where asked, present labels weighted by how rare they are",
    "source": "common practice; focal factor: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017",
    "entry": "BinaryCrossEntropy",
    "tasks": ["multilabel"],
    "licence": "Apache-2.0",
}


class BinaryCrossEntropy(nn.Module):
    """l_i = mean over the known labels c of -w_c t (1 - p)^gamma log p - (1 - t) p^gamma log(1 - p), p = sigmoid(z_ic).

    `positive_weight`: "balanced" gives a present label the weight w_c = (number without) / (number with) of the
    training items, at most `most`; "none": 1. gamma = 0 is binary cross-entropy. A label that is NaN is not known.
    """

    positive: Tensor

    def __init__(
        self,
        task: Task,
        *,
        gamma: float = 0.0,
        positive_weight: Literal["none", "balanced"] = "none",
        most: float = 20.0,
    ) -> None:
        super().__init__()
        self.task, self.gamma, self.kind, self.most = task.name, gamma, positive_weight, most
        self.register_buffer("positive", torch.ones(task.width))

    def fit(self, labels: Tensor) -> None:
        """Set the weights of present labels from training labels [N, C], 1, 0 or NaN."""
        if self.kind == "balanced":
            share = labels.nanmean(0).nan_to_num(0.5).clamp(1e-6, 1)
            self.positive.copy_(((1 - share) / share).clamp_max(self.most))

    def weights(self, batch: Batch) -> Tensor:
        """Weight of every item [N] or frame [N, L]; 0 where no label is known."""
        return batch.target_mask[self.task].float()

    def forward(self, output: Output, batch: Batch, computed: Computed | None = None) -> Tensor:
        """Loss of every item [N] or frame [N, L]."""
        target, z = batch.target[self.task].float(), output.logits[self.task].float()
        known, t = ~target.isnan(), target.nan_to_num(0.0)
        log_p, log_q = logsigmoid(z), logsigmoid(-z)
        hit, miss = self.positive * t * log_p, (1 - t) * log_q
        if self.gamma:
            hit, miss = hit * log_q.exp() ** self.gamma, miss * log_p.exp() ** self.gamma
        return -((hit + miss) * known).sum(-1) / known.sum(-1).clamp_min(1)
