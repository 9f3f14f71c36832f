from __future__ import annotations

import pytest
import torch
from tests.objectives.test_objectives import TASK, output, setup
from tests.training.test_loop import RECIPE, make_trainer
from torch import nn

from affuse.core import io
from affuse.core.errors import BadConfig
from affuse.objectives.self_distillation import SelfDistillation


def heads(n=10, classes=4):
    return {s: {"emotion": torch.randn(n, classes, requires_grad=True)} for s in ("vectors", "words")}


@pytest.mark.parametrize("temperature", [1.0, 8.0])
def test_mean_divergence_of_the_present_streams(temperature):
    batch, logits = setup()
    batch.present[3], batch.present[4] = torch.tensor([True, False]), torch.tensor([False, False])
    each = heads()
    found = SelfDistillation(TASK, temperature=temperature)(output(logits, each), batch)
    teacher = (logits / temperature).softmax(-1)
    log_p = ((h["emotion"] / temperature).log_softmax(-1) for h in each.values())
    one, two = (nn.functional.kl_div(own, teacher, reduction="none").sum(-1) for own in log_p)
    expected = (one + two) / 2
    expected = torch.cat([expected[:3], one[3:4], torch.zeros(1), expected[5:]])
    torch.testing.assert_close(found, expected)


def test_the_teacher_is_not_taught():
    """Published defect: the fused answer was drawn to the weakest stream."""
    batch, logits = setup()
    logits.requires_grad_()
    each = heads()
    SelfDistillation(TASK)(output(logits, each), batch).sum().backward()
    assert logits.grad is None
    assert all(h["emotion"].grad.any() for h in each.values())


def test_agreement_costs_nothing_and_unlabelled_items_do_not_count():
    batch, logits = setup()
    same = {s: {"emotion": logits.clone()} for s in ("vectors", "words")}
    objective = SelfDistillation(TASK, temperature=3.0)
    torch.testing.assert_close(objective(output(logits, same), batch), torch.zeros(10), atol=1e-6, rtol=0)
    batch.target_mask["emotion"][2] = False
    batch.present[5] = False
    weights = objective.weights(batch)
    assert weights[[2, 5]].tolist() == [0, 0]
    assert weights.sum() == 8


def test_it_trains_alone_because_it_asks_for_the_streams_heads(vector_corpus, tmp_path, monkeypatch):
    """It raised an error where nothing else asked for them."""
    monkeypatch.setitem(RECIPE, "objectives", {"focal": {}, "self_distillation": {}})
    trainer = make_trainer(vector_corpus, tmp_path)
    assert set(trainer.model.stream_heads) == {s.name for s in trainer.model.streams}
    before = {k: v.clone() for k, v in trainer.model.stream_heads.state_dict().items()}
    trainer.run()
    assert all(not torch.equal(v, before[k]) for k, v in trainer.model.stream_heads.state_dict().items())
    assert all(row["terms"]["self_distillation"] > 0 for row in io.read_jsonl(tmp_path / "metrics.jsonl"))


def test_misuse_is_refused():
    with pytest.raises(BadConfig, match="temperature=0"):
        SelfDistillation(TASK, temperature=0)
