"""Normalisation fitted on the training split and kept as a model buffer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOST = 2**24  # rows that torch.quantile takes; of more rows, every second, third... is used


class Standardise(nn.Module):
    """(x - mean) / std per feature, clipped to +-`clip` deviations; a missing number (NaN) counts as the mean.

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


class RootStandardise(Standardise):
    """Standardise after sign(x) sqrt|x|, which makes shares, intensities and other skewed magnitudes more even."""

    def forward(self, x: Tensor) -> Tensor:
        """Standardised roots of x, always finite."""
        return super().forward(_root(x))

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set the moments of the roots from (x [N, T, D], mask [N, T]) pairs of the training split."""
        super().fit((_root(x), mask) for x, mask in batches)


def _root(x: Tensor) -> Tensor:
    return x.sign() * x.abs().sqrt()


class RankGauss(nn.Module):
    """Maps each feature by its rank in the training split to a standard normal; a missing number (NaN) becomes 0.

    x [..., D]. `fit` keeps a grid of training quantiles; ranks are interpolated between them, and those outside get the
    first or last. Robust where features are skewed or have far outliers.
    """

    quantiles: Tensor
    scores: Tensor

    def __init__(self, dim: int, clip: float = 5.0, points: int = 129) -> None:
        super().__init__()
        self.clip = clip
        share = torch.linspace(0, 1, points)
        normal = torch.distributions.Normal(0.0, 1.0)
        self.register_buffer("scores", normal.icdf(share.clamp(0.5 / points, 1 - 0.5 / points)), persistent=False)
        self.register_buffer("quantiles", share.unsqueeze(1).repeat(1, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normal scores of x, always finite."""
        grid = self.quantiles.T.contiguous()
        columns = x.reshape(-1, x.shape[-1]).T.contiguous()
        low, high = (torch.searchsorted(grid, columns.nan_to_num(), right=r) for r in (False, True))
        at = ((low + high - 1) / 2).clamp(0, len(self.scores) - 1)  # the middle of a run of equal quantiles
        left = at.floor().long().clamp_max(len(self.scores) - 2)
        a, b = grid.gather(1, left), grid.gather(1, left + 1)
        within = torch.where(b > a, (columns - a) / (b - a), at - left).clamp(0, 1)
        tied = high > low
        share = torch.where(tied, at - left, within)
        z = torch.lerp(self.scores[left], self.scores[left + 1], share)
        z = torch.where(torch.isnan(columns), 0.0, z).clamp(-self.clip, self.clip)
        return z.T.reshape(x.shape)

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set the quantiles from (x [N, T, D], mask [N, T]) pairs of the training split."""
        rows = torch.cat([*(x[mask] for x, mask in batches), self.quantiles[:0]])
        if not len(rows):
            return
        rows = rows[:: -(-len(rows) // MOST)]
        share = torch.linspace(0, 1, len(self.quantiles), dtype=rows.dtype)
        self.quantiles.copy_(torch.nanquantile(rows, share, dim=0).nan_to_num())
