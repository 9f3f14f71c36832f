"""Cross-entropy, with class weights and label smoothing."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.parts import Computed
from affuse.core.tasks import Task
from affuse.core.types import Batch, Output

CARD = {
    "summary": "cross-entropy on hard or soft labels, with class weights and label smoothing",
    "source": "common practice; effective-number weights: Cui et al., CVPR 2019; "
    "logit adjustment: Menon et al., ICLR 2021",
    "entry": "CrossEntropy",
    "tasks": ["classes"],
    "licence": "Apache-2.0",
}

ClassWeights = Literal["none", "balanced", "effective"] | float


class CrossEntropy(nn.Module):
    """l_i = -sum_c t_ic log softmax(z_i)_c, each item or frame weighted by its class.

    With `unimodal` > 0 the mean over the losses of the present streams' own heads is added with that factor (uniform
    multi-loss training; tasks per utterance). `logit_adjustment` tau: the loss is that of z_c + tau log(share of class
    c in training), so that z itself predicts as if the classes were balanced (tau = 1: exactly; classes without
    training items are not adjusted). Raises BadConfig for `unimodal` with a task per frame.
    """

    class_weight: Tensor
    log_prior: Tensor

    def __init__(
        self,
        task: Task,
        *,
        smoothing: float = 0.0,
        class_weights: ClassWeights = "none",
        unimodal: float = 0.0,
        logit_adjustment: float = 0.0,
    ) -> None:
        super().__init__()
        if unimodal > 0 and task.per_frame:
            message = f"unimodal = {unimodal} for '{task.name}', a task per frame"
            raise BadConfig(message, "set unimodal=0: streams have heads per utterance")
        self.task, self.smoothing, self.kind, self.unimodal = task.name, smoothing, class_weights, unimodal
        self.needs = frozenset({"unimodal"} if unimodal > 0 else ())
        self.logit_adjustment = logit_adjustment
        self.register_buffer("class_weight", torch.ones(task.width))
        self.register_buffer("log_prior", torch.zeros(task.width), persistent=False)

    def fit(self, labels: Tensor) -> None:
        """Set the class weights (mean over the items 1) and shares from training labels [N] int64."""
        count = torch.bincount(labels, minlength=len(self.class_weight)).double()
        self.log_prior.copy_(torch.where(count > 0, (count / count.sum()).log(), 0.0))
        self.class_weight.copy_(class_weights(count, self.kind))

    def weights(self, batch: Batch) -> Tensor:
        """Weight of every item [N] or frame [N, L]; 0 where it has no label."""
        soft = soft_targets(batch.target[self.task], len(self.class_weight), 0.0)
        return (soft @ self.class_weight) * batch.target_mask[self.task]

    def forward(self, output: Output, batch: Batch, computed: Computed | None = None) -> Tensor:
        """Loss of every item [N] or frame [N, L]."""
        target = soft_targets(batch.target[self.task], len(self.class_weight), self.smoothing)
        loss = self.item_loss(self._adjusted(output.logits[self.task]), target)
        if self.unimodal > 0 and output.unimodal:
            each = [self.item_loss(self._adjusted(logits[self.task]), target) for logits in output.unimodal.values()]
            present = batch.present.to(loss.dtype)
            loss = loss + self.unimodal * (torch.stack(each, 1) * present).sum(1) / present.sum(1).clamp_min(1)
        return loss

    def _adjusted(self, logits: Tensor) -> Tensor:
        return logits + self.logit_adjustment * self.log_prior if self.logit_adjustment else logits

    def item_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of logits [..., C] against soft targets [..., C], [...]."""
        return -(target * logits.float().log_softmax(-1)).sum(-1)


def soft_targets(target: Tensor, classes: int, smoothing: float) -> Tensor:
    """Classes [...] int64, or soft labels [..., C] -> [..., C]; a share `smoothing` is spread over all classes."""
    soft = target if target.is_floating_point() else nn.functional.one_hot(target, classes).float()
    return soft * (1 - smoothing) + smoothing / classes


def class_weights(count: Tensor, kind: ClassWeights, beta: float = 0.999) -> Tensor:
    """Class weights [C] from counts n_c, 0 where n_c = 0, of mean 1 over the items.

    "balanced": 1 / n_c; a number p: 1 / n_c^p, between none (0) and balanced (1); "effective":
    (1 - beta) / (1 - beta^n_c).
    """
    if kind == "none":
        return torch.ones_like(count)
    seen = count.clamp_min(1)
    if kind == "effective":
        per_class = (1 - beta**seen) / (1 - beta)
    else:
        per_class = seen ** (1.0 if isinstance(kind, str) else kind)
    weights = (1 / per_class) * (count > 0)
    return weights * count.sum() / (weights * count).sum().clamp_min(1e-12)
