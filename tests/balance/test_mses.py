from __future__ import annotations

import pytest
import torch
from torch import nn

from affuse.balance import MSES
from affuse.balance.attach import Attached
from affuse.balance.balancer import Epoch

from .conftest import Planted, network
from .test_mslr import fake_accuracies


def weights(encoder: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in encoder.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_a_stream_that_gets_no_better_goes_back_to_its_best_epoch_and_stays(monkeypatch, optimizer):
    """Neither momentum nor weight decay nor running statistics move what is stopped."""
    fake_accuracies(monkeypatch, "mses", [[0.3, 0.1], [0.5, 0.2], [0.5, 0.3], [0.4, 0.4], [0.9, 0.5], [0.9, 0.6]])
    data = Planted([2.0, 1.0])
    encoders, head = network(2)
    encoders = {s: nn.Sequential(e, nn.BatchNorm1d(8)) for s, e in encoders.items()}
    parameters = [*(p for e in encoders.values() for p in e.parameters()), *head.parameters()]
    optim = (
        torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)
        if optimizer == "momentum"
        else torch.optim.AdamW(parameters, lr=0.01)
    )
    balancer = MSES(patience=2)
    attached = Attached(balancer, encoders, head, optim, epochs=6)
    after = []
    for _ in range(6):
        for _ in range(2):
            attached.step({s: e(data.x[s]) for s, e in encoders.items()}, data.y)
        scored = weights(encoders["s0"])
        attached.epoch_end({"valid": ({s: torch.zeros(96, 8) for s in encoders}, data.y)})
        after.append((scored, weights(encoders["s0"]), weights(encoders["s1"]), dict(attached.trace)))
    best = after[1][0]
    assert same(after[2][1], after[2][0])  # one epoch without a rise: patience
    assert not same(after[3][0], best) and same(after[3][1], best)
    assert same(after[4][0], best) and same(after[5][1], best)
    assert not same(after[4][2], after[5][2])
    assert balancer.stopped.tolist() == [True, False]
    assert (after[5][3]["k.s0"], after[5][3]["k.s1"]) == (0.0, 1.0)


def test_a_stream_that_was_never_seen_is_not_stopped(monkeypatch):
    fake_accuracies(monkeypatch, "mses", [[0.3, float("nan")]] * 4)
    encoders, _ = network(2)
    balancer = MSES(patience=1)
    balancer.setup(encoders, {"s0": 8, "s1": 8}, 4)
    for number in range(4):
        balancer.epoch_end(Epoch(number, 4, encoders, lambda split: object()))  # type: ignore[arg-type, return-value]
    assert balancer.stopped.tolist() == [True, False]
