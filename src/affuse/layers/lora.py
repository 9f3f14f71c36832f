"""LoRA: a frozen linear layer with a trained update of low rank.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, eq. 3: y = W x + b + s B A x with A [r, d_in],
B [d_out, r] and s = alpha / r. B is zero at the start, so that training begins at the pretrained layer. Rank-stabilised
(Kalajdzievski 2023): s = alpha / sqrt(r), with which larger ranks do not learn more slowly.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig

Net = TypeVar("Net", bound=nn.Module)


class LoRALinear(nn.Module):
    """x [..., d_in] -> [..., d_out]: the frozen `base` and its update of rank `rank`; only A and B are trained.

    `dropout` acts on the input of A. A and B are float32 whatever the base is. Raises BadConfig for a rank below 1.
    """

    def __init__(
        self, base: nn.Linear, rank: int, alpha: float, *, dropout: float = 0.0, stabilised: bool = False
    ) -> None:
        super().__init__()
        if rank < 1:
            raise BadConfig(f"LoRA of rank {rank}", "give 1 or more; 4 to 16 are usual")
        self.base = base.requires_grad_(False)
        self.scale = alpha / (math.sqrt(rank) if stabilised else rank)
        where = base.weight.device
        self.a = nn.Parameter(torch.empty(rank, base.in_features, device=where))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank, device=where))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_in] -> [..., d_out]."""
        y: Tensor = self.base(x)
        update = nn.functional.linear(nn.functional.linear(self.dropout(x).to(self.a.dtype), self.a), self.b)
        return y + (self.scale * update).to(y.dtype)

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """The base layer with W + s B A for its weight: the same function without dropout, at the cost of one layer."""
        self.base.weight += (self.scale * self.b @ self.a).to(self.base.weight.dtype)
        return self.base


def adapt(
    parts: Iterable[nn.Module],
    names: Collection[str],
    rank: int,
    alpha: float,
    *,
    dropout: float = 0.0,
    stabilised: bool = False,
) -> None:
    """Replace the linear layers called one of `names` (the last part of their path) within `parts`, in place.

    Raises BadConfig, with the names of the linear layers that there are, where none of `names` is.
    """
    owners = [module for part in parts for module in part.modules()]
    linear = [(o, n, child) for o in owners for n, child in o.named_children() if isinstance(child, nn.Linear)]
    chosen = [(owner, name, child) for owner, name, child in linear if name in names]
    if not chosen:
        there = ", ".join(sorted({name for _, name, _ in linear})) or "none"
        raise BadConfig(f"the model has no linear layer called {' or '.join(sorted(names))}", f"its own are: {there}")
    for owner, name, child in chosen:
        setattr(owner, name, LoRALinear(child, rank, alpha, dropout=dropout, stabilised=stabilised))


def merge(model: Net) -> Net:
    """The model itself, every LoRALinear in it merged (in place): for answers only, its description fits no longer."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoRALinear):
                setattr(module, name, child.merge())
    return model
