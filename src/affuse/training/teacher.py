"""A moving average of the model: what is kept in the end, and a teacher for objectives that ask for one."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from affuse.core.types import Batch, Encoded, Output
from affuse.models.model import Model
from affuse.models.predict import at_labels

Schedule = Literal["warm", "constant", "cosine"]


class Teacher:
    """A copy of the model whose parameters follow it: w <- m w + (1 - m) w_model after every step, buffers as they are.

    In evaluation mode and without gradient. m by schedule, t steps of `steps` done: warm min(m, (1 + t) / (10 + t)), so
    that the first steps do not weigh the random start; constant m; cosine 1 - (1 - m) (cos(pi t / steps) + 1) / 2, from
    m to 1 (Grill et al., BYOL, NeurIPS 2020). `averaged`: (copy, module) of objectives, whose copies follow likewise.
    """

    def __init__(
        self,
        model: Model,
        momentum: float,
        schedule: Schedule = "warm",
        steps: int = 1,
        averaged: Sequence[tuple[nn.Module, nn.Module]] = (),
    ) -> None:
        self.momentum, self.schedule, self.total, self.steps = momentum, schedule, steps, 0
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self._parameters: list[tuple[Tensor, Tensor]] = []
        self._buffers: list[tuple[Tensor, Tensor]] = []
        for copied, module in ((self.model, model), *averaged):
            own, buffers = dict(copied.named_parameters()), dict(copied.named_buffers())
            self._parameters += [(own[name], p) for name, p in module.named_parameters()]
            self._buffers += [(buffers[name], b) for name, b in module.named_buffers()]

    @property
    def keep(self) -> float:
        """m of the step at hand."""
        if self.schedule == "constant":
            return self.momentum
        if self.schedule == "warm":
            return min(self.momentum, (1 + self.steps) / (10 + self.steps))
        return 1 - (1 - self.momentum) * (math.cos(math.pi * min(1.0, self.steps / self.total)) + 1) / 2

    @torch.no_grad()
    def update(self) -> None:
        """One step of the average towards the model; parameters and buffers were matched by name."""
        self.steps += 1
        torch._foreach_lerp_([own for own, _ in self._parameters], [p for _, p in self._parameters], 1 - self.keep)
        for own, value in self._buffers:
            own.copy_(value)

    def taught(self, batch: Batch) -> Answers:
        """What the average makes of a batch."""
        return Answers(self.model, batch)

    def state_dict(self) -> dict[str, Tensor]:
        """The weights."""
        return self.model.state_dict()

    def load(self, weights: dict[str, Tensor], steps: int) -> None:
        """Go on from weights after so many steps."""
        self.model.load_state_dict(weights)
        self.steps = steps


class Answers:
    """A model's encoded streams and Output for a batch, each computed when it is first asked for, without gradient."""

    def __init__(self, model: Model, batch: Batch) -> None:
        self.model, self.batch = model, batch

    @cached_property
    def encoded(self) -> Encoded:
        """All streams after their encoders."""
        with torch.no_grad():
            return self.model.encode(self.batch)

    @cached_property
    def output(self) -> Output:
        """The answers; those per frame at the times of the labels."""
        with torch.no_grad():
            return at_labels(self.model.fuse(self.encoded, self.batch), self.batch)
