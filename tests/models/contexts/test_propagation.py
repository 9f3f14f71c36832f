"""The dilated propagation against its five equations, with dense matrices."""

from __future__ import annotations

import itertools

import pytest
import torch

from affuse.core.errors import BadConfig
from affuse.layers.conversation import Conversations, conversations
from affuse.layers.gfpush import mixture
from affuse.models.contexts.propagation import DilatedPropagation

DIMS, LENGTHS = {"face": 3, "words": 5}, (9, 1, 16)


def talk() -> Conversations:
    names = [f"d{b}" for b, n in enumerate(LENGTHS) for _ in range(n)]
    who = list(itertools.islice(itertools.cycle(["a", "b", "b", "", "a"]), len(names)))
    return conversations(names, [i for n in LENGTHS for i in range(n)], who)


def made(dims: dict[str, int] = DIMS, **options) -> DilatedPropagation:
    torch.manual_seed(0)
    part = DilatedPropagation(dims, **{"dim": 4, "past": 2, "future": 2, "dilations": (1, 3), **options}).eval()
    for p in part.parameters():
        torch.nn.init.normal_(p, std=0.7)
    return part


def inputs(c: Conversations, dims: dict[str, int] = DIMS) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    there = torch.rand(len(c), len(dims), generator=g) > 0.3
    there[5] = False
    return {s: torch.randn(len(c), w, generator=g) * there[:, i, None] for i, (s, w) in enumerate(dims.items())}, there


def pushes(c: Conversations, past: int, future: int, d: int, order: int) -> torch.Tensor:
    """Pi_d as a matrix."""
    p = torch.zeros(len(c), len(c), dtype=torch.float64)
    for i, j in itertools.product(range(len(c)), repeat=2):
        p[i, j] = c.conversation[i] == c.conversation[j] and (j - i) % d == 0 and -past * d <= j - i <= future * d
    p = p / p.sum(1, keepdim=True)
    return sum(w * torch.linalg.matrix_power(p, n) for n, w in enumerate(mixture("ppr", order, 0.2))).float()


def kinds(c: Conversations) -> torch.Tensor:
    """[N, N] relative relation of what i hears from j."""
    i, j = torch.arange(len(c))[:, None], torch.arange(len(c))
    other = (c.speaker[:, None] != c.speaker) | (c.speaker[:, None] < 0)
    return torch.where(i == j, 0, torch.where(j < i, 1, 2) + 2 * other)


@pytest.mark.parametrize("mode", ["offline", "causal"])
def test_the_five_equations(mode):
    c = talk()
    x, there = inputs(c)
    part = made(mode=mode, order=2, top_k=99)
    pi = [pushes(c, 2, 0 if mode == "causal" else 2, d, 2) for d in (1, 3)]

    def z(of, rows, present):
        h, kind = of.linear(rows), kinds(c)
        scores = []
        for k, share in enumerate(pi):
            u = (h @ of.relation[5 * k : 5 * k + 5].T)[torch.arange(len(c)).expand(len(c), -1), kind]
            scores.append((share.log() + u).masked_fill(~present, -torch.inf))
        a = torch.cat(scores, 1)
        a = torch.where((a > -torch.inf).any(1, keepdim=True), a.softmax(1), 0.0).nan_to_num()
        return of.norm(a @ torch.cat([h, h]))

    own = [z(part.streams[s], x[s], there[:, i]) for i, s in enumerate(DIMS)]
    joint = z(part.early, torch.cat(list(x.values()), 1), there.any(1))
    scores = torch.cat([part.gate[2](torch.tanh(part.gate[0](m))) for m in own], 1).masked_fill(~there, -torch.inf)
    beta = scores.softmax(1).nan_to_num()
    found = part(x, there, c)
    for i, s in enumerate(DIMS):
        expected = torch.cat([x[s], joint + beta[:, i, None] * own[i]], 1)
        torch.testing.assert_close(found[s], expected, rtol=1e-4, atol=1e-5)


def test_without_relations_it_is_the_push_itself():
    c = talk()
    options = {"dilations": (2,), "past": 3, "future": 3, "order": 3, "top_k": 99, "dim": 4}
    part = DilatedPropagation({"fused": 4}, stands="after", **options).eval()
    x = torch.randn(len(c), 4)
    expected = part.streams["fused"].norm(pushes(c, 3, 3, 2, 3) @ part.streams["fused"].linear(x))
    torch.testing.assert_close(part({"fused": x}, torch.ones(len(c), 1, dtype=torch.bool), c)["fused"][:, 4:], expected)


def test_reach_is_as_far_as_an_answer_looks_back():
    c = conversations(["d"] * 40, range(40), ["a", "b"] * 20)
    part = made(mode="causal", past=2, dilations=(1, 4), order=3, top_k=99)
    x = {s: torch.randn(40, w).requires_grad_() for s, w in DIMS.items()}
    part(x, torch.ones(40, 2, dtype=torch.bool), c)["face"][38].sum().backward()
    touched = x["words"].grad.abs().sum(1).nonzero().flatten()
    assert part.reach == 24
    assert [int(touched.min()), int(touched.max())] == [38 - 24, 38]


def test_what_is_absent_says_nothing_but_hears():
    c = talk()
    x, there = inputs(c, {"fused": 3})
    part = made({"fused": 3}, stands="after")
    changed = {"fused": x["fused"] + 9 * ~there}
    found = part(changed, there, c)["fused"][:, 3:]
    torch.testing.assert_close(found, part(x, there, c)["fused"][:, 3:])
    assert len(torch.unique(found[~there[:, 0]], dim=0)) > 1


@pytest.mark.parametrize("options", [{"drop_node": 0.5}, {"dropout": 0.5}])
def test_nothing_is_dropped_outside_training(options):
    c = talk()
    x, there = inputs(c)
    part = made(**{"dropout": 0.0, **options})
    assert torch.equal(part(x, there, c)["face"], part(x, there, c)["face"])
    part.train()
    assert not torch.equal(part(x, there, c)["face"], part(x, there, c)["face"])


def test_a_single_stream_has_nothing_to_weigh():
    part = made({"words": 5})
    assert part.early is None
    assert part.gate is None
    assert part.dims == {"words": 9}


def test_no_dilation_is_refused():
    with pytest.raises(BadConfig, match="dilations"):
        made(dilations=())
