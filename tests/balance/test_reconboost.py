from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from affuse.balance import ReconBoost
from affuse.balance.attach import Attached
from affuse.balance.balancer import Step
from affuse.core.errors import BadConfig

from .conftest import Planted, network, optimizer_of


def step(data: Planted, encoders, head, **options) -> Step:
    attached = Attached(ReconBoost(), encoders, head, optimizer_of(encoders, head))
    return replace(
        attached._step({s: encoders[s](x) for s, x in data.x.items()}, data.y, data.x, 0), epochs=12, **options
    )


def made(encoders, **options) -> ReconBoost:
    balancer = ReconBoost(**options)
    balancer.setup(encoders, dict.fromkeys(encoders, 8), 4)
    return balancer


def test_streams_take_stages_and_all_learn_between_them():
    balancer = ReconBoost(stage=2, rectify=1)
    found = [balancer.learner(epoch, ["a", "b"]) for epoch in range(8)]
    assert found == [("a", ""), ("a", ""), ("", ""), ("b", "a"), ("b", "a"), ("", "a"), ("a", "b"), ("a", "b")]


def test_a_stage_s_loss_is_the_published_one():
    data = Planted([2.0, 1.0, 1.0])
    encoders, head = network(3)
    now = step(data, encoders, head)
    p = now.alone("s0")[1].log_softmax(1)
    q = now.only("s1", "s2").softmax(1)
    y = F.one_hot(data.y, 4)
    expected = (-5 * (y * p).sum(1) + 2 * (y * q * p).sum(1)).mean()
    torch.testing.assert_close(made(encoders, w2=2.0).loss(now), expected)


def test_the_published_agreement_with_the_learner_before_has_no_gradient_and_ours_has():
    data = Planted([2.0, 1.0, 1.0])
    encoders, head = network(3)
    balancer, free = made(encoders, stage=1, rectify=0), made(encoders, stage=1, rectify=0, alpha=0.0)
    now = step(data, encoders, head, epoch=2)  # s2 learns, after s1
    more = balancer.loss(now) - free.loss(now)
    torch.testing.assert_close(
        more, 0.5 * (now.only("s2").softmax(1) - now.only("s1").softmax(1)).square().sum(1).mean()
    )
    grad = torch.autograd.grad(
        more, [e[0].weight for e in encoders.values()], allow_unused=True, materialize_grads=True
    )
    assert [bool(g.any()) for g in grad] == [False, False, True]
    first = step(data, encoders, head, epoch=0)
    torch.testing.assert_close(balancer.loss(first), free.loss(first))  # no stream learned before


@pytest.mark.parametrize("rectify", [0, 1])
def test_only_the_learner_moves_even_under_momentum_and_weight_decay(rectify):
    data = Planted([2.0, 1.0])
    encoders, head = network(2)
    parameters = [p for m in [*encoders.values(), head] for p in m.parameters()]
    balancer = ReconBoost(stage=1, rectify=rectify)
    attached = Attached(balancer, encoders, head, torch.optim.AdamW(parameters, 0.01, weight_decay=0.5), epochs=8)
    moved = []
    for _ in range(8):
        old = {s: [p.detach().clone() for p in e.parameters()] for s, e in encoders.items()}
        for _ in range(2):
            attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y, data.x)
        attached.epoch_end()
        pairs = {s: list(zip(old[s], e.parameters(), strict=True)) for s, e in encoders.items()}
        moved.append({s for s, each in pairs.items() if not all(torch.equal(a, b) for a, b in each)})
        assert moved[-1] == {s for s in encoders if attached.trace[f"learns.{s}"] == 1}
    assert moved[:4] == ([{"s0"}, {"s0", "s1"}, {"s1"}, {"s0", "s1"}] if rectify else [{"s0"}, {"s1"}] * 2)


def test_a_stage_has_an_epoch():
    with pytest.raises(BadConfig, match="stage = 0"):
        ReconBoost(stage=0)
