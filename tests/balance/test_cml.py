from __future__ import annotations

import pytest
import torch

from affuse.balance import CML
from affuse.balance.balancer import Control, Step

ALL, FIRST, SECOND = ([2.0, 0.0], [3.0, 0.0], [0.0, 1.0])  # logits of two items' classes from both streams, or one


def step(target: torch.Tensor, present: torch.Tensor, power: torch.Tensor) -> Step:
    """Answers that depend on who is there alone; `power` multiplies them."""

    def run(given, shown, share=1.0):
        rows = torch.tensor([[0.0, 0.0], SECOND, FIRST, ALL])
        logits = power * rows[shown[:, 0] * 2 + shown[:, 1] * 1]
        return (logits * 0).sum(), logits, {"task": (logits * 0).sum()}

    features = {"a": torch.zeros(len(target), 1), "b": torch.zeros(len(target), 1)}
    weight = torch.full((len(target),), 1 / len(target))
    return Step(features, present, target, weight, run, lambda f, p: run(f, p)[1], lambda z: z[:, 0] * 0)


def made(weight: float = 0.1) -> CML:
    balancer = CML(weight=weight)
    balancer.setup({}, {"a": 1, "b": 1}, 2)
    return balancer


def sure(logits: list[float]) -> float:
    return float(torch.tensor(logits).softmax(0).max())


def test_confidence_that_rises_without_a_stream_is_penalised():
    power = torch.ones((), requires_grad=True)
    found = made()
    loss = found.loss(step(torch.zeros(3, dtype=torch.long), torch.ones(3, 2, dtype=torch.bool), power))
    rise = sure(FIRST) - sure(ALL)  # without b; without a confidence falls
    assert loss.item() == pytest.approx(0.1 * rise / 2, rel=1e-5)
    loss.backward()
    assert power.grad.abs() > 0
    control = Control({"a": [], "b": []}, torch.optim.SGD([power], 0.1))
    found.gradients(control)
    assert control.trace == {"rise.a": 0.0, "rise.b": pytest.approx(rise, rel=1e-5)}


def test_items_without_the_stream_or_without_another_do_not_count():
    present = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    loss = made().loss(step(torch.zeros(4, dtype=torch.long), present, torch.ones(())))
    assert loss.item() == pytest.approx(0.1 * (sure(FIRST) - sure(ALL)) / 2 / 4, rel=1e-5)


def test_values_are_compared_by_how_near_they_are():
    target = torch.tensor([[3.0, 0.0]])  # the prediction from the first stream alone
    loss = made().loss(step(target, torch.ones(1, 2, dtype=torch.bool), torch.ones(())))
    assert loss.item() == pytest.approx(0.1 * (1 - float(torch.exp(torch.tensor(-0.5)))) / 2, rel=1e-5)


def test_a_weight_of_zero_is_plain_training():
    plain = step(torch.zeros(2, dtype=torch.long), torch.ones(2, 2, dtype=torch.bool), torch.ones(()))
    assert made(0.0).loss(plain).item() == plain.fused()[0].item()
