from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.parts import encoded_of
from tests.training.test_loop import RECIPE, make_trainer

from affuse.core.errors import BadConfig
from affuse.models.fusions.concat import Concat
from affuse.training.balancing import encode_split

DIMS = {"sound": 5, "face": 3}


def whole(trainer):
    return encode_split(trainer.model, trainer.losses, "emotion", trainer.train, torch.device("cpu"))


def test_without_a_hidden_layer_the_streams_stand_side_by_side():
    part = Concat(DIMS, dim=0).eval()
    torch.nn.init.constant_(part.absent["face"], 0.5)
    h = {s: torch.randn(2, d) for s, d in DIMS.items()}
    fused = part(encoded_of(h, torch.tensor([[True, True], [True, False]]))).pooled
    assert part.dim == 8 and part.widths == DIMS
    assert torch.equal(fused[0], torch.cat([h["sound"][0], h["face"][0]]))
    assert torch.equal(fused[1], torch.cat([h["sound"][1], torch.full((3,), 0.5)]))


def test_dropout_stays_and_the_hidden_layer_is_the_default():
    part = Concat(DIMS, dim=0, dropout=0.5)
    ones = {s: torch.ones(50, d) for s, d in DIMS.items()}
    assert (part(encoded_of(ones, torch.ones(50, 2, dtype=torch.bool))).pooled == 0).any()
    assert Concat(DIMS).dim == 64 and not Concat(DIMS).widths


def test_a_balancer_sees_the_heads_columns_of_every_stream(vector_corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPE, "fusion", {"name": "concat", "dim": 0, "dropout": 0.0})
    step = whole(make_trainer(vector_corpus, tmp_path))
    blocks = step.blocks()
    classes = step.only().shape[1]
    assert {s: b.shape for s, b in blocks.items()} == {s: (classes, h.shape[1]) for s, h in step.features.items()}
    everything = step.probe(torch.ones_like(step.present))
    zeros = {s: torch.zeros_like(h) for s, h in step.features.items()}
    nothing = replace(step, features=zeros).probe(torch.ones_like(step.present))
    parts = sum(h @ blocks[s].T for s, h in step.features.items())
    torch.testing.assert_close(everything - nothing, parts)


def test_directions_of_weights_train_with_it_and_are_refused_without(vector_corpus, tmp_path, monkeypatch):
    balance = {"name": "bcgm", "direction": "weights", "warmup": 0}
    with pytest.raises(BadConfig, match=r"fusion\.dim=0"):
        make_trainer(vector_corpus, tmp_path / "gated", balance=balance).run()
    monkeypatch.setitem(RECIPE, "fusion", {"name": "concat", "dim": 0})
    trainer = make_trainer(vector_corpus, tmp_path / "concat", balance=balance)
    assert trainer.run().scores
    monkeypatch.setitem(RECIPE, "fusion", {"name": "concat", "dim": 8})
    assert whole(make_trainer(vector_corpus, tmp_path / "hidden")).blocks() == {}
