from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm, rankdata

from affuse.layers import standardise
from affuse.layers.standardise import RankGauss, RootStandardise, Standardise


def batches(x, sizes=(7, 30, 63)):
    """x [N, D] in pieces of [n, T, D] with padding steps that must not count."""
    parts = torch.split(x, list(sizes))
    for part in parts:
        padded = torch.cat([part.unsqueeze(1), torch.full((len(part), 2, x.shape[1]), 1e6)], 1)
        mask = torch.tensor([[True, False, False]]).repeat(len(part), 1)
        yield padded, mask


def test_standardise_fits_the_exact_moments_of_valid_known_numbers():
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)) * 5 + 1e4
    x[::9, 1] = float("nan")
    layer = Standardise(3)
    layer.fit(batches(x))
    for d in range(3):
        known = x[:, d][~x[:, d].isnan()].double()
        assert layer.mean[d] == pytest.approx(known.mean().item(), rel=1e-6)
        assert layer.std[d] == pytest.approx(known.std(correction=0).item(), rel=1e-4)
    z = layer(x)
    assert torch.isfinite(z).all()
    assert (z[::9, 1] == 0).all()
    assert z.abs().max() <= layer.clip


def test_a_constant_feature_stays_finite():
    layer = Standardise(2)
    layer.fit([(torch.ones(5, 1, 2), torch.ones(5, 1, dtype=torch.bool))])
    assert (layer(torch.ones(3, 2)) == 0).all()


def test_rank_gauss_equals_normal_scores_of_ranks():
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)).exp()
    layer = RankGauss(2)
    layer.fit(batches(x))
    z = layer(x)
    for d in range(2):
        wanted = norm.ppf((rankdata(x[:, d]) - 1) / 99 * (1 - 1 / 129) + 0.5 / 129)
        inner = np.abs(wanted) < 1.5
        np.testing.assert_allclose(z[:, d][inner], wanted[inner], atol=0.08)
    assert (z[x[:, 0].argsort(), 0].diff() >= 0).all()


def test_rank_gauss_handles_ties_missing_numbers_and_outliers():
    x = torch.zeros(100, 2)
    x[:40, 0] = 1.0
    x[:, 1] = torch.linspace(0, 1, 100)
    x[5, 1] = float("nan")
    layer = RankGauss(2)
    layer.fit(batches(x))
    z = layer(torch.tensor([[0.0, float("nan")], [1.0, 1e9], [0.5, -1e9]]))
    assert torch.isfinite(z).all()
    assert z[0, 1] == 0
    assert z[1, 1] == -z[2, 1] == layer.scores[-1]
    assert z[0, 0] == pytest.approx(norm.ppf(0.3), abs=0.05)
    assert z[1, 0] == pytest.approx(norm.ppf(0.8), abs=0.05)


def test_root_standardise_evens_out_and_keeps_the_sign():
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(1)) ** 3
    layer = RootStandardise(2)
    layer.fit(batches(x))
    z = layer(x)
    root = x.sign() * x.abs().sqrt()
    torch.testing.assert_close(
        z, ((root - root.mean(0)) / root.std(0, correction=0)).clamp(-5, 5), rtol=1e-4, atol=1e-5
    )
    assert layer(torch.tensor([[float("nan"), 0.0]])).isfinite().all()


def test_rank_gauss_takes_more_rows_than_a_quantile_does_and_none(monkeypatch):
    monkeypatch.setattr(standardise, "MOST", 100)
    x = torch.rand(1000, 1, 1, generator=torch.Generator().manual_seed(0))
    layer = RankGauss(1)
    layer.fit([(x, torch.ones(1000, 1, dtype=torch.bool))])
    whole = torch.linspace(0, 1, len(layer.quantiles))
    torch.testing.assert_close(layer.quantiles[:, 0], whole, atol=0.15, rtol=0)
    fitted = layer.quantiles.clone()
    layer.fit([(x, torch.zeros(1000, 1, dtype=torch.bool))])
    layer.fit([])
    assert torch.equal(layer.quantiles, fitted)
