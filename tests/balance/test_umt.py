from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from affuse.balance import UMT
from affuse.balance.attach import Attached
from affuse.core.errors import BadConfig

from .conftest import Planted, network, optimizer_of


def run(
    balancer: UMT, data: Planted, epochs: int, of: int, weight_decay: float = 0.0
) -> tuple[Attached, dict[str, nn.Module]]:
    """`epochs` epochs of one batch each, of a training that is `of` epochs long."""
    encoders, head = network(len(data.x))
    optimizer = optimizer_of(encoders, head)
    if weight_decay:
        optimizer = torch.optim.AdamW(
            [p for m in [*encoders.values(), head] for p in m.parameters()], 0.01, weight_decay=weight_decay
        )
    attached = Attached(balancer, encoders, head, optimizer, epochs=of)
    for _ in range(epochs):
        attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y, data.x)
        attached.epoch_end()
    return attached, encoders


def test_teachers_learn_what_an_encoder_learns_alone():
    data, balancer = Planted([2.0, 1.0]), UMT(warm=0.5)
    run(balancer, data, epochs=3, of=6)
    for s, encoder in network(2)[0].items():
        alone = nn.Sequential(encoder, nn.Linear(8, 4))
        nn.init.zeros_(alone[1].weight), nn.init.zeros_(alone[1].bias)
        optimizer = torch.optim.SGD(alone.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(alone(data.x[s]), data.y).backward()
            optimizer.step()
        for copied, original in zip(balancer.copies[s].parameters(), encoder.parameters(), strict=True):
            torch.testing.assert_close(copied, original)


def test_the_model_itself_learns_as_without_teachers_until_they_are_frozen():
    data = Planted([2.0, 1.0])
    encoders = run(UMT(warm=0.5), data, epochs=3, of=6)[1]
    guided = run(UMT(warm=0.5), data, epochs=4, of=6)[1]
    plain = run(UMT(warm=0.5, gamma=0.0), data, epochs=4, of=6)[1]
    same = run(UMT(warm=1.0), data, epochs=3, of=6)[1]
    assert all(torch.equal(a, b) for a, b in zip(encoders["s0"].parameters(), same["s0"].parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(guided["s0"].parameters(), plain["s0"].parameters(), strict=True))


def test_frozen_teachers_do_not_move_under_weight_decay_and_momentum():
    data = Planted([2.0, 1.0])
    short, long = UMT(warm=0.5), UMT(warm=0.5)
    run(short, data, epochs=3, of=6, weight_decay=0.5)
    attached, _ = run(long, data, epochs=6, of=6, weight_decay=0.5)
    for part in ("copies", "heads"):
        old, new = (getattr(b, part).state_dict() for b in (short, long))
        assert all(torch.equal(old[k], new[k]) for k in old)
    assert attached.trace["distance.s0"] > 0


def test_features_are_drawn_to_the_teachers():
    data = Planted([2.0, 1.0])
    far, near = (
        run(UMT(warm=0.2, gamma=gamma), data, epochs=30, of=30)[0].trace["distance.s0"] for gamma in (0.0, 10.0)
    )
    assert near < 0.5 * far


def test_a_normalisation_that_is_fitted_after_setup_reaches_the_teachers():
    data, balancer = Planted([1.0, 1.0]), UMT()
    encoders, head = network(2)
    encoders["s0"].register_buffer("mean", torch.zeros(2))
    attached = Attached(balancer, encoders, head, optimizer_of(encoders, head))
    features = {s: encoders[s](x) for s, x in data.x.items()}
    attached._start(features, data.y)
    encoders["s0"].mean.fill_(7.0)
    attached.step(features, data.y, data.x)
    assert balancer.copies["s0"].mean.tolist() == [7.0, 7.0]


def test_teachers_need_the_inputs():
    encoders, head = network(2)
    data = Planted([1.0, 1.0])
    with pytest.raises(BadConfig, match="inputs"):
        Attached(UMT(), encoders, head, optimizer_of(encoders, head)).step(
            {s: encoders[s](x) for s, x in data.x.items()}, data.y
        )
