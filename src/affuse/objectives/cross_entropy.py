"""Cross-entropy, with class weights and label smoothing."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from affuse.core.types import Batch, Output

CARD = {
    "summary": "cross-entropy on hard or soft labels, with class weights and label smoothing",
    "source": "common practice; effective-number weights: Cui et al., CVPR 2019; logit adjustment: Menon et al., ICLR 2021",
    "entry": "CrossEntropy",
    "tasks": ["classes"],
    "licence": "Apache-2.0",
}

ClassWeights = Literal["none", "balanced", "effective"] | float


class CrossEntropy(nn.Module):
    """l_i = -sum_c t_ic log softmax(z_i)_c, each item weighted by its class; `unimodal` asks for it per stream too.

    With `unimodal` > 0 the mean over the present streams' own losses is added with that factor
    (uniform multi-loss training). `logit_adjustment` tau: the loss is that of z_c + tau log(share of class c in training), so
    that z itself answers for balanced classes (1: exactly; a class that training lacks is left alone).
    """

    class_weight: Tensor
    log_prior: Tensor

    def __init__(
        self,
        classes: int,
        *,
        task: str = "emotion",
        smoothing: float = 0.0,
        class_weights: ClassWeights = "none",
        unimodal: float = 0.0,
        logit_adjustment: float = 0.0,
    ) -> None:
        super().__init__()
        self.task, self.smoothing, self.kind, self.unimodal = task, smoothing, class_weights, unimodal
        self.logit_adjustment = logit_adjustment
        self.register_buffer("class_weight", torch.ones(classes))
        self.register_buffer("log_prior", torch.zeros(classes), persistent=False)

    def fit(self, labels: Tensor) -> None:
        """Set the class weights (mean over the items 1) and shares from training labels [N] int64."""
        count = torch.bincount(labels, minlength=len(self.class_weight)).double()
        self.log_prior.copy_(torch.where(count > 0, (count / count.sum()).log(), 0.0))
        self.class_weight.copy_(class_weights(count, self.kind))

    def weights(self, batch: Batch) -> Tensor:
        """Weight of every item, [N]; 0 where it has no label."""
        soft = soft_targets(batch.target[self.task], len(self.class_weight), 0.0)
        return (soft @ self.class_weight) * batch.target_mask[self.task]

    def forward(self, output: Output, batch: Batch) -> Tensor:
        """Loss of every item, [N]."""
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
        """Cross-entropy of logits [N, C] against soft targets [N, C], [N]."""
        return -(target * logits.float().log_softmax(-1)).sum(-1)


def soft_targets(target: Tensor, classes: int, smoothing: float) -> Tensor:
    """[N] int64 or [N, C] soft labels -> [N, C]; a share `smoothing` is spread over all classes."""
    soft = nn.functional.one_hot(target, classes).float() if target.dim() == 1 else target
    return soft * (1 - smoothing) + smoothing / classes


def class_weights(count: Tensor, kind: ClassWeights, beta: float = 0.999) -> Tensor:
    """Class weights [C] from counts n_c, 0 where n_c = 0, of mean 1 over the items.

    "balanced": 1 / n_c; a number p: 1 / n_c^p, between none (0) and balanced (1); "effective": (1 - beta) / (1 - beta^n_c).
    """
    if kind == "none":
        return torch.ones_like(count)
    seen = count.clamp_min(1)
    per_class = (1 - beta**seen) / (1 - beta) if kind == "effective" else seen ** (1.0 if isinstance(kind, str) else kind)
    weights = (1 / per_class) * (count > 0)
    return weights * count.sum() / (weights * count).sum().clamp_min(1e-12)
