"""A frame without a label weighs nothing in any objective that trains on labels."""

from __future__ import annotations

import pytest
import torch

from affuse.core import registry
from affuse.core.labels import LabelSpace
from affuse.core.parts import Computed
from affuse.core.tasks import Task
from affuse.core.types import Batch, Fused, Output

SUPERVISED = [
    (name, kind)
    for name, card in registry.cards("objectives").items()
    if not card.get("auxiliary") and "frame" in card.get("resolutions", ["frame"])
    for kind in card["tasks"]
]


@pytest.mark.parametrize(("name", "kind"), SUPERVISED)
def test_logits_of_unlabelled_frames_do_not_matter(name, kind):
    torch.manual_seed(0)
    task = Task("emotion", LabelSpace("custom", ("a", "b", "c"), kind), "frame")
    part = registry.build("objectives", name, task, **registry.resolve("objectives", name, {}, name))
    known = torch.rand(4, 6) > 0.4
    target = torch.randint(0, 3, (4, 6)) if kind == "classes" else torch.rand(4, 6, 3).round()
    batch = Batch((), {}, {}, torch.ones(4, 0), target={"emotion": target}, target_mask={"emotion": known})
    logits = torch.randn(4, 6, 3)
    other = torch.where(known.unsqueeze(-1), logits, torch.randn(4, 6, 3))

    def loss(z: torch.Tensor) -> torch.Tensor:
        output = Output({"emotion": z}, Fused(torch.zeros(4, 1)))
        weights = part.weights(batch)
        assert (weights[known] > 0).all()
        return (part(output, batch, Computed(None, None)) * weights).sum()

    torch.testing.assert_close(loss(logits), loss(other))
    assert not torch.isclose(loss(logits), loss(logits + known.unsqueeze(-1) * torch.randn(3)))
