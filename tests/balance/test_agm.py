from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from affuse.balance import AGM
from affuse.balance.agm import coefficients
from affuse.balance.attach import Attached

from .conftest import Planted, network, optimizer_of, train


def attach(balancer: AGM, streams: int = 2):
    encoders, head = network(streams)
    return Attached(balancer, encoders, head, optimizer_of(encoders, head)), encoders


def test_the_closed_form_of_two_streams():
    now, mean = torch.tensor([1.0, 2.0]), torch.tensor([1.2, 1.6])
    # M / (M - 1) = 2; the mean losses are 1.5 now and 1.4 in the past
    expected = [
        math.exp(0.7 * (math.exp(2 * (1.4 - m)) - math.exp(2 * (1.5 - n)))) for n, m in ((1.0, 1.2), (2.0, 1.6))
    ]
    torch.testing.assert_close(coefficients(now, mean, 0.7), torch.tensor(expected))


def test_the_exponent_is_capped_and_extreme_losses_stay_finite():
    k = coefficients(torch.tensor([1e4, 0.0]), torch.tensor([0.0, 1e4]), alpha=0.3)
    assert k[0] == pytest.approx(math.exp(3.0))
    assert k[1] == 0
    assert coefficients(torch.tensor([1e6, 0.0]), torch.tensor([1e6, 0.0]), 1.0).isfinite().all()


def test_a_stream_never_seen_is_left_alone():
    nan = float("nan")
    k = coefficients(torch.tensor([1.0, nan, 2.0]), torch.tensor([1.0, nan, 2.0]), 1.0)
    torch.testing.assert_close(k, torch.ones(3))


def test_the_running_mean_is_that_of_all_steps_before():
    data = Planted([2.0, 0.5])
    balancer = AGM()
    attached, encoders = attach(balancer)
    losses, expected = [], []
    for _ in range(4):
        before = balancer.mean.clone() if losses else torch.full((2,), float("nan"))
        attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y)
        losses.append(torch.tensor([attached.trace[f"loss.s{i}"] for i in range(2)]))
        expected.append(coefficients(losses[-1], before, balancer.alpha))
        torch.testing.assert_close(balancer.mean, torch.stack(losses).mean(0))
        assert [attached.trace[f"k.s{i}"] for i in range(2)] == pytest.approx(expected[-1].tolist(), rel=1e-5)
    assert expected[0].tolist() == [1.0, 1.0]
    assert expected[-1].tolist() != [1.0, 1.0]


def test_two_streams_have_the_papers_outputs():
    """phi_a = (F(av) - F(v) + F(a) - F(none)) / 2, and the loss is that of phi_a."""
    data = Planted([2.0, 0.5])
    balancer = AGM()
    attached, encoders = attach(balancer)
    features = {s: encoders[s](x).detach() for s, x in data.x.items()}
    head, zero = attached.head, torch.zeros_like(features["s0"])
    a, v = features["s0"], features["s1"]
    with torch.no_grad():
        f = {
            k: head({"s0": x, "s1": y})
            for k, x, y in (("av", a, v), ("a", a, zero), ("v", zero, v), ("none", zero, zero))
        }
    loss = torch.nn.functional.cross_entropy((f["av"] - f["v"] + f["a"] - f["none"]) / 2, data.y)
    attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y)
    assert attached.trace["loss.s0"] == pytest.approx(float(loss), rel=1e-5)


def test_items_without_a_stream_do_not_count_for_it():
    data = Planted([2.0, 0.5], n=8)
    balancer = AGM()
    attached, encoders = attach(balancer)
    features = {s: encoders[s](x).detach() for s, x in data.x.items()}
    attached._start(features, data.y)
    step = attached._step(features, data.y, None, 0)
    some = replace(step, present=torch.tensor([[True, i < 5] for i in range(8)]))
    balancer.add(some)
    first = balancer.sums.clone()
    balancer.sums.zero_()
    wild = {"s0": features["s0"], "s1": features["s1"] + torch.tensor([[0.0]] * 5 + [[99.0]] * 3)}
    balancer.add(replace(some, features=wild))
    torch.testing.assert_close(balancer.sums, first)
    assert first[1, 1] == pytest.approx(5 / 8)


def test_the_stream_that_falls_behind_its_past_is_sped_up():
    attached, _ = train(AGM(), Planted([3.0, 0.3]), epochs=4)
    assert attached.trace["k.s0"] < 1 < attached.trace["k.s1"]
