"""Properties that every registered balancer must have; a new one is tested without writing a test."""

from __future__ import annotations

import pytest
import torch

from affuse.balance.balancer import Balancer
from affuse.core import registry

from .conftest import Planted, network, optimizer_of, train

NAMES = list(registry.cards("balancers"))
# What draws by chance, or takes the streams in their order, says so in its card.
FAIR = [n for n, card in registry.cards("balancers").items() if not card.get("random") and not card.get("ordered")]


def make(name: str, **options: object) -> Balancer:
    return registry.build("balancers", name, **options)  # type: ignore[no-any-return]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("streams", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_learns_the_planted_task_with_finite_weights(name, streams, optimizer):
    data = Planted([2.0, 1.0, 1.0][:streams], n=192)
    attached, encoders = train(make(name), data, epochs=12, optimizer=optimizer)
    with torch.no_grad():
        logits = attached.head({s: encoders[s](x) for s, x in data.x.items()})
    assert all(p.isfinite().all() for e in encoders.values() for p in e.parameters())
    assert (logits.argmax(1) == data.y).float().mean() > 0.6  # chance is 0.25


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_of_its_own_is_trained(name):
    balancer = make(name)
    data = Planted([2.0, 1.0])
    encoders, head = network(2)
    attached = balancer.attach(encoders, head, optimizer_of(encoders, head))
    attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y, data.x)
    before = {n: p.detach().clone() for n, p in balancer.named_parameters() if p.requires_grad}
    for _ in range(3):
        attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y, data.x)
    unmoved = [n for n, p in balancer.named_parameters() if p.requires_grad and torch.equal(p, before[n])]
    assert not unmoved


@pytest.mark.parametrize("name", FAIR)
def test_permuting_the_streams_permutes_what_is_done_to_them(name):
    data = Planted([2.0, 0.5, 1.0])
    one, _ = train(make(name), data, epochs=2)
    back = Planted([2.0, 0.5, 1.0])
    back.x = dict(reversed(back.x.items()))
    torch.manual_seed(0)
    two = _trained_as(make(name), back, one)
    assert one.trace.keys() == two.keys()
    for key, value in one.trace.items():
        assert two[key] == pytest.approx(value, rel=1e-3, abs=1e-4), key


def _trained_as(balancer: Balancer, data: Planted, like) -> dict[str, float]:
    """The trace after the same training with the streams in another order, from the same weights."""
    encoders, head = network(3)
    width = 8
    with torch.no_grad():
        blocks = head.linear.weight.clone().split(width, dim=1)
        head.linear.weight.copy_(torch.cat(list(reversed(blocks)), 1))
    encoders = {s: encoders[s] for s in data.x}
    attached = balancer.attach(encoders, head, optimizer_of(encoders, head), epochs=2)
    for _ in range(2):
        for start in range(0, len(data.y), 32):
            x = {s: v[start : start + 32] for s, v in data.x.items()}
            attached.step({s: encoders[s](v) for s, v in x.items()}, data.y[start : start + 32], x)
        with torch.no_grad():
            whole = ({s: encoders[s](v) for s, v in data.x.items()}, data.y)
        attached.epoch_end({"train": whole, "valid": whole})
    return attached.trace


@pytest.mark.parametrize("name", FAIR)
def test_equal_streams_are_treated_equally(name):
    data = Planted([1.0, 1.0])
    data.x["s1"] = data.x["s0"]
    torch.manual_seed(0)
    encoders, head = network(2)
    encoders["s1"].load_state_dict(encoders["s0"].state_dict())
    with torch.no_grad():
        head.linear.weight[:, 8:] = head.linear.weight[:, :8]
    balancer = make(name)
    attached = balancer.attach(encoders, head, optimizer_of(encoders, head))
    attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y, data.x)
    for key in [k for k in attached.trace if k.startswith("k.") and k.endswith("s0")]:
        assert attached.trace[key] == pytest.approx(attached.trace[key[:-1] + "1"], abs=0.05)
