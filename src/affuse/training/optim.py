"""Optimiser and learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from affuse.balance.balancer import copied_from, own_rates
from affuse.core.config import OptimConfig, Recipe
from affuse.models.model import Model


def make_optimizer(model: Model, auxiliary: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW or SGD over the model and its auxiliary modules, in groups tagged with their `stream` ("": no encoder's).

    Matrices and kernels are decayed, vectors (biases, norms, gates) are not; an encoder's rate is multiplied by its
    stream's `lr`, that of a balancer's own parameters by its `own_rate`.
    """
    config, groups = recipe.optim, []
    placed = {p: ("", rate) for p, rate in own_rates(auxiliary).items()}
    owner = {id(p): s for s, encoder in model.encoders.items() for p in encoder.parameters()} | copied_from(auxiliary)
    placed |= {p: (s, recipe.streams[s].lr) for p, s in owner.items()}
    trained = [p for module in (model, auxiliary) for p in module.parameters() if p.requires_grad]
    for place in dict.fromkeys([("", 1.0), *placed.values()]):
        for decay, flat in ((config.weight_decay, False), (0.0, True)):
            chosen = [p for p in trained if placed.get(id(p), ("", 1.0)) == place and (p.dim() < 2) == flat]
            groups.append({"params": chosen, "lr": config.lr * place[1], "weight_decay": decay, "stream": place[0]})
    groups = [group for group in groups if group["params"]]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
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
