"""Uni-modal teachers."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from affuse.balance.balancer import Balancer, Control, Step, linear_heads
from affuse.core.errors import BadConfig

CARD = {
    "summary": "draws each stream's features to those of an encoder of the same kind that learned the task alone",
    "source": "Du et al., On Uni-Modal Feature Learning in Supervised Multi-Modal Learning, ICML 2023",
    "entry": "UMT",
    "licence": "Apache-2.0",
}


class UMT(Balancer):
    """L = L_fused + gamma mean_s ||h_s - t_s(x_s)||^2 / d_s, t_s: a frozen copy of encoder s, trained on x_s alone.

    The teachers learn in the first `warm` share of the epochs: their losses are added to L_fused then; they share no
    parameter with the model. This costs memory, and in these epochs time, for a copy of every encoder.
    Raises BadConfig where the encoders' inputs are not known.

    Differs from the published code: distances are averaged over the streams, not added up (the same `gamma` has 1/M of
    the effect); the teachers learn in the same run, not in runs before it.
    """

    paced = True
    sums: Tensor
    started: Tensor

    def __init__(self, *, gamma: float = 10.0, warm: float = 0.3) -> None:
        super().__init__()
        self.gamma, self.warm = gamma, warm

    def setup(self, encoders: Mapping[str, nn.Module], dims: Mapping[str, int], outputs: int) -> None:
        self.encoders = dict(encoders)  # a dict, so that they are no submodules
        self.copies = nn.ModuleDict({s: copy.deepcopy(encoder) for s, encoder in encoders.items()})
        self.heads = linear_heads(dims, outputs)
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("sums", torch.zeros(len(dims)), persistent=False)

    def loss(self, step: Step) -> Tensor:
        if not step.again:
            raise BadConfig("UMT runs further encoders on the streams' inputs", "give step(..., inputs={stream: x})")
        if self.frozen(step):
            return super().loss(step) + step.term("balance.distance", self.guide(step))
        return super().loss(step) + step.term("balance.teachers", self.teach(step))

    def frozen(self, now: Step | Control) -> bool:
        """Whether the teachers have finished learning."""
        return now.epoch >= self.warm * now.epochs

    def teach(self, step: Step) -> Tensor:
        """The teachers' own losses, added up."""
        if not self.started:
            self._start()
        return step.losses({s: self.heads[s](step.again[s](self.copies[s])) for s in step.streams})

    def guide(self, step: Step) -> Tensor:
        """gamma times the mean squared distance to the frozen teachers' features, over items that have the stream."""
        self.copies.eval()
        with torch.no_grad():
            taught = {s: step.again[s](self.copies[s]) for s in step.streams}
        apart = [(step.counts(s) * (h - taught[s]).float().square().mean(1)).sum() for s, h in step.features.items()]
        self.sums += torch.stack(apart).detach()
        return self.gamma * torch.stack(apart).mean()

    def gradients(self, control: Control) -> None:
        distance = control.total(self.sums.clone())
        self.sums.zero_()
        if self.frozen(control):
            for p in [*self.copies.parameters(), *self.heads.parameters()]:
                # with a gradient of zeros, as after sums over processes, decay and momentum would still move them
                p.grad = None
            control.note("distance", dict(zip(control.parameters, distance.tolist(), strict=True)))

    @torch.no_grad()
    def _start(self) -> None:
        """Copy the buffers of the encoders, as their normalisation was fitted after they were copied."""
        for s, encoder in self.encoders.items():
            for copied, original in zip(self.copies[s].buffers(), encoder.buffers(), strict=True):
                copied.copy_(original)
        self.started.fill_(True)
