from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from affuse.core.errors import BadConfig
from affuse.layers.edges import Edges, Hyperedges, cross_modal, hyperedges, relations, window, within_modal
from affuse.layers.graph import (
    GCNII,
    GraphAttention,
    GraphTransformer,
    HighPass,
    HypergraphConv,
    RelationalConv,
    _scattered,
    aggregate,
    mean,
    segment_softmax,
    symmetric,
)

from .dialogues import dialogues, slot

LENGTHS = [6, 1, 9, 3]
D, OUT = 5, 4


class Hyper(nn.Module):
    """HypergraphConv over the groups that a window of edges makes, called like the other layers."""

    def __init__(self):
        super().__init__()
        self.layer = HypergraphConv(D, OUT)

    def forward(self, x, edges, relation, weight=None):
        node = torch.arange(len(x))
        groups = Hyperedges(edges, Edges(node, node), torch.zeros(len(x), dtype=torch.int64))
        return self.layer(x, groups, member=weight)


class Untyped(nn.Module):
    """A layer without edge types, called with them."""

    def __init__(self, layer, initial=False):
        super().__init__()
        self.layer, self.initial = layer, initial

    def forward(self, x, edges, relation, weight=None):
        if not self.initial:
            return self.layer(x, edges, weight=weight)
        scaled = symmetric(edges, len(x)).to(x.dtype) * (1 if weight is None else weight)
        return self.layer(aggregate(x, edges, weight=scaled), x.tanh())


LAYERS = {
    "relational": lambda: RelationalConv(D, OUT, 5),
    "relational-bases": lambda: RelationalConv(D, OUT, 5, bases=2, normalise="sum"),
    "relational-rootless": lambda: RelationalConv(D, OUT, 5, bases=3, root=False),
    "attention": lambda: Untyped(GraphAttention(D, OUT, heads=2)),
    "attention-typed": lambda: GraphAttention(D, OUT, heads=3, concat=False, relations=5),
    "transformer": lambda: Untyped(GraphTransformer(D, OUT, heads=2)),
    "transformer-typed": lambda: GraphTransformer(D, OUT, heads=2, relations=5, beta=True, concat=False),
    "gcnii": lambda: Untyped(GCNII(D, 2), initial=True),
    "gcnii-variant": lambda: Untyped(GCNII(D, 2, variant=True), initial=True),
    "hypergraph": Hyper,
    "high-pass": lambda: Untyped(HighPass(D)),
}


@pytest.fixture(params=LAYERS)
def layer(request):
    torch.manual_seed(1)
    return LAYERS[request.param]().double()


def graph(lengths=LENGTHS, past=3, future=3, seed=0):
    c = dialogues(lengths, seed=seed)
    edges = window(c, past, future)
    return c, edges, relations(c, edges)[0]


def features(n: int) -> torch.Tensor:
    return torch.randn(n, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def test_conversations_do_not_touch_each_other(layer):
    c, edges, relation = graph()
    x = features(len(c))
    whole = layer(x, edges, relation)
    for b in range(len(LENGTHS)):
        rows, inside = slot(LENGTHS, b), c.conversation[edges.target] == b
        alone = Edges(edges.source[inside] - rows.start, edges.target[inside] - rows.start)
        torch.testing.assert_close(whole[rows], layer(x[rows], alone, relation[inside]))


def test_causal_edges_let_nothing_of_the_future_in(layer):
    c, edges, relation = graph([8], past=None, future=0)
    x = features(8).requires_grad_()
    found = layer(x, edges, relation)
    for t in range(8):
        (gradient,) = torch.autograd.grad(found[t].sum(), x, retain_graph=True)
        assert gradient[t + 1 :].eq(0).all()
        assert gradient[t].ne(0).any()
    begun = window(replace_length(c, 5), None, 0)
    torch.testing.assert_close(found[:5], layer(x[:5], begun, relations(replace_length(c, 5), begun)[0]))


def replace_length(c, n):
    """The first n utterances of a single conversation."""
    parts = {name: getattr(c, name)[:n] for name in ("order", "conversation", "position", "speaker")}
    return replace(c, length=torch.tensor([n]), **parts)


def test_the_order_of_edges_and_the_names_of_speakers_do_not_matter(layer):
    c, edges, relation = graph()
    x, shuffled = features(len(c)), torch.randperm(len(edges))
    renamed = replace(c, speaker=torch.randperm(int(c.speaker.max()) + 1)[c.speaker])
    again = layer(x, edges.select(shuffled), relations(renamed, edges)[0][shuffled])
    torch.testing.assert_close(layer(x, edges, relation), again)


def test_nodes_may_be_renumbered(layer):
    c, edges, relation = graph()
    x, order = features(len(c)), torch.randperm(len(c))
    place = torch.argsort(order)
    moved = Edges(place[edges.source], place[edges.target])
    torch.testing.assert_close(layer(x, edges, relation)[order], layer(x[order], moved, relation))


def test_empty_edges_single_utterances_and_empty_batches(layer):
    none = Edges(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    x = features(3).requires_grad_()
    found = layer(x, none, none.source)
    assert found.isfinite().all()
    if found.requires_grad:  # without a root and without edges nothing depends on x
        found.sum().backward()
        assert x.grad.isfinite().all()
    _c, edges, relation = graph([1, 1, 1])
    assert layer(x, edges, relation).isfinite().all()
    assert layer(x[:0], none, none.source).shape == (0, found.shape[1])


def test_gradients_are_those_of_finite_differences(layer):
    _c, edges, relation = graph([3, 2])
    x, weight = features(5).requires_grad_(), torch.rand(len(edges), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: layer(x, edges, relation, w), (x, weight))
    layer(x, edges, relation, weight).square().sum().backward()
    assert all(p.grad is not None and p.grad.ne(0).any() for p in layer.parameters())


def test_a_weight_of_zero_is_an_edge_without_a_message(layer):
    _c, edges, relation = graph([4])
    x, keep = features(4).requires_grad_(), edges.source != 1
    layer(x, edges, relation, (keep | edges.loops()).double())[[0, 2, 3]].sum().backward()
    if not isinstance(getattr(layer, "layer", layer), GraphAttention | GraphTransformer):  # there, scores still see it
        assert x.grad[1].eq(0).all()


def test_reduced_precision_stays_close(layer):
    _c, edges, relation = graph()
    x = features(19).float()
    layer.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = layer(x, edges, relation)
    torch.testing.assert_close(rough.float(), layer(x, edges, relation), atol=0.1, rtol=0.1)


def dense(edges: Edges, n: int, weight: torch.Tensor | None = None) -> torch.Tensor:
    a = torch.zeros(n, n, dtype=torch.float64)
    return a.index_put(
        (edges.target, edges.source), torch.ones(len(edges)).double() if weight is None else weight, True
    )


def test_sums_and_means_are_matrix_products():
    _c, edges, _relation = graph()
    x, weight = features(19), torch.rand(len(edges), 2, dtype=torch.float64)
    a = dense(edges, 19)
    torch.testing.assert_close(aggregate(x, edges), a @ x)
    torch.testing.assert_close(mean(x, edges), (a @ x) / a.sum(1, keepdim=True))
    heads = aggregate(torch.stack([x, 2 * x], 1), edges, weight=weight)
    torch.testing.assert_close(heads[:, 1], dense(edges, 19, weight[:, 1]) @ x * 2)
    torch.testing.assert_close(_scattered(x, weight[:, 0], edges, 19), aggregate(x, edges, weight=weight[:, 0]))
    twice = edges + edges
    torch.testing.assert_close(aggregate(x, twice), 2 * a @ x)
    assert mean(x, Edges(edges.source[:0], edges.target[:0])).eq(0).all()


def test_sums_have_second_derivatives():
    _c, edges, _relation = graph([3])
    x, weight = features(3).requires_grad_(), torch.rand(len(edges), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x, w: aggregate(x, edges, weight=w), (x, weight))


def test_segment_softmax_is_safe():
    target = torch.tensor([0, 0, 2, 2, 3])
    scores = torch.tensor([1e4, 1e4 - 1, -math.inf, -math.inf, -1e30])
    found = segment_softmax(scores, target, 5)
    torch.testing.assert_close(found, torch.tensor([0.7310586, 0.2689414, 0, 0, 1]))
    raw = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([1, 0, 1, 1, 0, 3])
    expected = torch.cat([raw[[1, 4]].softmax(0), raw[[0, 2, 3]].softmax(0), raw[[5]].softmax(0)])
    torch.testing.assert_close(segment_softmax(raw, target, 4)[[1, 4, 0, 2, 3, 5]], expected)
    assert torch.autograd.gradcheck(lambda s: segment_softmax(s, target, 4), raw)


def test_symmetric_normalisation_is_the_matrix_and_hears_the_first_utterance():
    c, edges, _relation = graph()
    weight = torch.rand(19, 19, dtype=torch.float64)
    weight = (weight + weight.T)[edges.source, edges.target]
    a = dense(edges, 19, weight)
    scale = a.sum(1).rsqrt().diag()
    torch.testing.assert_close(dense(edges, 19, symmetric(edges, 19, weight)), scale @ a @ scale)
    past = window(c, 2, 0)
    past = past.select(~past.loops())
    assert symmetric(past, 19).isfinite().all()
    assert symmetric(past, 19).gt(0).all()


def test_relational_convolution_is_its_formula():
    torch.manual_seed(0)
    c, edges, relation = graph()
    layer, x = RelationalConv(D, OUT, 7, bases=3).double(), features(len(c))  # two types never occur
    expected = layer.root(x)
    for r in range(5):
        a = dense(edges.select(relation == r), len(c))
        expected = expected + a / a.sum(1, keepdim=True).clamp_min(1) @ x @ layer.weights()[r]
    torch.testing.assert_close(layer(x, edges, relation), expected)


def test_high_pass_is_m3nets_formula():
    torch.manual_seed(0)
    _c, edges, _relation = graph()
    edges, x, layer = edges.select(~edges.loops()), features(19), HighPass(D).double()
    edges = edges.select(
        (edges.source != 6) & (edges.target != 6)
    )  # the lone utterance hears nobody: d = 0 is infinite
    degree = torch.bincount(edges.target, minlength=19).double()
    gate = torch.cat([layer.of_target.weight, layer.of_source.weight], 1)
    both = torch.cat([x[edges.target], x[edges.source]], 1)
    alpha = torch.tanh(both @ gate.T + layer.of_target.bias).squeeze(1)
    norm = (degree[edges.source] * degree[edges.target]) ** -0.5
    torch.testing.assert_close(layer(x, edges), x + dense(edges, 19, alpha * norm) @ x)


def test_hypergraph_weights_follow_the_published_formula():
    torch.manual_seed(0)
    c, present = dialogues(LENGTHS), torch.ones(19, 3, dtype=torch.bool)
    present[4:7, 1] = False
    groups, x = hyperedges(c, present), features(57)
    weight, member = torch.rand(groups.count).double() + 0.1, torch.rand(len(groups.into)).double() + 0.1
    h = torch.zeros(57, groups.count, dtype=torch.float64)
    met = h.index_put((groups.into.source, groups.into.target), member)
    heard = h.index_put((groups.out.target, groups.out.source), weight[groups.out.source])
    layer = HypergraphConv(D, OUT).double()
    b, d = met.sum(0).clamp_min(1e-9), heard.sum(1, keepdim=True).clamp_min(1e-9)
    expected = heard / d @ (met / b).T @ layer.linear(x) + layer.bias
    torch.testing.assert_close(layer(x, groups, weight, member), expected)
    plain = HypergraphConv(D, D, linear=False, bias=False)
    assert not list(plain.parameters())
    assert plain(x, groups).shape == x.shape
    with pytest.raises(BadConfig, match="linear=true"):
        HypergraphConv(D, OUT, linear=False)


def test_types_without_a_table_are_refused():
    _c, edges, relation = graph()
    for kind in (GraphAttention, GraphTransformer):
        with pytest.raises(BadConfig, match="relations=COUNT"):
            kind(D, OUT)(torch.randn(19, D), edges, relation)
        with pytest.raises(BadConfig, match="relations=COUNT"):
            kind(D, OUT, relations=5)(torch.randn(19, D), edges)


def test_multimodal_graphs_of_windows_and_modalities_run_through_every_layer(layer):
    c, present = dialogues(LENGTHS), torch.rand(19, 3) < 0.7
    edges = within_modal(window(c, 2, 2), present) + cross_modal(present)
    assert layer(features(57), edges, relations(c, edges)[0]).isfinite().all()


@pytest.fixture
def pyg():
    return pytest.importorskip("torch_geometric.nn", reason="torch-geometric is what we compare with")


def copy(into: torch.Tensor, value: torch.Tensor) -> None:
    with torch.no_grad():
        into.copy_(value.reshape(into.shape))


def index(edges: Edges) -> torch.Tensor:
    return torch.stack([edges.source, edges.target])


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("bases", "normalise"), [(None, "mean"), (3, "mean"), (2, "sum")])
def test_relational_convolution_equals_pyg(pyg, bases, normalise):
    _c, edges, relation = graph(past=4, future=1)
    ours = RelationalConv(D, OUT, 5, bases=bases, normalise=normalise)
    theirs = pyg.RGCNConv(D, OUT, 5, num_bases=bases, aggr={"mean": "mean", "sum": "add"}[normalise])
    copy(theirs.weight, ours.bases)
    if bases:
        copy(theirs.comp, ours.mixture)
    copy(theirs.root, ours.root.weight.T)
    copy(theirs.bias, ours.root.bias)
    x = features(19).float()
    same(ours(x, edges, relation), theirs(x, index(edges), relation))


@pytest.mark.parametrize(("concat", "types"), [(True, 0), (False, 5)])
def test_attention_equals_pyg(pyg, concat, types):
    _c, edges, relation = graph(past=4, future=1)
    ours = GraphAttention(D, OUT, heads=3, concat=concat, relations=types)
    options = {"heads": 3, "concat": concat, "add_self_loops": False, "edge_dim": types or None}
    theirs = pyg.GATv2Conv(D, OUT, **options)
    for mine, other in [(ours.of_source, theirs.lin_l), (ours.of_target, theirs.lin_r)]:
        copy(other.weight, mine.weight)
        copy(other.bias, mine.bias)
    copy(theirs.att, ours.attention)
    x, one_hot = features(19).float(), nn.functional.one_hot(relation, 5).float()
    if types:
        copy(theirs.lin_edge.weight, ours.relation.weight.T)
        same(ours(x, edges, relation), theirs(x, index(edges), one_hot))
    else:
        same(ours(x, edges), theirs(x, index(edges)))


@pytest.mark.parametrize(("concat", "types", "beta"), [(True, 0, False), (True, 5, True), (False, 5, True)])
def test_transformer_equals_pyg(pyg, concat, types, beta):
    _c, edges, relation = graph(past=4, future=1)
    ours = GraphTransformer(D, OUT, heads=2, concat=concat, relations=types, beta=beta)
    theirs = pyg.TransformerConv(D, OUT, heads=2, concat=concat, edge_dim=types or None, beta=beta)
    for name in ("query", "key", "value", "skip"):
        copy(getattr(theirs, f"lin_{name}").weight, getattr(ours, name).weight)
        copy(getattr(theirs, f"lin_{name}").bias, getattr(ours, name).bias)
    if beta:
        copy(theirs.lin_beta.weight, ours.gate.weight)
    if types:
        copy(theirs.lin_edge.weight, ours.relation.weight.T)
    x, one_hot = features(19).float(), nn.functional.one_hot(relation, 5).float()
    same(ours(x, edges, relation if types else None), theirs(x, index(edges), one_hot if types else None))


@pytest.mark.parametrize("variant", [False, True])
def test_gcnii_equals_pyg(pyg, variant):
    _c, edges, _relation = graph()
    ours = GCNII(D, 3, alpha=0.2, lam=0.7, variant=variant)
    options = {"shared_weights": not variant, "add_self_loops": False}
    theirs = pyg.GCN2Conv(D, alpha=0.2, theta=0.7, layer=3, **options)
    if variant:  # theirs scales [A h; h_0] by 1 - alpha and alpha before the weight, the authors' code does not
        copy(theirs.weight1, ours.weight[:D] / 0.8)
        copy(theirs.weight2, ours.weight[D:] / 0.2)
    else:
        copy(theirs.weight1, ours.weight)
    h, initial = features(19).float(), features(19).float().tanh()
    heard = aggregate(h, edges, weight=symmetric(edges, len(h)))
    same(ours(heard, initial), theirs(h, initial, index(edges)))


def test_hypergraph_convolution_equals_pyg(pyg):
    c, present = dialogues(LENGTHS), torch.rand(19, 3) < 0.7
    groups, x = hyperedges(c, present), features(57).float()
    ours, theirs = HypergraphConv(D, OUT), pyg.HypergraphConv(D, OUT)
    copy(theirs.lin.weight, ours.linear.weight)
    same(ours(x, groups), theirs(x, index(groups.into), num_edges=groups.count))
