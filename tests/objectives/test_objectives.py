from __future__ import annotations

import pytest
import torch
from tests.parts import CANDIDATES, encoded_of, random_batch
from torch import nn

from affuse.core.errors import BadConfig
from affuse.core.labels import LabelSpace
from affuse.core.parts import Computed
from affuse.core.tasks import Task
from affuse.core.types import Fused, Output
from affuse.objectives.consistency import Consistency
from affuse.objectives.cross_entropy import CrossEntropy, class_weights
from affuse.objectives.focal import Focal
from affuse.objectives.l1 import L1

STREAMS = (CANDIDATES[1], CANDIDATES[4])
TASK = Task("emotion", LabelSpace("custom", ("a", "b", "c", "d")))
VALUES = Task("emotion", LabelSpace("custom", ("valence", "arousal"), "values"))


def setup(n=10, classes=4, seed=0):
    torch.manual_seed(seed)
    batch = random_batch(STREAMS, n, classes)
    return batch, torch.randn(n, classes)


def output(logits, unimodal=None):
    return Output({"emotion": logits}, Fused(torch.zeros(len(logits), 1)), unimodal or {})


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_torch(smoothing):
    batch, logits = setup()
    weight = torch.tensor([1.0, 2.0, 0.5, 1.0])
    objective = CrossEntropy(TASK, smoothing=smoothing)
    wanted = nn.functional.cross_entropy(logits, batch.target["emotion"], label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(objective(output(logits), batch), wanted)
    objective.class_weight.copy_(weight)
    ours = (objective(output(logits), batch) * objective.weights(batch)).sum() / objective.weights(batch).sum()
    if smoothing == 0:
        torch.testing.assert_close(ours, nn.functional.cross_entropy(logits, batch.target["emotion"], weight=weight))


def test_soft_labels_are_expected_losses():
    batch, logits = setup()
    soft = torch.rand(10, 4).softmax(-1)
    batch.target["emotion"] = soft
    wanted = nn.functional.cross_entropy(logits, soft, reduction="none")
    torch.testing.assert_close(CrossEntropy(TASK)(output(logits), batch), wanted)


def test_focal_without_gamma_is_cross_entropy():
    batch, logits = setup()
    torch.testing.assert_close(Focal(TASK, gamma=0.0)(output(logits), batch), CrossEntropy(TASK)(output(logits), batch))


def test_focal_factor_is_per_item_never_per_batch():
    """Published defect: the factor was computed from the batch's mean loss."""
    batch, logits = setup()
    alone = [Focal(TASK)(output(logits[i : i + 1]), _row(batch, i)) for i in range(10)]
    torch.testing.assert_close(Focal(TASK)(output(logits), batch), torch.cat(alone))
    p = logits.softmax(-1).gather(1, batch.target["emotion"][:, None]).squeeze(1)
    torch.testing.assert_close(Focal(TASK, gamma=2.0)(output(logits), batch), -((1 - p) ** 2) * p.log())


def _row(batch, i):
    from dataclasses import replace

    rows = slice(i, i + 1)
    target, known = ({"emotion": d["emotion"][rows]} for d in (batch.target, batch.target_mask))
    return replace(batch, target=target, target_mask=known, present=batch.present[rows])


def test_focal_gradient_is_finite_for_certain_items():
    batch, _ = setup()
    logits = (1000 * nn.functional.one_hot(batch.target["emotion"], 4).float()).requires_grad_()
    Focal(TASK)(output(logits), batch).sum().backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("kind", ["balanced", "effective"])
def test_class_weights_lift_rare_classes_and_keep_the_mean(kind):
    count = torch.tensor([80.0, 15.0, 5.0, 0.0])
    weights = class_weights(count, kind)
    assert weights[0] < weights[1] < weights[2]
    assert weights[3] == 0
    assert (weights * count).sum() / count.sum() == pytest.approx(1)
    if kind == "balanced":
        torch.testing.assert_close(weights[:3] * count[:3], torch.full((3,), 100 / 3))


def test_unimodal_terms_count_present_streams_only():
    batch, logits = setup()
    batch.present[3] = torch.tensor([True, False])
    heads = {"vectors": {"emotion": torch.randn(10, 4)}, "words": {"emotion": torch.randn(10, 4)}}
    plain, both = CrossEntropy(TASK), CrossEntropy(TASK, unimodal=0.5)
    gap = both(output(logits, heads), batch) - plain(output(logits), batch)
    one, two = (plain(output(h["emotion"]), batch) for h in heads.values())
    torch.testing.assert_close(gap[3], 0.5 * one[3])
    torch.testing.assert_close(gap[0], 0.25 * (one[0] + two[0]))


def test_logit_adjustment_adds_the_log_of_the_classes_shares():
    batch, logits = setup()
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    for kind in (CrossEntropy, Focal):
        plain, adjusted = kind(TASK), kind(TASK, logit_adjustment=1.0)
        adjusted.fit(labels)
        prior = torch.tensor([0.6, 0.3, 0.1, 1.0]).log()  # the fourth class was never seen
        torch.testing.assert_close(adjusted(output(logits), batch), plain(output(logits + prior), batch))


def test_views_that_agree_cost_what_sharpening_asks_for():
    batch, logits = setup()
    objective = Consistency(TASK, temperature=1.0)
    views = [output(logits), output(logits)]
    computed = Computed(nn.Identity(), encoded_of({}, batch.present), views=views)
    torch.testing.assert_close(objective(views[0], batch, computed), torch.zeros(10))
    views[1].logits["emotion"] = logits.flip(1)
    p, q = logits.softmax(1), logits.flip(1).softmax(1)
    torch.testing.assert_close(objective(views[0], batch, computed), ((p - q) / 2).square().sum(1))
    batch.present[2] = False
    assert objective.weights(batch)[2] == 0
    with pytest.raises(BadConfig, match="views"):
        Consistency(TASK, views=1)


def test_l1():
    batch, _ = setup(3)
    batch.target["emotion"] = torch.tensor([[1.0, 2.0], [0.0, 0.0], [float("nan"), 1.0]])
    batch.target_mask["emotion"] = torch.tensor([True, True, False])
    loss = L1(VALUES)(output(torch.tensor([[2.0, 2.0], [1.0, 3.0], [0.0, 0.0]])), batch)
    assert loss[:2].tolist() == [0.5, 2.0]
    assert L1(VALUES).weights(batch).tolist() == [1, 1, 0]
