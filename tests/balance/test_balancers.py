"""Properties that every registered balancer must have; a new one is tested without writing a test."""

from __future__ import annotations

import pytest
import torch

from affuse.balance.attach import Attached
from affuse.balance.balancer import Balancer
from affuse.core import registry

from .conftest import Planted, network, optimizer_of, train

NAMES = list(registry.cards("balancers"))
# What draws by chance, or takes the streams in their order, has that in its card.
FAIR = [n for n, card in registry.cards("balancers").items() if not card.get("random") and not card.get("ordered")]

# So that every part of a method has had its turn within three epochs.
EAGER = {
    "relearning": {"every": 1},
    "g_blending": {"every": 1},
    "mses": {"patience": 1},
    "reconboost": {"stage": 1, "rectify": 0},
}


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
    attached = Attached(balancer, encoders, head, optimizer_of(encoders, head))
    attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y, data.x)
    before = {n: p.detach().clone() for n, p in balancer.named_parameters() if p.requires_grad}
    for _ in range(3):
        attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y, data.x)
    unmoved = [n for n, p in balancer.named_parameters() if p.requires_grad and torch.equal(p, before[n])]
    assert not unmoved


@pytest.mark.parametrize("name", FAIR)
def test_permuting_the_streams_permutes_what_is_done_to_them(name):
    """The same training from the same weights, the streams in another order: the same traces and weights, by stream."""
    found = []
    for order in (["s0", "s1", "s2"], ["s2", "s1", "s0"]):
        data, (encoders, head) = Planted([2.0, 0.5, 1.0]), network(3)
        data.x = {s: data.x[s] for s in order}
        with torch.no_grad():
            blocks = dict(zip(("s0", "s1", "s2"), head.linear.weight.clone().split(8, dim=1), strict=True))
            head.linear.weight.copy_(torch.cat([blocks[s] for s in order], 1))
        attached = trained_on(make(name, **EAGER.get(name, {})), data, {s: encoders[s] for s in order}, head)
        found.append((attached.trace, [p for s in sorted(order) for p in encoders[s].parameters()]))
    (one, weights), (two, others) = found
    assert two == pytest.approx(one, rel=1e-3, abs=1e-4, nan_ok=True)
    for p, q in zip(weights, others, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)


def trained_on(balancer: Balancer, data: Planted, encoders, head, epochs: int = 3) -> Attached:
    """The balancer after some epochs over the data in order; what needs held-out data gets half of it."""
    attached = Attached(balancer, encoders, head, optimizer_of(encoders, head), epochs=epochs)
    for _ in range(epochs):
        for start in range(0, len(data.y), 32):
            x = {s: v[start : start + 32] for s, v in data.x.items()}
            attached.step({s: encoders[s](v) for s, v in x.items()}, data.y[start : start + 32], x)
        with torch.no_grad():
            seen = {s: encoders[s](v) for s, v in data.x.items()}
        attached.epoch_end({"train": (seen, data.y), "valid": ({s: h[::2] for s, h in seen.items()}, data.y[::2])})
    return attached


@pytest.mark.parametrize("name", FAIR)
def test_equal_streams_are_treated_equally(name):
    """Two encoders with the same weights and inputs, read by the same columns of the head, stay the same."""
    data = Planted([1.0, 1.0])
    data.x["s1"] = data.x["s0"]
    encoders, head = network(2)
    encoders["s1"].load_state_dict(encoders["s0"].state_dict())
    with torch.no_grad():
        head.linear.weight[:, 8:] = head.linear.weight[:, :8]
    attached = trained_on(make(name, **EAGER.get(name, {})), data, encoders, head)
    for a, b in zip(encoders["s0"].parameters(), encoders["s1"].parameters(), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(*head.linear.weight.split(8, dim=1))
    for key in [k for k in attached.trace if k.endswith(".s0")]:
        assert attached.trace[key] == pytest.approx(attached.trace[key[:-1] + "1"], abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_terms_add_up_to_the_loss(name):
    torch.manual_seed(0)
    data, (encoders, head) = Planted([2.0, 1.0]), network(2)
    attached = Attached(make(name, **EAGER.get(name, {})), encoders, head, optimizer_of(encoders, head), epochs=4)
    for _ in range(4):
        loss = attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y, data.x)
        assert float(sum(attached.terms.values())) == pytest.approx(float(loss), rel=1e-5)
        assert all(t == "task" or t.startswith("balance.") for t in attached.terms)
        whole = ({s: encoders[s](x).detach() for s, x in data.x.items()}, data.y)
        attached.epoch_end({"train": whole, "valid": whole})
