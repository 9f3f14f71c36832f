from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from affuse.balance import LFM
from affuse.balance.attach import Attached
from affuse.balance.lfm import divergence, variance

from .conftest import Planted, network, optimizer_of
from .test_mslr import started


def test_lfm_the_divergence_is_jensen_shannon_and_not_its_mirror():
    """The published code passes kl_div's arguments the other way round, KL(mean || p)."""
    from scipy.spatial.distance import jensenshannon

    torch.manual_seed(0)
    logits = 3 * torch.randn(2, 20, 5)
    p = logits.softmax(2).numpy()
    found = divergence(logits, torch.ones(2, 20, dtype=torch.bool)).numpy()
    np.testing.assert_allclose(found, jensenshannon(p[0], p[1], axis=1) ** 2, rtol=1e-4, atol=1e-7)
    mean = p.mean(0)
    mirror = 0.5 * (mean * np.log(mean / p[0])).sum(1) + 0.5 * (mean * np.log(mean / p[1])).sum(1)
    assert np.abs(found - mirror).max() > 0.1


def test_of_many_streams_it_is_the_entropy_of_the_mean_less_the_mean_entropy():
    torch.manual_seed(0)
    logits = torch.randn(4, 6, 3)
    p = logits.softmax(2)
    entropy = -(p * p.log()).sum(2).mean(0)
    mean = -(p.mean(0) * p.mean(0).log()).sum(1)
    torch.testing.assert_close(divergence(logits, torch.ones(4, 6, dtype=torch.bool)), mean - entropy)


@pytest.mark.parametrize("apart", [divergence, variance])
def test_absent_streams_count_for_nothing(apart):
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 5, requires_grad=True)
    present = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 0]], dtype=torch.bool)
    found = apart(logits, present)
    torch.testing.assert_close(found[0], apart(logits[:2, :1], torch.ones(2, 1, dtype=torch.bool))[0])
    assert found[1].item() == pytest.approx(0, abs=1e-6) and found[3].item() == 0
    found.sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[~present].abs().max() == 0


def test_certain_and_opposite_predictions_are_log_two_apart_with_a_finite_gradient():
    logits = torch.tensor([[[500.0, -500.0]], [[-500.0, 500.0]]], requires_grad=True)
    found = divergence(logits, torch.ones(2, 1, dtype=torch.bool))
    assert found.item() == pytest.approx(math.log(2))
    found.backward()
    assert logits.grad.isfinite().all()


def test_the_task_counts_more_from_epoch_to_epoch_up_to_all():
    a = [LFM(first=0.2).share(e, 11) for e in range(11)]
    assert a[0] == pytest.approx(0.2) and a[5] == pytest.approx(0.6) and a[10] == 1
    assert all(x < y for x, y in zip(a, a[1:], strict=False))
    assert LFM().share(0, 1) == pytest.approx(0.2)


def test_the_loss_is_the_papers():
    data = Planted([2.0, 1.0])
    balancer = LFM(first=0.2)
    attached, _, h = started(balancer, data)
    step = replace(attached._step(h, data.y, None, 0), epoch=3, epochs=5)
    a, off = balancer.share(3, 5), {s: 0 * x for s, x in h.items()}
    p = [attached.head(off | {s: h[s]}).softmax(1) for s in h]
    mean = sum(p) / 2
    js = sum(F.kl_div(mean.log(), q, reduction="batchmean") for q in p) / 2
    expected = 2 * (a * F.cross_entropy(attached.head(h), data.y) + (1 - a) * js)
    torch.testing.assert_close(balancer.loss(step), expected)


def test_values_are_drawn_together_by_their_variance():
    data = Planted([2.0, 1.0])
    encoders, head = network(2)
    target = torch.randn(96, 4)
    balancer = LFM()
    attached = Attached(balancer, encoders, head, optimizer_of(encoders, head), loss=F.l1_loss, epochs=2)
    loss = attached.step({s: encoders[s](x) for s, x in data.x.items()}, target)
    assert loss.isfinite()
    values = torch.tensor([[[1.0]], [[2.0]], [[6.0]]])
    assert float(variance(values, torch.ones(3, 1, dtype=torch.bool))) == pytest.approx(float(np.var([1, 2, 6])))
