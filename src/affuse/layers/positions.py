"""The position of a step in its sequence, as a vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from affuse.core.types import Encoded

PER_SECOND = 10.0  # positions in time: streams of any rate meet on the same clock


def sinusoids(position: Tensor, dim: int) -> Tensor:
    """[N, dim]: sin and cos of position [N] / 10000^(2i / dim) (Vaswani et al. 2017)."""
    rate = torch.exp(torch.arange(0, dim, 2, device=position.device) * (-math.log(10000.0) / dim))
    angle = position.unsqueeze(1) * rate
    return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)[:, :dim]


def in_time(encoded: Encoded, stream: str, dim: int) -> Tensor:
    """[N, T, dim]: the time of every step of a stream; its number where steps are no moments in time."""
    tokens, rate = encoded.tokens[stream], encoded.rate[stream]
    step = torch.arange(tokens.shape[1], device=tokens.device).expand(len(tokens), -1).float()
    at = (encoded.t0[stream].float().unsqueeze(1) + step / rate) * PER_SECOND if rate > 0 else step
    return sinusoids(at.flatten(), dim).view(*at.shape, dim)
