"""Normalisation fitted on the training split and kept as a model buffer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """(x - mean) / std per feature, missing numbers (NaN) at the mean, clipped to +-`clip` deviations.

    x [..., D]; the moments come from `fit` (exact, one pass, float64) over valid steps only.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, clip: float = 5.0) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Standardised x, always finite."""
        z = (torch.where(torch.isnan(x), self.mean, x) - self.mean) / self.std
        return z.clamp(-self.clip, self.clip)

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set the moments from (x [N, T, D], mask [N, T]) pairs of the training split."""
        dim = len(self.mean)
        count, first, second = (torch.zeros(dim, dtype=torch.float64) for _ in range(3))
        origin: Tensor | None = None
        for x, mask in batches:
            rows = x[mask].double()
            known = ~rows.isnan()
            if origin is None and len(rows):
                origin = rows.nanmean(0).nan_to_num()
            centred = torch.where(known, rows - (0 if origin is None else origin), 0)
            count += known.sum(0)
            first += centred.sum(0)
            second += centred.square().sum(0)
        n = count.clamp_min(1)
        var = (second / n - (first / n).square()).clamp_min(0)
        std = var.sqrt()
        self.mean.copy_((0 if origin is None else origin) + first / n)
        self.std.copy_(torch.where(std > 1e-6, std, 1.0))
