from __future__ import annotations

import math

import pytest
import torch

from affuse.balance import MLB
from affuse.balance.mlb import coefficients

from .conftest import Planted, train


def test_the_closed_form_of_two_streams():
    k = coefficients(torch.tensor([0.6, 0.3]), alpha=0.8)
    torch.testing.assert_close(k, torch.tensor([1 + math.tanh(0.8 * -0.5), 1 + math.tanh(0.8)]))


def test_beta_is_the_limit_of_what_a_slow_stream_gains():
    k = coefficients(torch.tensor([0.9, 1e-6]), alpha=0.8, beta=3.0)
    assert float(k[1]) == pytest.approx(3.0)
    assert float(k[0]) == pytest.approx(1 - math.tanh(0.8), rel=1e-4)


def test_three_streams_are_compared_with_the_mean_of_the_others():
    k = coefficients(torch.tensor([0.2, 0.4, 0.3]), alpha=0.5)
    rho = torch.tensor([0.35 / 0.2, 0.25 / 0.4, 1.0])
    torch.testing.assert_close(k, 1 + torch.tanh(0.5 * (rho - 1)))


def test_balance_is_k_of_exactly_one_and_k_has_no_jump_there():
    assert coefficients(torch.tensor([0.4, 0.4]), 0.8).tolist() == [1.0, 1.0]
    near = coefficients(torch.tensor([0.4, 0.4 + 1e-5]), 0.8)
    assert float((near - 1).abs().max()) < 1e-4


@pytest.mark.parametrize("score", [[0.0, 0.0], [0.0, 0.5], [math.nan, 0.5], [math.nan, math.nan]])
def test_scores_of_zero_and_streams_never_seen_give_finite_multipliers(score):
    k = coefficients(torch.tensor(score), 0.8)
    assert k.isfinite().all() and (k >= 0).all()


def test_the_weaker_stream_is_sped_up():
    attached, _ = train(MLB(), Planted([3.0, 0.3]), epochs=4)
    assert attached.trace["k.s0"] < 1 < attached.trace["k.s1"]
