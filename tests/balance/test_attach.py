"""A balancer in anybody's loop: streams go by name, and a loop goes on where it was saved."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
import torch
from torch import nn

from affuse.balance import MSLR, OGM, Plain, Uniform
from affuse.balance.attach import Attached
from affuse.balance.balancer import Balancer
from affuse.core import registry
from affuse.core.errors import BadConfig

from .conftest import Planted, network, optimizer_of

EPOCHS, STOP = 9, 7  # the warm-ups of the methods' defaults are over by then
OPTIONS: dict[str, dict[str, Any]] = {"relearning": {"every": 2}, "mses": {"patience": 1}}


class Loop:
    """A plain loop of somebody else's, with dropout and Adam."""

    def __init__(self, balancer: Balancer, seed: int = 0) -> None:
        self.data = Planted([2.0, 1.0], n=48)
        self.encoders, self.head = network(2, seed)
        self.encoders = {s: nn.Sequential(e, nn.Dropout(0.2)) for s, e in self.encoders.items()}
        self.optimizer = optimizer_of(self.encoders, self.head, "adam", lr=0.3)
        self.attached = Attached(balancer, self.encoders, self.head, self.optimizer, epochs=EPOCHS)
        self.traces: list[dict[str, float]] = []

    def features(self, rows: slice) -> dict[str, torch.Tensor]:
        return {s: e(self.data.x[s][rows]) for s, e in self.encoders.items()}

    def run(self, epochs: range) -> None:
        for _ in epochs:
            for rows in (slice(0, 24), slice(24, 48)):
                self.attached.step(self.features(rows), self.data.y[rows], {s: x[rows] for s, x in self.data.x.items()})
                self.traces.append(self.attached.trace)
            with torch.no_grad():
                split = {
                    name: (self.features(rows), self.data.y[rows])
                    for name, rows in (("train", slice(0, 24)), ("valid", slice(24, 48)))
                }
            self.attached.epoch_end(split)

    @property
    def modules(self) -> nn.ModuleList:
        return nn.ModuleList([*self.encoders.values(), self.head])

    def save(self) -> bytes:
        file = BytesIO()
        state = {
            "modules": self.modules.state_dict(),
            "attached": self.attached.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state | {"random": torch.get_rng_state()}, file)
        return file.getvalue()

    def load(self, saved: bytes) -> None:
        state = torch.load(BytesIO(saved), weights_only=True)
        torch.set_rng_state(state["random"])  # first: loading must draw nothing
        self.modules.load_state_dict(state["modules"])
        self.attached.load_state_dict(state["attached"])
        self.optimizer.load_state_dict(state["optimizer"])


@pytest.mark.parametrize("name", list(registry.cards("balancers")))
def test_a_loop_that_was_interrupted_goes_on_exactly(name):
    def loop(seed: int = 0) -> Loop:
        return Loop(registry.build("balancers", name, **OPTIONS.get(name, {})), seed)

    whole, part, rest = loop(), loop(), loop(seed=1)
    for one in (whole, part):
        torch.manual_seed(5)
        one.run(range(EPOCHS if one is whole else STOP))
    rest.load(part.save())
    rest.run(range(STOP, EPOCHS))
    assert rest.attached.epoch == whole.attached.epoch == EPOCHS
    assert repr(part.traces + rest.traces) == repr(whole.traces)  # repr: NaN equals NaN
    assert_equal(whole.modules.state_dict(), rest.modules.state_dict())
    assert_equal(whole.attached.balancer.state_dict(), rest.attached.balancer.state_dict())


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0, equal_nan=True)


def test_a_state_from_before_the_first_step_is_that_of_a_new_loop():
    fresh, other = Loop(Uniform()), Loop(Uniform())
    other.load(fresh.save())
    other.run(range(1))
    assert other.attached.epoch == 1


def test_a_state_goes_back_into_the_loop_that_it_is_of():
    loop = Loop(Uniform())
    loop.run(range(2))
    saved, kept = loop.save(), {k: v.clone() for k, v in loop.attached.balancer.state_dict().items()}
    groups = [len(g["params"]) for g in loop.optimizer.param_groups]
    loop.run(range(2))
    loop.load(saved)
    assert_equal(loop.attached.balancer.state_dict(), kept)
    assert loop.attached.epoch == 2
    assert [len(g["params"]) for g in loop.optimizer.param_groups] == groups


def test_setting_up_draws_nothing_from_the_loop():
    torch.manual_seed(0)
    loops = [Loop(Plain()), Loop(Uniform(weight=0.0))]
    for loop in loops:
        torch.manual_seed(1)
        loop.run(range(2))
    assert_equal(loops[0].modules.state_dict(), loops[1].modules.state_dict())


@pytest.mark.parametrize("balancer", [Plain(), OGM()])
def test_the_state_of_another_balancer_raises(balancer):
    trained, other = Loop(Uniform()), Loop(balancer)
    trained.run(range(1))
    with pytest.raises(BadConfig, match=f"not of this {type(balancer).__name__}"):
        other.load(trained.save())


def attach(balancer: Balancer, names: list[str]) -> tuple[Attached, Planted]:
    encoders, head = network(2)
    encoders = {s: encoders[s] for s in names}
    return Attached(balancer, encoders, head, optimizer_of(encoders, head)), Planted([3.0, 0.2])


def test_the_state_of_streams_in_another_order_raises():
    one, data = attach(OGM(), ["s0", "s1"])
    one.step({s: one.encoders[s](x) for s, x in data.x.items()}, data.y)
    other, _ = attach(OGM(), ["s1", "s0"])
    with pytest.raises(BadConfig, match="s0, s1, and attached are s1, s0"):
        other.load_state_dict(one.state_dict())


def test_the_order_of_the_features_decides_nothing():
    found = []
    for order in (["s0", "s1"], ["s1", "s0"]):
        attached, data = attach(OGM(), ["s0", "s1"])
        for _ in range(5):
            attached.step({s: attached.encoders[s](data.x[s]) for s in order}, data.y)
        found.append((attached.trace, attached.head.linear.weight))
    assert found[0][0] == found[1][0]
    assert found[0][0]["k.s0"] < 1 == found[0][0]["k.s1"]
    assert torch.equal(found[0][1], found[1][1])


def test_the_order_of_what_is_seen_after_an_epoch_decides_nothing():
    rates = []
    for order in (["s0", "s1"], ["s1", "s0"]):
        attached, data = attach(MSLR(bases={"s0": 0.5}), ["s0", "s1"])
        attached.step({s: attached.encoders[s](x) for s, x in data.x.items()}, data.y)
        attached.epoch_end({"valid": ({s: attached.encoders[s](data.x[s]) for s in order}, data.y)})
        rates.append(attached.balancer.past[-1])
    assert torch.equal(*rates)
    assert rates[0][0] != rates[0][1]


def test_other_names_than_those_of_the_encoders_raise():
    attached, data = attach(Plain(), ["s0", "s1"])
    h = {s: attached.encoders[s](x) for s, x in data.x.items()}
    for wrong in ({"s0": h["s0"]}, h | {"s2": h["s0"]}, {"s0": h["s0"], "video": h["s1"]}, {}):
        with pytest.raises(BadConfig, match="the streams are s0, s1, and given was"):
            attached.step(wrong, data.y)
        with pytest.raises(BadConfig, match="the streams are s0, s1, and given was"):
            attached.epoch_end({"valid": (wrong, data.y)})
