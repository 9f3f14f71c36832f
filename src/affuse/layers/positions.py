"""The position of a step in its sequence, as a vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoids(position: Tensor, dim: int) -> Tensor:
    """[N, dim]: sin and cos of position [N] / 10000^(2i / dim) (Vaswani et al. 2017)."""
    rate = torch.exp(torch.arange(0, dim, 2, device=position.device) * (-math.log(10000.0) / dim))
    angle = position.unsqueeze(1) * rate
    return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)[:, :dim]
