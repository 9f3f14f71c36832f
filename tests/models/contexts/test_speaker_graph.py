"""The speaker graph against its equations, written as loops over the utterances of small dialogues."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from affuse.core.errors import BadConfig
from affuse.layers.conversation import Conversations, conversations
from affuse.layers.gfpush import mixture
from affuse.models.contexts.speaker_graph import SpeakerGraph

LENGTHS, WHO = (7, 1, 12), "ababbaaxabcabca"
DIALOGUE_GCN, COGMEN = ("rgcn", "graphconv"), ("rgcn", "transformer")
CONVS = [DIALOGUE_GCN, COGMEN, ("gat",), ("transformer", "rgcn"), ("gfpush",), ("gfpush", "gat")]


def talk(lengths: tuple[int, ...] = LENGTHS) -> Conversations:
    """Dialogues in which speaker x is anonymous."""
    names = [f"d{b}" for b, n in enumerate(lengths) for _ in range(n)]
    who = ["" if w == "x" else w for w in itertools.islice(itertools.cycle(WHO), len(names))]
    return conversations(names, [i for n in lengths for i in range(n)], who)


def made(width: int = 6, seed: int = 0, **options) -> SpeakerGraph:
    torch.manual_seed(seed)
    return SpeakerGraph({"fused": width}, **{"dim": 8, **options}).eval()


def rows(c: Conversations, width: int = 6) -> torch.Tensor:
    return torch.randn(len(c), width, generator=torch.Generator().manual_seed(1))


def run(part: SpeakerGraph, x: torch.Tensor, c: Conversations, present: torch.Tensor | None = None) -> torch.Tensor:
    there = torch.ones(len(x), 1, dtype=torch.bool) if present is None else present
    return part({"fused": x}, there, c)["fused"]


def heard(c: Conversations, i: int, past: int, future: int, step: int = 1) -> list[int]:
    same = [j for j in range(len(c)) if c.conversation[j] == c.conversation[i] and (j - i) % step == 0]
    return [j for j in same if -past * step <= j - i <= future * step]


def kind(c: Conversations, i: int, j: int) -> int:
    """Relative relation of what i hears from j."""
    if i == j:
        return 0
    other = c.speaker[i] != c.speaker[j] or c.speaker[i] < 0
    return (1 if j < i else 2) + 2 * int(other)


@pytest.mark.parametrize("edge_weight", ["none", "attention", "similarity"])
def test_dialogue_gcn(edge_weight):
    c = talk()
    x, part = rows(c), made(edge_weight=edge_weight, past=3, future=2, dilation=2)
    graph = part.graphs["fused"]
    first, second = graph.layers

    def weights(i: int, near: list[int]) -> torch.Tensor:
        if edge_weight == "attention":
            return torch.stack([x[i] @ graph.attention.weight @ x[j] for j in near]).softmax(0)
        cosine = torch.stack([F.cosine_similarity(x[i].double(), x[j].double(), dim=0) for j in near])
        return 1 - cosine.clamp(-1, 1).acos() / torch.pi if edge_weight == "similarity" else torch.ones(len(near))

    h = torch.zeros(len(c), 8)
    for i in range(len(c)):
        near = heard(c, i, 3, 2, 2)
        types = [kind(c, i, j) for j in near]
        h[i] = first.root(x[i])
        for j, r, a in zip(near, types, weights(i, near)):
            h[i] += a.float() * (x[j] @ first.bases[r]) / (1 if edge_weight == "attention" else types.count(r))
    expected = torch.zeros(len(c), 14)
    for i in range(len(c)):
        last = second.root(h[i]) + sum(h[j] @ second.bases[0] for j in heard(c, i, 3, 2, 2))
        expected[i] = torch.cat([x[i], F.leaky_relu(graph.norm(last))])
    torch.testing.assert_close(run(part, x, c), expected, rtol=1e-4, atol=1e-5)


def test_cogmen_tells_no_types_apart_in_its_transformer():
    part = made(convs=("rgcn", "transformer"), past=None, future=None)
    assert part.graphs["fused"].layers[1].relation is None
    assert made(convs=("transformer",)).graphs["fused"].layers[0].relation.num_embeddings == 5
    assert part.reach is None


def test_gfpush_is_the_mixture_of_powers_of_the_window():
    c = talk()
    x, part = rows(c), made(convs=("gfpush",), past=2, future=1, order=3, top_k=99, join="none")
    p = torch.zeros(len(c), len(c))
    for i in range(len(c)):
        near = heard(c, i, 2, 1)
        p[i, near] = 1 / len(near)
    pi = sum(w * torch.linalg.matrix_power(p, k) for k, w in enumerate(mixture("ppr", 3, 0.2)))
    graph = part.graphs["fused"]
    expected = F.leaky_relu(graph.norm(graph.layers[0].linear(pi @ x)))
    torch.testing.assert_close(run(part, x, c), expected, rtol=1e-4, atol=1e-5)


def influence(part: SpeakerGraph, at: int, length: int = 30) -> list[int]:
    """How many utterances away those lie that the answer for one depends on."""
    c = talk((length,))
    x = rows(c).requires_grad_()
    run(part, x, c)[at].sum().backward()
    return [int(i) - at for i in x.grad.abs().sum(1).nonzero()]


@pytest.mark.parametrize("convs", CONVS)
def test_the_whole_looks_exactly_as_far_ahead_as_it_may(convs):
    part = made(convs=convs, mode="lookahead", lookahead=3, past=2, order=3)
    assert max(influence(part, 15)) == 3
    assert max(influence(made(convs=convs, mode="causal", past=2, order=3), 15)) == 0


@pytest.mark.parametrize("convs", CONVS)
@pytest.mark.parametrize(("dilation", "lookahead"), [(2, 1), (2, 3), (3, 4), (3, 5), (2, 4), (3, 3)])
def test_it_looks_exactly_that_far_where_the_dilation_does_not_divide_it_too(convs, dilation, lookahead):
    part = made(convs=convs, mode="lookahead", lookahead=lookahead, dilation=dilation, past=2, order=3, top_k=99)
    found = influence(part, 15)
    assert max(found) == lookahead
    first = made(convs=convs[:1], mode="lookahead", lookahead=lookahead, dilation=dilation, past=2, order=1)
    later = [k for k in influence(first, 15) if k > 0]
    assert later == list(range(lookahead, 0, -dilation))[::-1]


@pytest.mark.parametrize("convs", CONVS)
@pytest.mark.parametrize("dilation", [1, 2])
def test_reach_is_as_far_as_an_answer_looks_back(convs, dilation):
    part = made(convs=convs, mode="causal", past=2, order=3, dilation=dilation, top_k=99)
    assert min(influence(part, 28)) == -part.reach


@pytest.mark.parametrize("convs", CONVS)
@pytest.mark.parametrize("mode", ["offline", "lookahead"])
@pytest.mark.parametrize("relations", ["relative", "absolute", "temporal", "none"])
def test_others_neither_hear_the_absent_nor_other_conversations(convs, mode, relations):
    c = talk()
    part = made(convs=convs, mode=mode, lookahead=1, relations=relations, past=3, future=3, order=2)
    x, there = rows(c), torch.ones(len(c), 1, dtype=torch.bool)
    there[4] = False
    changed = x.clone()
    changed[4] += 5
    changed[8:] *= 2
    before, after = run(part, x, c, there), run(part, changed, c, there)
    assert torch.equal(before[[0, 1, 2, 3, 5, 6, 7]], after[[0, 1, 2, 3, 5, 6, 7]])
    assert not torch.equal(before[4], after[4])


def test_absolute_relations_know_who_spoke_first():
    part = made(relations="absolute", speakers=3)
    assert part.reach is None
    assert part.types == [18, 1]
    assert torch.isfinite(run(part, rows(talk()), talk())).all()


@pytest.mark.parametrize("join", ["concat", "add", "none"])
@pytest.mark.parametrize("width", [6, 8])
def test_joins_give_what_they_promise(join, width):
    part, c = made(width, join=join), talk()
    assert run(part, rows(c, width), c).shape == (len(c), part.dims["fused"])
    assert part.dims["fused"] == (8 + width if join == "concat" else 8)


@pytest.mark.parametrize("join", ["concat", "add", "none"])
def test_the_weight_scales_the_graph_and_nothing_else(join):
    c, x = talk(), rows(talk(), 8)
    whole, less = (run(made(8, join=join, weight=w), x, c) for w in (1.0, 0.2))
    own = {"concat": torch.cat([x, torch.zeros(len(c), 8)], 1), "add": x, "none": torch.zeros(len(c), 8)}[join]
    torch.testing.assert_close(less - own, 0.2 * (whole - own))


@pytest.mark.parametrize("options", [{"drop_node": 0.5}, {"drop_edge": 0.5}, {"dropout": 0.5}])
@pytest.mark.parametrize("convs", CONVS)
def test_nothing_is_dropped_outside_training(options, convs):
    c = talk()
    part = made(convs=convs, **{"dropout": 0.0, **options})
    x = rows(c)
    assert torch.equal(run(part, x, c), run(part, x, c))
    part.train()
    assert not torch.equal(run(part, x, c), run(part, x, c))


def test_streams_have_graphs_of_their_own_before_the_fusion():
    c = talk()
    part = SpeakerGraph({"face": 5, "words": 6}, stands="before", dim=8).eval()
    there = torch.rand(len(c), 2) > 0.3
    x = {s: torch.randn(len(c), w) * there[:, i, None] for i, (s, w) in enumerate([("face", 5), ("words", 6)])}
    found = part(x, there, c)
    torch.testing.assert_close(found["words"], part({"words": x["words"]}, there[:, 1:], c)["words"])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"convs": ()}, "convs"),
        ({"mode": "lookahead"}, "lookahead"),
        ({"mode": "lookahead", "dilation": 2}, "lookahead=0"),
        ({"weight": 0.0}, "weight=0"),
        ({"convs": ("gfpush",), "edge_weight": "attention"}, "edge_weight"),
        ({"convs": ("gat",), "heads": 3}, "heads"),
    ],
)
def test_what_cannot_be_is_refused(options, word):
    with pytest.raises(BadConfig, match=word):
        made(**options)
