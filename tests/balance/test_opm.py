from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from affuse.balance import OPM
from affuse.balance.attach import Attached
from affuse.balance.opm import drop_rates, keep_some

from .conftest import CLASSES, Planted, network, optimizer_of, train
from .steps import make_step


def ready(rates: list[float], **options: object) -> OPM:
    """An OPM past its warm-up with these drop rates."""
    opm = OPM(**{"warmup": 0, "p_exe": 1.0, **options})
    opm.setup({}, {f"s{i}": 4 for i in range(len(rates))}, CLASSES)
    opm.rates.copy_(torch.tensor(rates))
    return opm


def test_the_closed_form_of_the_rates():
    r = math.tanh(((0.8 / 0.4 + 0.8 / 0.2) / 2) - 1)
    torch.testing.assert_close(
        drop_rates(torch.tensor([0.8, 0.4, 0.2]), 0.5, 0.5)[0], torch.tensor(0.5 * (1 + 0.5 * r))
    )
    assert drop_rates(torch.tensor([0.6, 0.3]), 0.5, 0.5)[1] == 0  # only what leads is dropped


@pytest.mark.parametrize("score", [[0.0, 0.0], [0.0, 0.5], [math.nan, 0.5], [math.nan, math.nan]])
def test_opm_an_accuracy_of_zero_in_all_streams_is_no_nan(score):
    q = drop_rates(torch.tensor(score), 0.5, 0.5)
    assert q.isfinite().all() and (q >= 0).all() and (q <= 1).all()


@pytest.mark.parametrize("faithful", [False, True])
def test_equal_rates_keep_the_mean_of_the_features(faithful):
    torch.manual_seed(0)
    step = make_step(n=20000, streams=3)
    shown = ready([0.4, 0.4, 0.4], faithful=faithful).dropped(step)
    for s, h in step.features.items():
        torch.testing.assert_close(shown.features[s].mean(0), h.mean(0), atol=0.03, rtol=0.03)


def test_equal_rates_keep_the_mean_where_streams_are_absent_too():
    torch.manual_seed(0)
    step = make_step(n=20000, streams=3)
    step.present[:, 2] = torch.rand(20000) < 0.5
    shown = ready([0.6, 0.6, 0.6]).dropped(step)
    there = step.present[:, 2]
    for s, h in step.features.items():
        for rows in (there, ~there):
            if s != "s2" or rows is there:
                torch.testing.assert_close(shown.features[s][rows].mean(0), h[rows].mean(0), atol=0.04, rtol=0.04)


@pytest.mark.parametrize("q", [0.3, 0.9, 1.0])
def test_opm_no_item_loses_all_its_streams(q):
    torch.manual_seed(0)
    step = make_step(n=500, streams=3)
    step.present[:100, 1:] = False
    shown = ready([q, q, q]).dropped(step)
    left = torch.stack([h.abs().sum(1) > 0 for h in shown.features.values()], 1) & step.present
    assert left.any(1).all()
    torch.testing.assert_close(shown.features["s0"][:100], step.features["s0"][:100])  # alone: as it is
    assert all(h.isfinite().all() for h in shown.features.values())


def test_the_draw_is_that_of_repeating_until_one_stays():
    torch.manual_seed(0)
    q = torch.tensor([0.7, 0.2, 0.9])
    keep = keep_some(q.expand(200000, 3))
    draws = torch.rand(400000, 3) >= q
    draws = draws[draws.any(1)]
    code = torch.tensor([1, 2, 4])
    ours, reference = (torch.bincount((d * code).sum(1), minlength=8) / len(d) for d in (keep, draws))
    torch.testing.assert_close(ours, reference, atol=0.004, rtol=0)


def test_opm_faithful_leaves_out_what_has_nothing_left_without_changing_the_batch():
    torch.manual_seed(1)
    step = make_step(n=64, streams=2)
    shown = ready([0.7, 0.7], faithful=True).dropped(step)
    left = (shown.weight > 0).nonzero().squeeze(1)
    assert 0 < len(left) < 64 and len(shown.weight) == 64
    loss, logits = shown.fused()
    torch.testing.assert_close(loss, F.cross_entropy(logits[left], step.target[left]))
    torch.testing.assert_close(shown.weight.sum(), torch.tensor(1.0))


def test_opm_faithful_an_empty_batch_costs_nothing():
    step = make_step(n=4, streams=2)
    torch.manual_seed(0)
    shown = ready([1.0, 1.0], faithful=True).dropped(step)
    assert shown.fused()[0].item() == 0


@pytest.mark.parametrize("options", [{"warmup": 1}, {"rates": [0.0, 0.0]}])
def test_the_warm_up_and_rates_of_zero_draw_nothing(options):
    state = torch.get_rng_state()
    opm = ready(options.pop("rates", [0.5, 0.0]), **options)
    step = make_step(n=8, streams=2)
    torch.set_rng_state(state)
    assert opm.dropped(step) is step
    assert torch.equal(torch.get_rng_state(), state)


def test_p_exe_is_the_share_of_batches():
    torch.manual_seed(0)
    opm, step = ready([0.5, 0.0], p_exe=0.7), make_step(n=4, streams=2)
    assert sum(opm.dropped(step) is not step for _ in range(1000)) / 1000 == pytest.approx(0.7, abs=0.05)


def test_the_stronger_stream_gets_the_rate():
    attached, _ = train(OPM(warmup=1), Planted([3.0, 0.3]), epochs=4)
    assert attached.trace["drop.s0"] > 0.5 and attached.trace["drop.s1"] == 0


def test_opm_a_short_last_batch_weighs_no_less():
    """Scores are means: the same items as one of 96 or as one of 4 give the same rates."""
    data = Planted([2.0, 0.5])
    found = []
    for repeat in (1, 24):
        encoders, head = network(2)
        attached = Attached(OPM(beta=0.0), encoders, head, optimizer_of(encoders, head))
        x = {s: v[:4].repeat(repeat, 1) for s, v in data.x.items()}
        attached.step({s: encoders[s](v) for s, v in x.items()}, data.y[:4].repeat(repeat))
        found.append(attached.trace["drop.s0"] + attached.trace["drop.s1"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
