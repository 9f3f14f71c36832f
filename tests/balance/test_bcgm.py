from __future__ import annotations

import pytest
import torch

from affuse.balance import BCGM, CGGM, OPM
from affuse.balance.attach import Attached
from affuse.balance.balancer import Control
from affuse.core.errors import BadConfig

from .conftest import CLASSES, Planted, network, optimizer_of, train
from .steps import make_step


def ready(**options: object) -> BCGM:
    bcgm = BCGM(**{"warmup": 0, "p_exe": 1.0, **options})
    bcgm.setup({}, {"s0": 4, "s1": 4}, CLASSES)
    return bcgm


def test_its_options_are_those_of_its_parts():
    from affuse.core.registry import schema

    assert schema(BCGM) == schema(OPM) | schema(CGGM)


def test_without_drops_it_is_cggm():
    bcgm, cggm = ready(q=0.0), CGGM()
    cggm.setup({}, {"s0": 4, "s1": 4}, CLASSES)
    step = make_step(16, 2)
    for _ in range(3):
        assert torch.equal(bcgm.loss(step), cggm.loss(step))
        for balancer in (bcgm, cggm):
            layers = {s: list(torch.nn.Linear(2, 2).parameters()) for s in step.streams}
            optimizer = torch.optim.SGD([p for ps in layers.values() for p in ps], 0.1)
            balancer.gradients(Control(layers, optimizer))
            torch.nn.init.constant_(balancer.get_parameter(next(n for n, _ in balancer.named_parameters())), 0.2)
    assert torch.equal(bcgm.cggm.magnitude, cggm.magnitude)


def test_the_guides_see_what_is_dropped():
    torch.manual_seed(0)
    bcgm, step = ready(lam=0.0), make_step(16, 2)
    bcgm.opm.rates.copy_(torch.tensor([0.9, 0.0]))
    bcgm.loss(step).backward()
    alone = ready(lam=0.0)
    alone.loss(make_step(16, 2)).backward()
    for a, b in zip(bcgm.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    assert (step.features["s0"].grad == 0).all(1).any()  # the model does not


def test_the_stronger_stream_is_dropped_and_both_traces_are_there():
    attached, _ = train(BCGM(warmup=1), Planted([3.0, 0.2]), epochs=4)
    assert attached.trace["drop.s0"] > 0.5 and attached.trace["drop.s1"] == 0
    assert {"k.s0", "k.s1", "score.s0"} <= set(attached.trace)


@pytest.mark.parametrize("kind", [CGGM, BCGM])
@pytest.mark.parametrize("apply", ["auto", "grad"])
def test_faithful_multipliers_are_clipped_whatever_the_optimiser(kind, apply):
    """B has no bound: as a factor of Adam's rate, after clipping, it took weights to 4e11; Adam bounds gradients."""
    data = Planted([2.0, 1.0, 0.5])
    torch.manual_seed(0)
    encoders, head = network(3)
    options = {"warmup": 0, "p_exe": 1.0} if kind is BCGM else {}
    optimizer = optimizer_of(encoders, head, "adam", lr=0.1)
    attached = Attached(kind(**options, faithful=True, beta=0.0), encoders, head, optimizer, apply=apply, clip=0.8)
    trained = [p for m in [*encoders.values(), head] for p in m.parameters()]
    largest, furthest = 0.0, 0.0
    for _ in range(300):
        before = [p.detach().clone() for p in trained]
        some = torch.randperm(96)[:32]
        attached.step({s: encoders[s](x[some]) for s, x in data.x.items()}, data.y[some])
        largest = max(largest, *(abs(k) for what, k in attached.trace.items() if what.startswith("k.")))
        furthest = max(furthest, *(float((p.detach() - b).abs().max()) for p, b in zip(trained, before, strict=True)))
    assert largest > 20  # there was something to bound
    assert furthest < 4 * 0.01  # (1 - 0.9) / sqrt(1 - 0.999) = 3.2 times the rate


@pytest.mark.parametrize("kind", [CGGM, BCGM])
def test_faithful_multipliers_of_rates_are_refused_with_the_remedy(kind):
    encoders, head = network(2)
    with pytest.raises(BadConfig, match=r"balance.apply=lr[^$]*set balance.apply=grad"):
        Attached(kind(faithful=True), encoders, head, optimizer_of(encoders, head, "adam"), apply="lr")
