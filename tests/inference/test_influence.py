"""Influence: what is planted is found, nothing else is, and however it is cut up it equals one utterance at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.models.test_contexts import LENGTHS, batch, make, rows
from torch import nn

from affuse.core.timeline import Context
from affuse.inference import influence as module
from affuse.inference.influence import influence

CPU = torch.device("cpu")


class Before(nn.Module):
    """Every utterance hears the one before it, and no other."""

    mode, stands = "causal", "after"

    def forward(self, x, present, conversations):
        first = (conversations.position == 0)[:, None]
        return {name: value + torch.where(first, 0.0, value.roll(1, 0)) for name, value in x.items()}


def planted():
    model = make("speaker_graph", "after", "causal")
    model.after, model.heads = nn.ModuleList([Before()]), nn.ModuleDict({"emotion": nn.Linear(model.fusion.dim, 4)})
    return model.eval()


def naive(model, given):
    """Half the L1 distance between the answers with and without each utterance, one after the other."""
    with torch.inference_mode():
        whole = model(given).logits["emotion"].softmax(-1)
        found = np.zeros((len(given), len(given)))
        for j in range(len(given)):
            less = rows(given, list(range(len(given))))
            less.present[j] = False
            for name in less.x:
                less.x[name][j], less.mask[name][j] = 0, False
            found[:, j] = (model(less).logits["emotion"].softmax(-1) - whole).abs().sum(1) / 2
    np.fill_diagonal(found, 0)
    return found


@pytest.mark.parametrize("name", [("speaker_graph", "after"), ("recurrent", "before"), ("transformer", "after")])
@pytest.mark.parametrize("size", [1, 70, 4096])
def test_it_equals_one_utterance_at_a_time(name, size, monkeypatch):
    monkeypatch.setattr(module, "ROWS", size)
    model, given = make(*name, "offline"), batch()
    given.present[4] = False
    found = influence(model, given, CPU)
    np.testing.assert_allclose(found, naive(model, given), atol=1e-6)
    assert found.max() > 1e-3
    assert 0 <= found.min() <= found.max() <= 1
    assert not found[:, 4].any()


def test_it_stays_in_a_conversation_and_one_utterance_rests_on_nothing():
    given = batch()
    found = influence(make("recurrent", "before", "offline"), given, CPU)
    conversations = np.array(given.conversation)
    assert found[conversations[:, None] != conversations].max() < 1e-6
    alone = int(np.flatnonzero(conversations == f"c{LENGTHS.index(1)}")[0])
    assert found[alone].max() < 1e-6
    assert not influence(make("recurrent", "before", "offline"), rows(given, [alone]), CPU).any()


@pytest.mark.parametrize(("name", "stands"), [("speaker_graph", "after"), ("recurrent", "before")])
def test_a_causal_model_rests_on_nothing_that_comes_later(name, stands):
    given = batch()
    found = influence(make(name, stands, "causal"), given, CPU)
    position = np.array(given.position)
    later = position[None] > position[:, None]
    assert found[later].max() < 1e-6 < 1e-4 < found[~later].max()


def test_what_is_planted_is_found():
    model, given = planted(), batch()
    given.present[:] = True
    found = influence(model, given, CPU)
    position, conversations = np.array(given.position), np.array(given.conversation)
    before = (position[:, None] - 1 == position) & (conversations[:, None] == conversations)
    assert found[~before].max() < 1e-6
    assert found[before].min() > 1e-5


def test_without_context_nothing_rests_on_anything():
    model = planted()
    model.after = nn.ModuleList()
    assert not influence(model, batch(), CPU).any()


def test_the_strongest_are_named_first_and_the_slight_ones_not():
    row = np.array([0.02, 0.0, 0.3, 0.009, 0.02, 0.05, 0.011, 0.04])
    strongest = [(2, 0.3), (5, 0.05), (7, 0.04), (0, 0.02), (4, 0.02)]
    assert module._strongest(row) == [Context(*pair) for pair in strongest]
