"""Focal loss, per item."""

from __future__ import annotations

from torch import Tensor

from affuse.core.tasks import Task
from affuse.objectives.cross_entropy import ClassWeights, CrossEntropy

CARD = {
    "summary": "cross-entropy that gives well-classified items less weight: (1 - p)^gamma",
    "source": "Lin et al., Focal Loss for Dense Object Detection, ICCV 2017",
    "entry": "Focal",
    "tasks": ["classes"],
    "licence": "Apache-2.0",
}


class Focal(CrossEntropy):
    """l_i = -sum_c t_ic (1 - p_ic)^gamma log p_ic; gamma = 0 is cross-entropy. The factor is per item and class."""

    def __init__(
        self,
        task: Task,
        *,
        gamma: float = 2.0,
        smoothing: float = 0.0,
        class_weights: ClassWeights = "none",
        unimodal: float = 0.0,
        logit_adjustment: float = 0.0,
    ) -> None:
        given = {"smoothing": smoothing, "unimodal": unimodal, "logit_adjustment": logit_adjustment}
        super().__init__(task, class_weights=class_weights, **given)
        self.gamma = gamma

    def item_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Focal loss of logits [..., C] against soft targets [..., C], [...]."""
        log_p = logits.float().log_softmax(-1)
        return -(target * (1 - log_p.exp()).clamp_min(0) ** self.gamma * log_p).sum(-1)
