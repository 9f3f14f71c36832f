"""Augmentations of waveforms: vectorised over a batch, driven by torch's global generator.

Each takes x [N, T] and mask [N, T] (True where there is sound, a prefix of the row) and returns both.
"""

from __future__ import annotations

import torch
from torch import Tensor


def add_noise(
    x: Tensor, mask: Tensor, *, snr_db: tuple[float, float] = (10.0, 40.0), p: float = 0.5
) -> tuple[Tensor, Tensor]:
    """White noise at a signal-to-noise ratio uniform in `snr_db` (per row), in a share `p` of the rows."""
    power = (x.square() * mask).sum(1) / mask.sum(1).clamp_min(1)
    snr = _uniform(x, *snr_db)
    level = (power * 10 ** (-snr / 10)).sqrt() * (_uniform(x) < p)
    return x + torch.randn_like(x) * level.unsqueeze(1) * mask, mask


def change_gain(x: Tensor, mask: Tensor, *, gain_db: float = 6.0) -> tuple[Tensor, Tensor]:
    """Each row louder or softer by up to `gain_db` (uniform in dB)."""
    return x * 10 ** (_uniform(x, -gain_db, gain_db) / 20).unsqueeze(1), mask


def change_speed(x: Tensor, mask: Tensor, *, speed: tuple[float, float] = (0.9, 1.1)) -> tuple[Tensor, Tensor]:
    """Each row played faster or slower by a factor uniform in `speed`; pitch and length follow (sox speed).

    Linear interpolation; T grows to fit the longest result.
    """
    factor = _uniform(x, *speed)
    lengths = (mask.sum(1) / factor).floor().long()
    steps = torch.arange(max(int(lengths.max()), 1), device=x.device)
    at = (steps * factor.unsqueeze(1)).clamp_max(x.shape[1] - 1)
    left = at.long()
    right = (left + 1).clamp_max(x.shape[1] - 1)
    y = torch.lerp(x.gather(1, left), x.gather(1, right), at - left)
    mask = steps < lengths.unsqueeze(1)
    return y * mask, mask


def _uniform(x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(x.shape[0], device=x.device)
