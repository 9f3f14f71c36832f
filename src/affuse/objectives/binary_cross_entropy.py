"""Cross-entropy of each label, for tasks in which several labels can hold at once."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from affuse.core.errors import BadConfig
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
    """l_i = mean over the known labels c of -w_c t (1 - p)^gamma log p - v (1 - t) p^gamma log(1 - p).

    p = sigmoid(z_ic). `positive_weight`: "balanced" gives a present label the weight w_c = (number without) / (number
    with) of the training items, at most `most`; "none": 1, as is v. `alpha` in (0, 1): w = alpha, v = 1 - alpha for all
    labels (Lin et al., eq. 5). gamma = 0 is binary cross-entropy. A label that is NaN is not known. Raises BadConfig
    for an alpha outside (0, 1), or with a positive_weight.
    """

    positive: Tensor

    def __init__(
        self,
        task: Task,
        *,
        gamma: float = 0.0,
        alpha: float | None = None,
        positive_weight: Literal["none", "balanced"] = "none",
        most: float = 20.0,
    ) -> None:
        super().__init__()
        if alpha is not None and not 0 < alpha < 1:
            message = f"alpha = {alpha}: present labels weigh alpha, absent ones 1 - alpha"
            raise BadConfig(message, "give a number between 0 and 1, such as 0.25")
        if alpha is not None and positive_weight != "none":
            message = f"alpha = {alpha} and positive_weight = '{positive_weight}' both weigh present labels"
            raise BadConfig(message, "leave one of them out")
        self.task, self.gamma, self.kind, self.most = task.name, gamma, positive_weight, most
        self.absent = 1.0 if alpha is None else 1 - alpha
        self.register_buffer("positive", torch.full((task.width,), 1.0 if alpha is None else alpha))

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
        hit, miss = self.positive * t * log_p, self.absent * (1 - t) * log_q
        if self.gamma:
            hit, miss = hit * log_q.exp() ** self.gamma, miss * log_p.exp() ** self.gamma
        return -((hit + miss) * known).sum(-1) / known.sum(-1).clamp_min(1)
