"""Optimiser, learning-rate schedule and the moving average of weights."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from affuse.core.config import OptimConfig


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW; matrices and kernels are decayed, vectors (biases, norms, gates) are not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr)


def make_schedule(optimizer: torch.optim.Optimizer, config: OptimConfig, steps: int) -> LambdaLR:
    """Learning rate per step: linear warm-up, then cosine to 0, one-cycle (30 % up), or constant."""
    share = 0.3 if config.schedule == "one_cycle" else config.warmup
    warm = max(1, round(share * steps))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        if config.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    return LambdaLR(optimizer, factor)


class Average:
    """Exponential moving average of a model's parameters; buffers are copied as they are.

    The decay is min(decay, (1 + t) / (10 + t)), so that the first steps do not weigh the random start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """One step of the average."""
        self.steps += 1
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        trained = {name for name, _ in model.named_parameters()}
        for name, value in model.state_dict().items():
            if name in trained:
                self.state[name].lerp_(value, 1 - keep)
            else:
                self.state[name].copy_(value)
