"""Modality-specific learning rates."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from affuse.balance.balancer import Balancer, Control, Epoch, Step
from affuse.core.errors import UnknownName

CARD = {
    "summary": "each stream's learning rate follows its own validation accuracy against the mean of the last epochs",
    "source": "Yao, Mihalcea, Modality-specific Learning Rates for Effective Multimodal Additive Late-fusion, ACL 2022",
    "entry": "MSLR",
    "licence": "Apache-2.0",
}


class MSLR(Balancer):
    """k_s = base_s a_s / mean(a_s over the last `window` epochs, including the latest).

    a_s: accuracy (values: mean exp(-|error|)) of the model from stream s alone, after every epoch on `valid`; where
    nothing is held out on `train`, with a trace called accuracy_train instead of accuracy_valid. `bases`: by stream, 1
    where not given (0.9 for sound, 1.1 for vision in the implementations of AGM and MLB, whose rule this is; not
    checked against the paper's own code). Raises UnknownName for a base whose name is no stream.
    """

    base: Tensor
    past: Tensor
    k: Tensor
    held: Tensor

    def __init__(self, *, window: int = 5, bases: dict[str, float] | None = None) -> None:
        super().__init__()
        self.window, self.bases = window, bases or {}

    def setup(self, encoders: Mapping[str, nn.Module], dims: Mapping[str, int], outputs: int) -> None:
        for stream in self.bases.keys() - dims.keys():
            raise UnknownName.among("stream of balance.bases", stream, dims)
        self.register_buffer("base", torch.tensor([self.bases.get(s, 1.0) for s in dims]))
        self.register_buffer("past", torch.full((self.window, len(dims)), float("nan")))
        self.register_buffer("k", self.base.clone())
        self.register_buffer("held", torch.tensor(True))

    def gradients(self, control: Control) -> None:
        control.scale(dict(zip(control.parameters, self.k.tolist(), strict=True)))
        accuracy = {s: a for s, a in zip(control.parameters, self.past[-1].tolist(), strict=True) if a == a}
        control.note("accuracy_valid" if self.held else "accuracy_train", accuracy)

    @torch.no_grad()
    def epoch_end(self, epoch: Epoch) -> None:
        split, step = epoch.held_out()
        self.held.fill_(split == "valid")
        self.past.copy_(torch.cat([self.past[1:], accuracies(step)[None]]))
        mean = self.past.nanmean(0)
        self.k.copy_(self.base * torch.where(mean > 0, self.past[-1] / mean, 1.0).nan_to_num(1.0))


@torch.no_grad()
def accuracies(step: Step) -> Tensor:
    """[S]: accuracy (soft labels, values: mean score) of the model from every stream alone; NaN without items."""
    found = []
    for stream in step.streams:
        logits, counts = step.only(stream), (step.counts(stream) > 0).float()
        right = step.score(logits) if step.target.is_floating_point() else (logits.argmax(1) == step.target).float()
        found.append((right * counts).sum() / counts.sum())
    return torch.stack(found)
