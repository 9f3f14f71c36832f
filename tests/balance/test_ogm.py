from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from affuse.balance import OGM, OGMGE
from affuse.balance.balancer import Control
from affuse.balance.ogm import coefficients

from .conftest import Planted, train


def test_the_closed_form_of_two_streams():
    k = coefficients(torch.tensor([0.6, 0.3]), alpha=0.8)
    torch.testing.assert_close(k, torch.tensor([1 - math.tanh(0.8 * 2.0), 1.0]))


def test_all_but_the_weakest_of_three_are_slowed():
    k = coefficients(torch.tensor([0.2, 0.4, 0.3]), alpha=0.5)
    torch.testing.assert_close(k, torch.tensor([1.0, 1 - math.tanh(1.0), 1 - math.tanh(0.75)]))


def test_a_score_of_zero_is_no_division_by_zero():
    assert coefficients(torch.tensor([0.0, 0.5]), 0.8).isfinite().all()


def test_the_stronger_stream_is_slowed():
    attached, _ = train(OGM(), Planted([3.0, 0.3]), epochs=4)
    assert attached.trace["score.s0"] > attached.trace["score.s1"]
    assert attached.trace["k.s0"] < 1 == attached.trace["k.s1"]


def test_epochs_outside_start_and_end_are_plain():
    attached, _ = train(OGM(start=1, end=2), Planted([3.0, 0.3]), epochs=1)
    assert "k.s0" not in attached.trace


@pytest.mark.parametrize("k", [0.2, 1.0])
def test_the_noise_has_the_size_of_the_gradient_before_it_was_scaled(k):
    torch.manual_seed(0)
    layer = nn.Linear(300, 300)
    layer.weight.grad, layer.bias.grad = torch.randn(300, 300), torch.randn(300)
    seen = layer.weight.grad.clone()
    Control({"a": list(layer.parameters())}, torch.optim.SGD(layer.parameters(), 0.1)).scale({"a": k}, noise=True)
    noise = layer.weight.grad - k * seen
    assert noise.std() == pytest.approx(float(seen.std()), rel=0.02)
    assert OGMGE.noise


def test_every_process_adds_the_same_noise():
    """What two processes drew is added up; the sum has the size that one draw has."""
    gradient, others = torch.randn(200, 200), iter([torch.ones(1), torch.randn(200, 200)])
    weight = nn.Parameter(torch.zeros(200, 200))
    weight.grad = gradient.clone()
    drawn: list[torch.Tensor] = []

    def total(x: torch.Tensor) -> torch.Tensor:
        drawn.append(x + next(others))
        return drawn[-1]

    Control({"a": [weight]}, torch.optim.SGD([weight], 0.1), total=total).scale({"a": 0.5}, noise=True)
    torch.testing.assert_close(weight.grad, 0.5 * gradient + drawn[1] / 2**0.5)
    assert (weight.grad - 0.5 * gradient).std() == pytest.approx(1, rel=0.05)
