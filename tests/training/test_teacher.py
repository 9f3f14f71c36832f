from __future__ import annotations

import pytest
import torch

from affuse.core.labels import SPACES
from affuse.training.teacher import Teacher
from tests.parts import CANDIDATES, make_model, random_batch

STREAMS = (CANDIDATES[1], CANDIDATES[4])


def model():
    return make_model(STREAMS, {s.name: "mlp" for s in STREAMS}, "gated", SPACES["iemocap-4"]).train()


def test_it_follows_the_model_without_gradient_in_evaluation_mode():
    trained = model()
    teacher = Teacher(trained, 0.9, "constant")
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    with torch.no_grad():
        for p in trained.parameters():
            p.add_(1)
        for b in trained.buffers():
            b.add_(1)
    teacher.update()
    names = {n for n, _ in trained.named_parameters()}
    for name, value in teacher.state_dict().items():
        step = 0.1 if name in names else 1.0
        torch.testing.assert_close(value, before[name] + step)
    assert not any(p.requires_grad for p in teacher.model.parameters())
    trained.train()
    assert not teacher.model.training and not any(m.training for m in teacher.model.modules())
    taught = teacher.taught(random_batch(STREAMS, 3, 4))
    assert not taught.output.logits["emotion"].requires_grad
    assert set(taught.encoded.pooled) == {s.name for s in STREAMS}
    assert not any(h.requires_grad for h in taught.encoded.pooled.values())


@pytest.mark.parametrize(
    ("schedule", "expected"), [("constant", [0.9, 0.9]), ("warm", [0.1, 2 / 11]), ("cosine", [0.9, 0.95])]
)
def test_momentum_by_schedule(schedule, expected):
    teacher = Teacher(model(), 0.9, schedule, steps=2)
    found = []
    for _ in expected:
        found.append(teacher.keep)
        teacher.steps += 1
    assert found == pytest.approx(expected)
    if schedule == "cosine":
        assert teacher.keep == pytest.approx(1.0)
