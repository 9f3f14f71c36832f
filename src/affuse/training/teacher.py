"""A moving average of the model: what is kept in the end, and a teacher for objectives that ask for one."""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from torch import Tensor

from affuse.core.types import Batch, Output
from affuse.models.model import Model

Schedule = Literal["warm", "constant", "cosine"]


class Teacher:
    """A copy of the model whose parameters follow it: w <- m w + (1 - m) w_model after every step, buffers as they are.

    In evaluation mode and without gradient. m by schedule, t steps of `steps` done: warm min(m, (1 + t) / (10 + t)), so
    that the first steps do not weigh the random start; constant m; cosine 1 - (1 - m) (cos(pi t / steps) + 1) / 2, from
    m to 1 (Grill et al., BYOL, NeurIPS 2020).
    """

    def __init__(self, model: Model, momentum: float, schedule: Schedule = "warm", steps: int = 1) -> None:
        self.momentum, self.schedule, self.total, self.steps = momentum, schedule, steps, 0
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        own, buffers = dict(self.model.named_parameters()), dict(self.model.named_buffers())
        self._parameters = [(own[name], p) for name, p in model.named_parameters()]
        self._buffers = [(buffers[name], b) for name, b in model.named_buffers()]

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

    @torch.no_grad()
    def answer(self, batch: Batch) -> Output:
        """The average's Output for a batch, its Encoded as aux["encoded"]."""
        encoded = self.model.encode(batch)
        output = self.model.fuse(encoded, batch)
        output.aux["encoded"] = encoded
        return output

    def state_dict(self) -> dict[str, Tensor]:
        """The weights."""
        return self.model.state_dict()

    def load(self, weights: dict[str, Tensor], steps: int) -> None:
        """Go on from weights after so many steps."""
        self.model.load_state_dict(weights)
        self.steps = steps


