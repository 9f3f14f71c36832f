"""Utterances of one class are drawn together, those of different classes apart."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from affuse.core.errors import BadConfig
from affuse.core.parts import Computed, Network
from affuse.core.tasks import Task
from affuse.core.types import Batch, Output
from affuse.layers.pairs import codes, cross_entropy

CARD = {
    "summary": "contrast by class, of fused vectors or of those of every stream (which then meet across streams too)",
    "source": "Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equation 2",
    "entry": "SupervisedContrastive",
    "tasks": ["classes"],
    "resolutions": ["utterance"],
    "auxiliary": True,
    "licence": "Apache-2.0",
}


class SupervisedContrastive(nn.Module):
    """l_i = -1/|P| sum over p in P of log(exp(z_i z_p / tau) / sum over a of exp(z_i z_a / tau)).

    P: the other views of i's class, a: all other views. z: projections [dim] of length 1 of the fused features, or of
    each present stream (`of`), where l_i is the mean over the item's views. Views are those of all processes. A view
    whose class has no other counts 0, and is counted. Soft labels count by their likeliest class. Raises BadConfig for
    a temperature of 0 or less, and for fused features where decisions are joined.
    """

    couples = True

    def __init__(
        self, task: Task, *, of: Literal["fused", "streams"] = "fused", dim: int = 64, temperature: float = 0.1
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise BadConfig(f"temperature={temperature} is not above 0", "give 0.1, or more for a softer contrast")
        self.task, self.of, self.dim, self.temperature = task.name, of, dim, temperature

    def setup(self, model: Network) -> None:
        """Make the projections."""
        if self.of == "fused" and not model.width:
            raise BadConfig("supervised_contrastive of fused features, where decisions are joined", "set of=streams")
        widths = [model.width] if self.of == "fused" else model.dims.values()
        self.project = nn.ModuleList(nn.Linear(width, self.dim) for width in widths)

    def weights(self, batch: Batch) -> Tensor:
        """Weight of every item, [N]; 0 where it has no label."""
        return batch.target_mask[self.task].float()

    def forward(self, output: Output, batch: Batch, computed: Computed) -> Tensor:
        """Loss of every item, [N]."""
        encoded = computed.encoded
        pooled = [output.fused.pooled] if self.of == "fused" else [encoded.pooled[s] for s in encoded.streams]
        there = encoded.present.any(1, keepdim=True) if self.of == "fused" else encoded.present
        item, view = (there & batch.target_mask[self.task].unsqueeze(1)).nonzero().unbind(1)
        each = [normalize(linear(x).float(), dim=1) for linear, x in zip(self.project, pooled, strict=True)]
        z = torch.stack(each, 1)[item, view]
        target = batch.target[self.task]
        label = (target.argmax(1) if target.is_floating_point() else target)[item]
        code = codes(batch.id, item.device)[item] * (len(pooled) + 1) + view
        loss = self._views(z, label, code, computed)
        count = torch.bincount(item, minlength=len(batch)).clamp_min(1)
        return loss.new_zeros(len(batch)).index_add(0, item, loss) / count

    def _views(self, z: Tensor, label: Tensor, code: Tensor, computed: Computed) -> Tensor:
        """Loss of every view, [V]."""
        every, labels, others = (computed.gather(x) for x in (z, label, code))
        other = code.unsqueeze(1) != others
        like = other & (label.unsqueeze(1) == labels)
        alone = ~like.any(1)
        computed.count("alone", alone.sum())
        logits = (z @ every.T / self.temperature).masked_fill(~other, -torch.inf)
        logits = torch.where(alone.unsqueeze(1), 0.0, logits)
        return cross_entropy(like / like.sum(1, keepdim=True).clamp_min(1), logits)
