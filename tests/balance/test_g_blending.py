from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from affuse.balance import GBlending
from affuse.balance.balancer import Epoch
from affuse.balance.g_blending import blend
from affuse.core.errors import BadConfig

from .conftest import Planted, train
from .test_mslr import started


def test_the_closed_form_of_three_branches():
    before = torch.tensor([[1.0, 1.0, 1.0], [1.2, 1.2, 1.2]])
    now = torch.tensor([[0.5, 0.8, 0.2], [0.9, 1.0, 1.4]])  # the last one overfits: no gain
    raw = torch.tensor([(0.3 + 0.01) / (0.2**2 + 0.01), (0.2 + 0.01) / 0.01, 0.01 / (1.0**2 + 0.01)])
    torch.testing.assert_close(blend(before, now, 0.01), raw / raw.mean())


def test_nothing_gained_by_anyone_is_no_division_by_zero():
    torch.testing.assert_close(blend(torch.ones(2, 3), torch.ones(2, 3), 0.01), torch.ones(3))


def test_g_blending_weights_come_from_means_not_sums():
    """The published code sums losses over splits of unequal size: a larger split is no larger loss."""
    data = Planted([2.0, 1.0])
    balancer = GBlending()
    attached, _, features = started(balancer, data)
    once = balancer.mean_losses(attached._step(features, data.y, None, 0))
    thrice = {s: h.repeat(3, 1) for s, h in features.items()}
    torch.testing.assert_close(balancer.mean_losses(attached._step(thrice, data.y.repeat(3), None, 0)), once)
    with torch.no_grad():
        torch.testing.assert_close(once[0], F.cross_entropy(attached.head(features), data.y))


def test_items_without_a_stream_are_left_out_of_its_mean():
    data = Planted([2.0, 1.0])
    balancer = GBlending()
    attached, _, features = started(balancer, data)
    for head in balancer.heads.values():
        torch.nn.init.normal_(head.weight)
    step = attached._step(features, data.y, None, 0)
    present = torch.arange(96)[:, None] >= torch.tensor([0, 40])
    with torch.no_grad():
        losses = balancer.mean_losses(replace(step, present=present))
        torch.testing.assert_close(losses[2], F.cross_entropy(balancer.heads["s1"](features["s1"][40:]), data.y[40:]))


def test_g_blending_never_asks_for_the_test_split():
    data = Planted([2.0, 1.0])
    balancer = GBlending(every=1)
    attached, encoders, features = started(balancer, data)
    asked = []

    def seen(split: str):
        asked.append(split)
        return attached._step(features, data.y, None, 0)

    for number in range(3):
        balancer.epoch_end(Epoch(number, 3, encoders, seen))
    assert set(asked) == {"train", "valid"}


def test_without_held_out_data_it_raises():
    attached, _, features = started(GBlending(), Planted([2.0, 1.0]))
    with pytest.raises(BadConfig, match="no valid"):
        attached.epoch_end({"train": (features, torch.zeros(96, dtype=torch.long))})


def test_all_branches_weigh_the_same_until_two_looks_and_never_nothing():
    early, _ = train(GBlending(every=3), Planted([2.0, 1.0]), epochs=3)
    assert [early.trace[f"weight.{b}"] for b in ("fused", "s0", "s1")] == [1.0, 1.0, 1.0]
    late, _ = train(GBlending(every=3), Planted([2.0, 1.0]), epochs=5)
    weights = [late.trace[f"weight.{b}"] for b in ("fused", "s0", "s1")]
    assert min(weights) > 0 and sum(weights) == pytest.approx(3) and len(set(weights)) == 3
