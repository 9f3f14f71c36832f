"""The loss of labels that may hold together: closed forms, focal factor and weights per item, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from affuse.core.errors import BadConfig
from affuse.core.labels import LabelSpace
from affuse.core.tasks import Task
from affuse.core.types import Batch, Fused, Output
from affuse.objectives.binary_cross_entropy import BinaryCrossEntropy

TASK = Task("emotions", LabelSpace("custom", ("happy", "fear"), "multilabel"))


def loss(logits: Tensor, labels: Tensor, **options) -> Tensor:
    n, known = len(logits), {"emotions": torch.ones(len(logits), dtype=torch.bool)}
    batch = Batch((), {}, {}, torch.ones(n, 1, dtype=torch.bool), target={"emotions": labels}, target_mask=known)
    output = Output({"emotions": logits}, Fused(torch.zeros(n, 1)), {})
    return BinaryCrossEntropy(TASK, **options)(output, batch)


def drawn(n: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, 2, generator=generator), (torch.rand(n, 2, generator=generator) < 0.4).float()


def test_the_closed_form_by_hand():
    """p = 3/4 for a present label, 1/4 for an absent one: both are 1/4 away, their weights 0.9 and 0.1."""
    logits, labels = torch.tensor([[math.log(3), -math.log(3)]]), torch.tensor([[1.0, 0.0]])
    nearly = (1 / 4) ** 2 * math.log(4 / 3)
    assert loss(logits, labels, gamma=2.0, alpha=0.9).item() == pytest.approx((0.9 + 0.1) * nearly / 2)
    # the same answers for the opposite labels
    far = (3 / 4) ** 2 * math.log(4)
    assert loss(logits, 1 - labels, gamma=2.0, alpha=0.9).item() == pytest.approx((0.1 + 0.9) * far / 2)
    present = torch.ones(1, 2)
    wanted = 0.9 * (nearly + far) / 2
    assert loss(logits, present, gamma=2.0, alpha=0.9).item() == pytest.approx(wanted)


def test_no_gamma_and_no_alpha_is_binary_cross_entropy():
    logits, labels = drawn()
    wanted = binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)
    torch.testing.assert_close(loss(logits, labels), wanted)
    torch.testing.assert_close(loss(logits, labels, alpha=0.5), wanted / 2)


def test_the_focal_factor_is_per_item_and_label_never_per_batch():
    """Published defect: the factor came from the mean loss of the batch, (1 - exp(-mean))^2 mean."""
    logits, labels = drawn(2)
    both = loss(logits, labels, gamma=2.0)
    alone = [loss(logits[i : i + 1], labels[i : i + 1], gamma=2.0) for i in range(2)]
    torch.testing.assert_close(both, torch.cat(alone))
    mean = binary_cross_entropy_with_logits(logits, labels)
    assert abs(both.mean() - (1 - (-mean).exp()) ** 2 * mean) > 0.01


@pytest.mark.parametrize("alpha", [0.01, 0.25, 0.99])
def test_no_weight_is_negative_so_that_a_false_positive_never_pays(alpha):
    """Published defect: balanced weights above 1 as alpha, so that 1 - alpha rewarded false positives."""
    labels, low, high = torch.zeros(1, 2), torch.full((1, 2), -3.0), torch.full((1, 2), 3.0)
    assert loss(high, labels, gamma=2.0, alpha=alpha) > loss(low, labels, gamma=2.0, alpha=alpha) > 0


def test_certain_wrong_answers_have_finite_gradients():
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss(logits, torch.tensor([[0.0, 1.0]]), gamma=2.0, alpha=0.25).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad != 0).all()


def test_an_unknown_label_counts_nothing():
    logits, labels = drawn(3)
    labels[:, 1] = float("nan")
    wanted = loss(logits[:, :1].expand(3, 2), labels[:, :1].expand(3, 2), gamma=2.0, alpha=0.3)
    torch.testing.assert_close(loss(logits, labels, gamma=2.0, alpha=0.3), wanted)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5, -0.1, float("nan")])
def test_an_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(BadConfig, match=r"alpha = (.|\n)*between 0 and 1"):
        BinaryCrossEntropy(TASK, alpha=alpha)


def test_two_ways_to_weigh_present_labels_are_refused():
    with pytest.raises(BadConfig, match=r"positive_weight = 'balanced'(.|\n)*leave one of them out"):
        BinaryCrossEntropy(TASK, alpha=0.25, positive_weight="balanced")
