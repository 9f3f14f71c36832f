"""The task's loss on every stream's own head, each with a weight of its own, beside that of the fused answer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig, UnknownName
from affuse.core.parts import Computed, Network
from affuse.core.tasks import Task
from affuse.core.types import Batch, Output
from affuse.layers.task_loss import task_loss

CARD = {
    "summary": "each stream's own head is trained on the labels too, with a weight per stream",
    "source": "Zong et al., Building Robust Multimodal Sentiment Recognition via a Simple yet Effective Multimodal "
    "Transformer, MM 2023; weights per stream: Wang et al., What Makes Training Multi-modal Networks Hard, CVPR 2020",
    "entry": "UnimodalBlend",
    "tasks": ["classes", "multilabel", "values"],
    "resolutions": ["utterance"],
    "auxiliary": True,
    "licence": "Apache-2.0",
}


class UnimodalBlend(nn.Module):
    """l_i = sum over the present streams k of w_k L(y_i, p_ik), p_ik what stream k alone predicts.

    `weights`: {stream: w}, 1 for those not named; 0 takes a stream out. L: cross-entropy with `smoothing` of classes,
    of each label, or mean absolute error. Raises UnknownName for a stream that the model lacks, BadConfig for weights
    below 0.
    """

    needs = frozenset({"unimodal"})

    def __init__(self, task: Task, *, weights: dict[str, float] | None = None, smoothing: float = 0.0) -> None:
        super().__init__()
        self.task, self.given, self.smoothing = task, weights or {}, smoothing
        if min(self.given.values(), default=0) < 0 or not 0 <= smoothing < 1:
            raise BadConfig(f"unimodal_blend with {self.given}, smoothing={smoothing}", "give weights of 0 or more")

    def setup(self, model: Network) -> None:
        """Check the names of the streams."""
        for name in self.given:
            if name not in model.dims:
                raise UnknownName.among("stream of unimodal_blend:", name, model.dims)

    def weights(self, batch: Batch) -> Tensor:
        """Weight of every item, [N]; 0 where it has no label."""
        return batch.target_mask[self.task.name].float()

    def forward(self, output: Output, batch: Batch, computed: Computed | None = None) -> Tensor:
        """Loss of every item, [N]."""
        target = batch.target[self.task.name]
        if self.task.kind == "classes":
            shares = target if target.is_floating_point() else nn.functional.one_hot(target, self.task.width).float()
            target = shares * (1 - self.smoothing) + self.smoothing / self.task.width
        each = [
            self.given.get(s, 1.0) * task_loss(self.task.kind, logits[self.task.name], target)
            for s, logits in output.unimodal.items()
        ]
        return (torch.stack(each, 1) * batch.present).sum(1)
