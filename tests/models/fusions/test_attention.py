"""Attention over streams, against its equation; streams may come in any order."""

from __future__ import annotations

import math

import pytest
import torch
from tests.parts import encoded_of

from affuse.core.errors import BadConfig
from affuse.models.fusions.attention import Attention

DIMS = {"sound": 5, "face": 3, "words": 4}
PRESENT = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [False, False, False]])


def pooled(n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {s: torch.randn(n, d, generator=generator) for s, d in DIMS.items()}


def fusion():
    torch.manual_seed(0)
    return Attention(DIMS, dim=6, heads=2)


def test_it_is_its_equation():
    part, h = fusion(), pooled()
    found = part(encoded_of(h, PRESENT)).pooled
    for row in range(4):
        there = [s for i, s in enumerate(DIMS) if PRESENT[row, i]]
        v = {s: part.project[s].weight @ h[s][row] + part.project[s].bias for s in there}
        for head in range(2):
            hidden = {s: torch.tanh(part.hidden.weight @ v[s] + part.hidden.bias) for s in there}
            scores = {s: (part.query.weight[head] @ hidden[s]).item() for s in there}
            total = sum(math.exp(e) for e in scores.values())
            own = slice(3 * head, 3 * head + 3)
            expected = sum((math.exp(scores[s]) / total * v[s][own] for s in there), torch.zeros(3))
            torch.testing.assert_close(found[row, own], expected)


def test_the_order_of_streams_does_not_matter():
    part, h = fusion(), pooled()
    turned = Attention(dict(reversed(DIMS.items())), dim=6, heads=2)
    turned.load_state_dict(part.state_dict())
    found = turned(encoded_of(dict(reversed(h.items())), PRESENT.flip(1))).pooled
    torch.testing.assert_close(found, part(encoded_of(h, PRESENT)).pooled)


def test_an_absent_stream_has_no_influence_and_no_gradient():
    part, h = fusion(), {s: v.requires_grad_() for s, v in pooled().items()}
    part(encoded_of(h, PRESENT)).pooled.square().sum().backward()
    for i, s in enumerate(DIMS):
        assert (h[s].grad[~PRESENT[:, i]] == 0).all()
        assert h[s].grad[PRESENT[:, i]].any(1).all()
    wild = {s: torch.where(PRESENT[:, i, None], v, 1e6) for i, (s, v) in enumerate(h.items())}
    assert torch.equal(part(encoded_of(wild, PRESENT)).pooled, part(encoded_of(h, PRESENT)).pooled)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(BadConfig, match="heads = 4"):
        Attention(DIMS, dim=6, heads=4)
