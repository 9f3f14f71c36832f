from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from affuse.balance import PMR
from affuse.balance.balancer import Control, Epoch
from affuse.balance.pmr import distances, lags
from affuse.core.errors import BadConfig

from .conftest import CLASSES, Planted, train
from .steps import make_step


def epoch(pmr: PMR, *steps, number: int = 0) -> None:
    """An epoch of these steps, of which the weights learn nothing."""
    layers = {s: list(torch.nn.Linear(1, 1).parameters()) for s in steps[0].streams}
    control = Control(layers, torch.optim.SGD([p for ps in layers.values() for p in ps], 0.1))
    for step in steps:
        pmr.loss(step)
        pmr.gradients(control)
    pmr.epoch_end(Epoch(number, 2, {}, lambda split: None))


def ready(**options: object) -> PMR:
    pmr = PMR(**options)
    pmr.setup({}, {"s0": 4, "s1": 4}, CLASSES)
    return pmr


def test_prototypes_are_class_means_of_the_items_that_have_the_stream():
    step, pmr = make_step(40, 2), ready()
    step.present[:13, 1] = False
    epoch(pmr, step)
    for c in range(CLASSES):
        of_class = step.target == c
        torch.testing.assert_close(pmr.prototypes[c, :4], step.features["s0"][of_class].mean(0))
        torch.testing.assert_close(pmr.prototypes[c, 4:], step.features["s1"][of_class & step.present[:, 1]].mean(0))


def test_pmr_all_items_of_the_epoch_count_not_a_tenth():
    step, pieces, whole = make_step(40, 2), ready(), ready()
    epoch(whole, step)
    parts = [make_step(40, 2) for _ in range(4)]
    for i, part in enumerate(parts):
        part.weight.mul_((torch.arange(40) // 10 == i).float())
    epoch(pieces, *parts)
    torch.testing.assert_close(pieces.prototypes, whole.prototypes)


def test_momentum_keeps_a_share_of_the_old_prototypes():
    step, pmr = make_step(40, 2), ready(momentum=0.25)
    epoch(pmr, step)
    first = pmr.prototypes.clone()
    moved = replace(step, features={s: h + 1 for s, h in step.features.items()})
    epoch(pmr, moved, number=1)
    torch.testing.assert_close(pmr.prototypes, 0.25 * first + 0.75 * (first + 1))


def test_pmr_distances_equal_the_double_loop_and_have_a_gradient_where_they_are_zero():
    prototypes = torch.randn(CLASSES, 4)
    h = torch.cat([prototypes[:1], torch.randn(40, 4)]).requires_grad_()
    by_hand = torch.stack([torch.stack([(x - p).norm() for p in prototypes]) for x in h])
    torch.testing.assert_close(distances(h, prototypes), by_hand)
    distances(h, prototypes).sum().backward()
    assert h.grad.isfinite().all()


def test_pmr_distances_of_features_far_from_the_origin_do_not_cancel():
    prototypes = 1000 + torch.randn(CLASSES, 4)
    h = prototypes[:1].repeat(40, 1) + 0.25
    torch.testing.assert_close(distances(h, prototypes)[:, 0], torch.full((40,), 0.5), atol=1e-3, rtol=0)


def test_the_weights_are_clipped_and_zero_at_balance():
    slow, fast = lags(torch.tensor([0.6, 0.4]))
    torch.testing.assert_close(slow, torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(fast, torch.tensor([0.5, 0.0]))
    assert lags(torch.tensor([0.9, 0.1]))[0].tolist() == [0.0, 1.0]
    assert lags(torch.tensor([0.5, 0.5]))[0].tolist() == [0.0, 0.0]
    for score in ([float("nan"), 0.5], [0.0, 0.0], [0.0, 0.5]):
        assert all(x.isfinite().all() for x in lags(torch.tensor(score)))


def test_the_loss_of_a_hand_example():
    step, pmr = make_step(40, 2), ready(alpha=2.0, mu=0.3)
    epoch(pmr, step)
    pmr.scores.value.copy_(torch.tensor([0.6, 0.4]))
    z = {s: -distances(h, pmr.prototypes[:, 4 * i : 4 * i + 4]) for i, (s, h) in enumerate(step.features.items())}
    own = torch.nn.functional.cross_entropy(z["s1"], step.target)
    entropy = torch.distributions.Categorical(logits=z["s0"]).entropy().mean()
    torch.testing.assert_close(pmr.loss(step), step.fused()[0] + 2.0 * 0.5 * own - 0.3 * 0.5 * entropy)
    later = type(step)(**{**vars(step), "epoch": 10})
    torch.testing.assert_close(pmr.loss(later), step.fused()[0] + 2.0 * 0.5 * own)


def test_the_first_epoch_is_plain():
    step = make_step(16, 2)
    assert torch.equal(ready().loss(step), step.fused()[0])


def test_a_class_without_items_is_far_away_and_costs_nothing():
    step, pmr = make_step(40, 2), ready()
    few = make_step(40, 2, target=step.target.clamp_max(CLASSES - 2))
    epoch(pmr, few)
    pmr.scores.value.copy_(torch.tensor([0.6, 0.4]))
    loss = pmr.loss(step)  # has the class now
    loss.backward()
    assert loss.item() < 10 and all(h.grad.isfinite().all() for h in step.features.values())


def test_soft_labels_share_an_item_among_classes():
    soft = torch.rand(40, CLASSES).softmax(1)
    step, pmr = make_step(40, 2, target=soft), ready()
    epoch(pmr, step)
    mean = (soft.T @ step.features["s0"]) / soft.sum(0)[:, None]
    torch.testing.assert_close(pmr.prototypes[:, :4], mean)


def test_values_raise():
    with pytest.raises(BadConfig, match=r"pmr.*values"):
        ready().loss(make_step(8, 2, target=torch.randn(8, 1)))


def test_the_slower_stream_is_pulled():
    attached, _ = train(PMR(), Planted([3.0, 0.3]), epochs=4)
    assert attached.trace["slow.s1"] > 0 == attached.trace["slow.s0"]
