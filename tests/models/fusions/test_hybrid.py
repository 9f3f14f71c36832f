"""Hybrid fusion: heads on what is fused and heads per stream, under contexts too."""

from __future__ import annotations

import pytest
import torch
from tests.parts import CANDIDATES, random_batch

from affuse.core import registry
from affuse.core.errors import BadConfig
from affuse.core.labels import SPACES
from affuse.core.parts import Part
from affuse.core.tasks import Task
from affuse.models.build import Architecture
from affuse.models.fusions.hybrid import Hybrid
from affuse.models.model import Model

STREAMS = (CANDIDATES[1], CANDIDATES[3], CANDIDATES[4])
SPACE = SPACES["iemocap-4"]


def make(how="concat", context=(), **options):
    torch.manual_seed(0)
    encoder = Part("mlp", registry.resolve("encoders", "mlp", {}, "mlp"))
    fusion = Part("hybrid", registry.resolve("fusions", "hybrid", {"how": how, **options}, "fusion"))
    parts = Architecture({s.name: encoder for s in STREAMS}, fusion, tuple(context))
    return Model(parts, STREAMS, {"emotion": Task("emotion", SPACE)}).eval()


def lacking(n=6):
    batch = random_batch(STREAMS, n, len(SPACE))
    batch.present[0, 0] = batch.present[1, 1:] = batch.present[2] = False
    return batch


@pytest.mark.parametrize("how", ["concat", "gated", "sum", "attention"])
def test_logits_are_the_average_of_both_halves(how):
    model, batch = make(how, share=0.25), lacking()
    output, present = model(batch), batch.present
    joint = model.heads["emotion"](model.fusion.early(model.encode(batch)).pooled)
    for row in range(len(batch)):
        own = [output.unimodal[s.name]["emotion"][row] for i, s in enumerate(STREAMS) if present[row, i]]
        mean = sum(own) / len(own) if own else torch.zeros(len(SPACE))
        torch.testing.assert_close(output.logits["emotion"][row], 0.75 * joint[row] + 0.25 * mean)


def test_a_context_after_the_fusion_reads_what_is_fused():
    given = {"stands": "after", "mode": "causal"}
    context = Part("recurrent", registry.resolve("contexts", "recurrent", given, "context"))
    model, batch = make(context=[context]), lacking()
    apart = model(batch)
    batch.conversation, batch.position, batch.speaker = ["c"] * 6, list(range(6)), ["A", "B"] * 3
    together = model(batch)
    for stream, own in together.unimodal.items():
        torch.testing.assert_close(own, apart.unimodal[stream])
    changed = (together.logits["emotion"] - apart.logits["emotion"]).abs().amax(1)
    assert changed[0] < 1e-5
    assert (changed[3:] > 1e-4).all()
    together.logits["emotion"].log_softmax(-1)[:, 0].sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_a_share_that_leaves_one_half_out_is_refused(share):
    with pytest.raises(BadConfig, match="share"):
        Hybrid({"face": 3}, share=share)
