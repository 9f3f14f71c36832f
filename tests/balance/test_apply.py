"""Where a multiplier acts: on gradients, or on learning rates where the optimiser divides gradients by their size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from affuse.balance.attach import Attached
from affuse.balance.balancer import Balancer, Control, own_rates
from affuse.core import registry

from .conftest import Planted, network, optimizer_of, train

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class Slow(Balancer):
    """k = 0.2 for the first stream."""

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = k

    def gradients(self, control: Control) -> None:
        control.scale({"s0": self.k, "s1": 1.0})


def change(optimizer: str, k: float, apply: str, steps: int = 50) -> torch.Tensor:
    """How far the first encoder's parameters are after some steps of a constant problem; eps plays no part."""
    torch.manual_seed(0)
    encoders, head = network(2)
    data = Planted([2.0, 1.0])
    parameters = [*(p for e in encoders.values() for p in e.parameters()), *head.parameters()]
    kind = OPTIMIZERS[optimizer]
    made = kind(parameters, lr=0.05) if optimizer == "sgd" else kind(parameters, lr=0.002, eps=1e-12)
    start = torch.cat([p.detach().flatten().clone() for p in encoders["s0"].parameters()])
    head.requires_grad_(False)
    attached = Attached(Slow(k), encoders, head, made, apply=apply)
    for _ in range(steps):
        attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y)
    return torch.cat([p.detach().flatten() for p in encoders["s0"].parameters()]) - start


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_adam_divides_a_constant_factor_of_the_gradient_out(optimizer):
    plain, slow = change(optimizer, 1.0, "grad"), change(optimizer, 0.2, "grad")
    assert float((plain - slow).norm() / plain.norm()) < 1e-4


@pytest.mark.parametrize("apply", ["lr", "auto"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_a_factor_of_the_rate_slows_adam(optimizer, apply):
    plain, slow = change(optimizer, 1.0, apply), change(optimizer, 0.2, apply)
    assert 0.1 < float(slow.norm() / plain.norm()) < 0.4


@pytest.mark.parametrize("apply", ["grad", "auto", "lr"])
def test_sgd_is_slowed_either_way(apply):
    plain, slow = change("sgd", 1.0, apply), change("sgd", 0.2, apply)
    assert 0.1 < float(slow.norm() / plain.norm()) < 0.4


def test_one_step_of_sgd_is_scaled_exactly():
    plain = change("sgd", 1.0, "grad", steps=1)
    for apply in ("grad", "lr"):
        torch.testing.assert_close(change("sgd", 0.2, apply, steps=1), 0.2 * plain, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_rates_are_put_back(name):
    attached, _ = train(Slow(0.2), Planted([1.0, 1.0]), optimizer=name, apply="lr")
    assert len({g["lr"] for g in attached.optimizer.param_groups}) == 1


def test_momentum_keeps_what_the_rate_does_not():
    """A factor of the rate leaves the optimiser's memory of gradients as it is, a factor of the gradient does not."""
    layer = nn.Linear(2, 2)
    for apply, kept in (("lr", 1.0), ("grad", 0.2)):
        optimizer = torch.optim.SGD([{"params": list(layer.parameters()), "stream": "a"}], lr=0.1, momentum=0.9)
        layer.weight.grad, layer.bias.grad = torch.ones(2, 2), torch.ones(2)
        control = Control({"a": list(layer.parameters())}, optimizer, apply)
        control.scale({"a": 0.2})
        optimizer.step()
        control.restore()
        assert torch.allclose(optimizer.state[layer.weight]["momentum_buffer"], torch.full((2, 2), kept))


@pytest.mark.parametrize("name", ["none", "uniform", "cggm", "bcgm"])
def test_a_scheduler_that_is_made_after_attaching_moves_every_rate(name):
    data, (encoders, head) = Planted([2.0, 1.0]), network(2)
    balancer = registry.build("balancers", name)
    attached = Attached(balancer, encoders, head, optimizer_of(encoders, head))
    schedule = torch.optim.lr_scheduler.LambdaLR(attached.optimizer, lambda step: 0.5**step)
    for _ in range(2):
        attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y)
        schedule.step()
    trained = {id(p): g["lr"] for g in attached.optimizer.param_groups for p in g["params"]}
    rates = own_rates(balancer)
    assert {i: 0.025 * rates.get(i, 1.0) for i in trained} == pytest.approx(trained)
    assert all(id(p) in trained for p in balancer.parameters())
