from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from affuse.balance import Relearning
from affuse.balance.attach import Attached
from affuse.balance.balancer import Epoch
from affuse.balance.relearning import purity
from affuse.core.errors import BadConfig

from .conftest import Planted, network, optimizer_of
from .test_mslr import started


def test_purity_of_classes_apart_is_one_and_of_noise_near_chance():
    torch.manual_seed(0)
    y = torch.arange(400) % 4
    corners = 20 * torch.eye(4)[y]
    assert float(purity(corners + torch.randn(400, 4), y, 4)) == 1
    assert float(purity(torch.randn(400, 4), y, 4)) < 0.4


def test_purity_is_the_share_of_the_most_frequent_class_per_cluster():
    x = torch.tensor([0.0] * 5 + [100.0] * 5)[:, None] + torch.arange(10)[:, None] / 100
    y = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 1, 0])
    assert float(purity(x, y, 2)) == pytest.approx((3 + 4) / 10)
    assert purity(x[:0], y[:0], 2).isnan()


def test_scaled_features_count_every_dimension_alike_and_a_constant_one_not_at_all():
    """The class lies in a dimension a hundred times smaller than one of noise: k-means finds it once both are -1..1."""
    torch.manual_seed(0)
    y = torch.arange(400) % 2
    x = torch.stack([100 * torch.rand(400), y + 0.1 * torch.rand(400), torch.full((400,), 7.0)], 1)
    assert float(purity(x, y, 2)) < 0.7
    assert float(purity(x, y, 2, scaled=True)) == 1


def test_scaling_is_an_option_of_the_balancer(monkeypatch):
    seen = []
    measured = lambda x, target, classes, scaled: seen.append(scaled) or torch.tensor(1.0)  # noqa: E731
    monkeypatch.setattr("affuse.balance.relearning.purity", measured)
    for scaled in (False, True):
        balancer = Relearning(every=1, scaled=scaled)
        attached, _, features = started(balancer, Planted([1.0, 1.0]))
        attached.epochs = 5
        attached.epoch_end({split: (features, torch.arange(96) % 4) for split in ("train", "valid")})
    assert seen == [False] * 4 + [True] * 4


def test_encoders_are_pulled_towards_their_start_by_the_gap(monkeypatch):
    gaps = iter([torch.tensor([0.9, 0.8]), torch.tensor([0.4, 0.8])])
    monkeypatch.setattr("affuse.balance.relearning.purities", lambda step, classes, scaled: next(gaps))
    encoders, _ = network(2)
    balancer = Relearning(every=2, gain=3.0)
    balancer.setup(encoders, {"s0": 8, "s1": 8}, 4)
    start = [p.clone() for p in encoders["s0"].parameters()]
    with torch.no_grad():
        for p in [*encoders["s0"].parameters(), *encoders["s1"].parameters()]:
            p.add_(torch.randn_like(p))
    now, other = ([p.clone() for p in encoders[s].parameters()] for s in ("s0", "s1"))
    balancer.epoch_end(Epoch(1, 10, encoders, lambda split: object()))  # type: ignore[arg-type, return-value]
    w = math.tanh(3 * 0.5)
    for p, p0, p1 in zip(encoders["s0"].parameters(), start, now, strict=True):
        torch.testing.assert_close(p, w * p0 + (1 - w) * p1)
    assert all(torch.equal(a, b) for a, b in zip(encoders["s1"].parameters(), other, strict=True))  # no gap, no change


def test_at_most_twice_and_never_after_the_last_epoch(monkeypatch):
    monkeypatch.setattr("affuse.balance.relearning.purities", lambda step, classes, scaled: torch.ones(2))
    encoders, _ = network(2)

    def done(epochs: int) -> int:
        balancer = Relearning(every=3, times=2)
        balancer.setup(encoders, {"s0": 8, "s1": 8}, 4)
        for number in range(epochs):
            balancer.epoch_end(Epoch(number, epochs, encoders, lambda split: object()))  # type: ignore
        return int(balancer.done)

    assert [done(n) for n in (3, 4, 6, 7, 20)] == [0, 1, 1, 2, 2]


def test_the_stream_that_does_not_carry_over_is_pulled_more():
    """s0's held-out features are noise, s1's lie as in training."""
    data = Planted([4.0, 4.0], n=400)
    balancer = Relearning(every=1)
    attached, _, features = started(balancer, data)
    attached.epochs = 5
    valid = {"s0": torch.randn_like(features["s0"]), "s1": features["s1"]}
    attached.epoch_end({"train": (features, data.y), "valid": (valid, data.y)})
    assert balancer.pulled[0] > 0.5 and balancer.pulled[1] == 0
    attached.step(features, data.y)
    assert attached.trace["relearned.s0"] > 0.5


def test_values_and_a_missing_split_raise():
    data = Planted([2.0, 1.0])
    encoders, head = network(2)
    attached = Attached(Relearning(every=1), encoders, head, optimizer_of(encoders, head), loss=F.mse_loss, epochs=3)
    features = {s: encoders[s](x) for s, x in data.x.items()}
    with pytest.raises(BadConfig, match="values"):
        attached.step(features, torch.randn(96, 4))
    with pytest.raises(BadConfig, match="no valid"):
        attached.epoch_end({"train": (features, data.y)})
