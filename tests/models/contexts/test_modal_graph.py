from __future__ import annotations

import math

import pytest
import torch
from tests.layers.dialogues import dialogues
from torch.nn import functional as F

from affuse.core import registry
from affuse.core.errors import BadConfig
from affuse.layers.conversation import conversations
from affuse.layers.edges import cross_modal, similarity, window, within_modal
from affuse.layers.graph import aggregate, symmetric
from affuse.models.contexts.modal_graph import ModalGraph

DIMS = {"sound": 5, "face": 3, "words": 4}


def rows(c, seed=1, share=0.75):
    torch.manual_seed(seed)
    present = torch.rand(len(c), len(DIMS)) < share
    return {s: torch.randn(len(c), d) * present[:, i, None] for i, (s, d) in enumerate(DIMS.items())}, present


def part(**options):
    torch.manual_seed(0)
    return ModalGraph(DIMS, **{"dim": 8, "layers": 3, **options}).eval()


def nodes_of(graph, x, present, c):
    nodes = torch.stack([widen(v) for widen, v in zip(graph.widen, x.values())], 1)
    return graph.speaker(nodes, c) * present.unsqueeze(2)


def angle_weight(u, v):
    return 1 - math.acos(min(1, max(-1, F.cosine_similarity(u, v, dim=0).item()))) / math.pi


def adjacency(nodes, present, past, ahead, length, known=99):
    """D^-1/2 W D^-1/2 of one conversation [S L, S L], node (s, i) at s L + i, entry by entry; senders' degrees count
    what they hear at most `known` ahead."""
    streams = present.shape[1]
    a = torch.zeros(streams * length, streams * length)
    for s in range(streams):
        for i in range(length):
            for t in range(streams):
                for j in range(length):
                    near = i - past <= j <= i + ahead if s == t else i == j
                    if near and present[i, s] and present[j, t]:
                        same = s == t and i == j
                        a[s * length + i, t * length + j] = 1.0 if same else angle_weight(nodes[i, s], nodes[j, t])
    time = torch.arange(length).repeat(streams)
    target, source = (d.where(d > 0, 1.0).rsqrt() for d in (a.sum(1), (a * (time <= time[:, None] + known)).sum(1)))
    return a * target[:, None] * source[None, :]


@pytest.mark.parametrize(("options", "past", "ahead"), [
    ({}, 99, 99), ({"past": 2, "future": 1}, 2, 1), ({"mode": "causal", "past": 2}, 2, 0), ({"mode": "causal"}, 99, 0),
    ({"mode": "lookahead", "lookahead": 2, "past": 3}, 3, 2),
])  # fmt: skip
@pytest.mark.parametrize("depth_gate", [False, True])
def test_equations(options, past, ahead, depth_gate):
    c = dialogues([7], anonymous=True)
    (x, present), graph = rows(c), part(depth_gate=depth_gate, **options)
    nodes = nodes_of(graph, x, present, c)
    live = graph.mode == "lookahead"
    first = adjacency(nodes, present, past, ahead, 7, known=0 if live else 99)
    rest = adjacency(nodes, present, past, 0, 7) if live else first
    flat = nodes.transpose(0, 1).flatten(0, 1)
    h = initial = (flat @ graph.enter.weight.T + graph.enter.bias).relu()
    state = None
    for k in range(3):
        entered, a, beta = h, rest if k else first, math.log(0.5 / (k + 1) + 1)
        if depth_gate:
            state = graph.gate(h, state)
            h = state[0]
        support = 0.9 * a @ h + 0.1 * initial
        h = (beta * torch.cat([a @ h, initial], 1) @ graph.layers[k].weight + (1 - beta) * support).relu()
        h = h + entered if depth_gate else h
    expected = torch.cat([flat, h], 1).view(3, 7, 16) * present.T.unsqueeze(2)
    found = graph(x, present, c)
    torch.testing.assert_close(torch.stack(list(found.values())), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("past", "future"), [(None, None), (4, 3)])
def test_dense_blocks_equal_sparse_edges(past, future):
    c = dialogues([5, 1, 80, 12])
    (x, present), graph = rows(c), part(past=past, future=future, speaker="turn")
    nodes = nodes_of(graph, x, present, c)
    flat = nodes.transpose(0, 1).flatten(0, 1)
    edges = within_modal(window(c, past, future), present) + cross_modal(present)
    weight = symmetric(edges, len(flat), similarity(flat, edges))
    h = initial = graph.enter(flat).relu()
    for layer in graph.layers:
        h = layer(aggregate(h, edges, weight=weight), initial).relu()
    found = graph(x, present, c)
    for i, s in enumerate(DIMS):
        expected = h.view(3, len(c), 8)[i] * present[:, i, None]
        torch.testing.assert_close(found[s][:, 8:], expected, rtol=1e-4, atol=1e-5)


def test_utterances_that_say_the_same_have_finite_gradients():
    """Published defect: the gradient of acos explodes for nodes of one direction, and is 0 / 0 where one is zero."""
    c, present = dialogues([6]), torch.ones(6, 3, dtype=torch.bool)
    x = {s: torch.ones(6, d).requires_grad_() for s, d in DIMS.items()}
    graph = part(speaker="none")
    with torch.no_grad():
        graph.widen[0].weight.zero_()
        graph.widen[0].bias.zero_()
    sum(v.square().sum() for v in graph(x, present, c).values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in [*x.values(), *graph.parameters()])


def test_absent_streams_are_no_nodes():
    c = dialogues([6, 3])
    (x, present), graph = rows(c), part()
    found = graph(x, present, c)
    loud = {s: v + 9.0 * ~present[:, i, None] for i, (s, v) in enumerate(x.items())}
    for i, s in enumerate(DIMS):
        assert not found[s][~present[:, i]].any()
        torch.testing.assert_close(graph(loud, present, c)[s], found[s])


@pytest.mark.parametrize("speaker", ["relative", "none"])
@pytest.mark.parametrize("depth_gate", [False, True])
def test_reach_is_enough_and_needed(speaker, depth_gate):
    graph = part(mode="causal", past=2, layers=2, speaker=speaker, depth_gate=depth_gate)
    who = [f"s{i % 3 % 2}" for i in range(20)]
    c = conversations(["a"] * 20, range(20), who)
    x, present = rows(c, share=2.0)
    whole = graph(x, present, c)

    def last(count):
        c = conversations(["a"] * count, range(count), who[-count:])
        return graph({s: v[-count:] for s, v in x.items()}, present[-count:], c)["face"][-1]

    torch.testing.assert_close(last(graph.reach + 1), whole["face"][-1], rtol=1e-5, atol=1e-6)
    assert not torch.equal(last(graph.reach - 2), whole["face"][-1])


def test_no_end_of_reach():
    assert part(mode="causal").reach is None
    assert part(mode="causal", past=3, speaker="turn").reach is None
    assert part(mode="causal", past=3).reach == 13
    with pytest.raises(BadConfig, match="lookahead=0"):
        part(mode="lookahead")


PARTS = [
    ("modal_graph", {"depth_gate": True, "past": 2}), ("modal_graph", {"speaker": "turn"}), ("hypergraph", {}),
    ("hypergraph", {"speaker": "none", "past": 1}), ("cross_attention", {"attention": "co", "past": 2}),
    ("cross_attention", {"positions": "sinusoid", "speaker": "turn"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), PARTS)
def test_options_let_nothing_of_the_future_in(name, options):
    """Of parts on streams: the gradient from later utterances is exactly 0, and a prefix has the same answers."""
    torch.manual_seed(0)
    made = registry.build("contexts", name, DIMS, mode="causal", dim=8, **options).eval()
    who = [f"s{i % 3 % 2}" for i in range(12)]
    c = conversations(["a"] * 12, range(12), who)
    x, present = rows(c)
    x = {s: v.requires_grad_() for s, v in x.items()}
    whole = made(x, present, c)
    sum(v[5].square().sum() for v in whole.values()).backward()
    assert all(v.grad[:6].any() and not v.grad[6:].any() for v in x.values())
    early = made({s: v[:6] for s, v in x.items()}, present[:6], conversations(["a"] * 6, range(6), who[:6]))
    for s in DIMS:
        torch.testing.assert_close(early[s], whole[s][:6], rtol=1e-4, atol=1e-6)
