"""Targets of the moving average of the model beside, or instead of, those of the labels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.parts import Computed, Network
from affuse.core.tasks import Task
from affuse.core.types import Batch, Output
from affuse.layers.pairs import back, cross_entropy, two_of
from affuse.layers.task_loss import task_loss

CARD = {
    "summary": "a share of the target is what the teacher predicts; of a task, labelled or not, or of a contrast",
    "source": "Li et al., ALBEF, NeurIPS 2021 (momentum distillation); teacher: Tarvainen and Valpola, NIPS 2017",
    "entry": "MomentumDistillation",
    "tasks": ["classes", "multilabel", "values"],
    "resolutions": ["utterance"],
    "auxiliary": True,
    "unlabelled": True,
    "licence": "Apache-2.0",
}


class MomentumDistillation(nn.Module):
    """l_i = alpha (L(q_i, p_i) - L(y_i, p_i)), q the teacher's prediction; alpha L(q_i, p_i) without a label y_i.

    Beside the plain loss L(y_i, p_i) of weight 1 this makes (1 - alpha) L(y_i, p_i) + alpha L(q_i, p_i). L:
    cross-entropy of classes, of each label, or mean absolute error of values. With `streams` (two of them) it is the
    contrast of these that is distilled: L the cross-entropy over its keys. alpha rises in a line from 0, over the share
    `ramp` of training. `items`: which; one of which the teacher's largest probability (of labels: the mean over them
    of the likelier side) is below `confidence` counts 0, and is counted.

    Raises BadConfig for alpha, ramp or confidence outside 0 .. 1.
    """

    needs = frozenset({"teacher"})

    def __init__(
        self,
        task: Task,
        *,
        alpha: float = 0.4,
        ramp: float = 0.3,
        items: Literal["labelled", "unlabelled", "both"] = "both",
        confidence: float = 0.0,
        streams: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        if not all(0 <= share <= 1 for share in (alpha, ramp, confidence)):
            message = f"momentum_distillation with alpha={alpha}, ramp={ramp}, confidence={confidence}"
            raise BadConfig(message, "give numbers from 0 to 1")
        self.task, self.alpha, self.ramp, self.items = task, alpha, ramp, items
        self.confidence, self.named = confidence, streams
        self.couples = bool(streams)
        self.reads: tuple[str, str] | None = None

    def setup(self, model: Network) -> None:
        """Find the streams whose contrast is meant."""
        self.reads = two_of(list(model.dims), self.named, "momentum_distillation") if self.named else None

    def weights(self, batch: Batch) -> Tensor:
        """Weight of every item, [N]: 1 where `items` means it and it has a stream, or both of the contrast."""
        if self.reads:
            return batch.present[:, [[s.name for s in batch.streams].index(s) for s in self.reads]].all(1).float()
        known = batch.target_mask[self.task.name]
        meant = {"labelled": known, "unlabelled": ~known, "both": torch.ones_like(known)}[self.items]
        return (meant & batch.present.any(1)).float()

    def forward(self, output: Output, batch: Batch, computed: Computed) -> Tensor:
        """Loss of every item, [N]."""
        done = computed.step / max(1, computed.steps)
        alpha = self.alpha * (min(1.0, done / self.ramp) if self.ramp else 1.0)
        return alpha * (self._contrast(batch, computed) if self.reads else self._task(output, batch, computed))

    def _contrast(self, batch: Batch, computed: Computed) -> Tensor:
        pairs = computed.pairs[self.reads]  # type: ignore[index]
        if pairs.taught is None:
            message = "momentum_distillation of a contrast without a teacher"
            raise BadConfig(message, "set teacher=true for pair_contrastive of the same streams")
        both = zip(pairs.similar, pairs.taught, strict=True)
        each = [
            cross_entropy((taught + pairs.bias).softmax(1) - pairs.target, similar + pairs.bias)
            for similar, taught in both
        ]
        return back((each[0] + each[1]) / 2, pairs.rows, len(batch))

    def _task(self, output: Output, batch: Batch, computed: Computed) -> Tensor:
        name, kind = self.task.name, self.task.kind
        logits, taught = output.logits[name], computed.teacher.output.logits[name].float()  # type: ignore[union-attr]
        q = taught.softmax(-1) if kind == "classes" else taught.sigmoid() if kind == "multilabel" else taught
        known = batch.target_mask[name]
        hard = task_loss(kind, logits, batch.target[name])
        loss = task_loss(kind, logits, q) - torch.where(known, hard, 0.0)
        if self.confidence and kind != "values":
            sure = q.amax(-1) if kind == "classes" else torch.maximum(q, 1 - q).mean(-1)
            meant = self.weights(batch) > 0
            computed.count("unsure", (meant & (sure < self.confidence)).sum())
            computed.count("sure", (meant & (sure >= self.confidence)).sum())
            loss = torch.where(sure >= self.confidence, loss, 0.0)
        return loss
