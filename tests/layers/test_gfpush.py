from __future__ import annotations

import pytest
import torch

from affuse.core.errors import BadConfig
from affuse.layers.edges import Edges, complete, window
from affuse.layers.gfpush import mixture, propagation

from .dialogues import dialogues, slot

LENGTHS = [5, 1, 40, 12, 13, 2]


def published(edges: Edges, n: int, s: int, w: list[float], r_max: float) -> torch.Tensor:
    """GFPush of source s as GRAND+ writes it: one node, one neighbour at a time."""
    hears = [edges.source[edges.target == v].tolist() for v in range(n)]
    q, r = torch.zeros(n, dtype=torch.float64), {s: 1.0}
    for share in w[:-1]:
        pushed: dict[int, float] = {}
        for v, mass in r.items():
            q[v] += share * mass
            if not hears[v]:
                pushed[s] = pushed.get(s, 0.0) + mass
            elif mass >= r_max * len(hears[v]):
                for u in hears[v]:
                    pushed[u] = pushed.get(u, 0.0) + mass / len(hears[v])
        r = pushed
    for v, mass in r.items():
        q[v] += w[-1] * mass
    return q


def matrix(found: tuple[Edges, torch.Tensor], n: int) -> torch.Tensor:
    edges, weight = found
    assert weight.dtype == torch.float32
    assert len(torch.unique(edges.target * n + edges.source)) == len(edges)
    return torch.zeros(n, n).index_put((edges.target, edges.source), weight)


def random_graph(n: int, count: int, seed: int = 0) -> Edges:
    """Edges drawn at random: directed, doubled ones among them, and nodes that hear nobody."""
    ends = torch.randint(n, (2, count), generator=torch.Generator().manual_seed(seed))
    return Edges(ends[0], ends[1])


@pytest.mark.parametrize("weights", ["ppr", "avg", "single"])
@pytest.mark.parametrize("method", ["dense", "sparse"])
def test_the_whole_of_it_is_the_polynomial(weights, method):
    c = dialogues(LENGTHS)
    n, edges = len(c), window(c, 3, 2)
    p = torch.zeros(n, n, dtype=torch.float64).index_put((edges.target, edges.source), torch.ones(()).double())
    p = p / p.sum(1, keepdim=True)
    w = mixture(weights, 6, 0.15)
    expected = sum(share * torch.linalg.matrix_power(p, k) for k, share in enumerate(w))
    options = {"order": 6, "alpha": 0.15, "top_k": n, "conversation": c.conversation, "method": method}
    torch.testing.assert_close(matrix(propagation(edges, n, weights, **options), n), expected.float())


@pytest.mark.parametrize("method", ["dense", "sparse"])
@pytest.mark.parametrize("r_max", [0.0, 1e-3, 0.03])
def test_pushes_drop_and_return_mass_as_published(method, r_max):
    n = 25
    edges, w = random_graph(n, 40), mixture("ppr", 8, 0.2)
    assert (edges.degree(n) == 0).any()
    found = matrix(propagation(edges, n, order=8, top_k=n, r_max=r_max, method=method), n)
    expected = torch.stack([published(edges, n, s, w, r_max) for s in range(n)])
    torch.testing.assert_close(found, expected.float())
    assert r_max != 0.03 or found.sum() < n - 0.2


def test_mixtures_weigh_steps_to_one():
    for weights in ("ppr", "avg", "single"):
        assert sum(mixture(weights, 7, 0.3)) == pytest.approx(1)
    ppr = mixture("ppr", 7, 0.3)
    assert ppr[3] / ppr[2] == pytest.approx(0.7)
    assert mixture("single", 2, 0.2) == [0, 0, 1]
    for order, alpha in [(-1, 0.2), (3, 0.0), (3, 1.0)]:
        with pytest.raises(BadConfig, match="order >= 0"):
            mixture("ppr", order, alpha)


@pytest.mark.parametrize("method", ["dense", "sparse"])
def test_only_the_largest_of_a_row_are_kept_unchanged(method):
    c = dialogues(LENGTHS)
    n, edges = len(c), window(c, 4, 4)
    options = {"conversation": c.conversation, "method": method}
    whole = matrix(propagation(edges, n, top_k=n, **options), n)
    few = matrix(propagation(edges, n, top_k=5, **options), n)
    assert (few > 0).sum(1).tolist() == (whole > 0).sum(1).clamp_max(5).tolist()
    assert torch.equal(few, torch.where(few > 0, whole, 0))
    torch.testing.assert_close(few.sum(1), whole.topk(5).values.sum(1))
    assert (whole.sum(1) <= 1 + 1e-6).all()
    torch.testing.assert_close(whole.sum(1), torch.ones(n))


def test_dense_and_sparse_choose_the_same_among_equals():
    c = dialogues([300, 30])
    edges = window(c, 10, 10)
    for k in (7, 8, 32):
        ways = [
            propagation(edges, len(c), top_k=k, conversation=c.conversation, method=m)
            for m in ("dense", "sparse", "auto")
        ]
        for found, weight in ways[1:]:
            assert torch.equal(found.source, ways[0][0].source)
            assert torch.equal(found.target, ways[0][0].target)
            torch.testing.assert_close(weight, ways[0][1])


def test_sparse_comes_to_dense_as_r_max_goes_to_zero():
    c = dialogues([60])
    edges, apart = window(c, 5, 5), []
    exact = matrix(propagation(edges, 60, top_k=60, method="dense"), 60)
    for r_max in (1e-2, 1e-3, 1e-4, 1e-6, 0.0):
        found = matrix(propagation(edges, 60, top_k=60, r_max=r_max, method="sparse"), 60)
        assert (found.sum(1) <= 1 + 1e-6).all()
        apart.append(float((found - exact).abs().sum(1).max()))
    assert apart == sorted(apart, reverse=True)
    assert apart[0] > 0.1
    assert apart[-1] < 1e-6


def test_conversations_do_not_touch_each_other():
    c = dialogues(LENGTHS)
    edges, weight = propagation(window(c, 3, 3), len(c), top_k=6, conversation=c.conversation)
    assert torch.equal(c.conversation[edges.source], c.conversation[edges.target])
    for b, length in enumerate(LENGTHS):
        rows, alone = slot(LENGTHS, b), dialogues([length])
        own, own_weight = propagation(window(alone, 3, 3), length, top_k=6)
        inside = c.conversation[edges.target] == b
        assert torch.equal(edges.source[inside] - rows.start, own.source)
        assert torch.equal(weight[inside], own_weight)


def test_nodes_of_a_conversation_need_not_stand_together():
    c = dialogues(LENGTHS)
    n, order = len(c), torch.randperm(len(c))
    place, edges = torch.argsort(order), window(c, 3, 3)
    whole = matrix(propagation(edges, n, top_k=n, conversation=c.conversation), n)
    moved = propagation(Edges(place[edges.source], place[edges.target]), n, top_k=n, conversation=c.conversation[order])
    torch.testing.assert_close(matrix(moved, n), whole[order][:, order])


@pytest.mark.parametrize("method", ["dense", "sparse"])
def test_a_causal_graph_takes_no_mass_from_later_nodes(method):
    c = dialogues([9, 20])
    edges = window(c, 4, 0)
    for graph in (edges, edges.select(~edges.loops())):
        found, weight = propagation(graph, len(c), conversation=c.conversation, method=method)
        assert (found.source <= found.target).all()
        assert weight.gt(0).all()
        begun, begun_weight = propagation(graph.select(graph.target < 5), 5, method=method)
        assert torch.equal(found.source[found.target < 5], begun.source)
        torch.testing.assert_close(weight[found.target < 5], begun_weight)


def test_nothing_lone_and_unheard_nodes():
    none = Edges(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    assert len(propagation(none, 0)[0]) == 0
    for method in ("dense", "sparse"):
        assert torch.equal(matrix(propagation(none, 3, method=method), 3), torch.eye(3))
        c = dialogues([1, 1])
        assert torch.equal(
            matrix(propagation(complete(c), 2, conversation=c.conversation, method=method), 2), torch.eye(2)
        )


def test_edges_between_conversations_are_refused():
    c = dialogues([2, 2])
    with pytest.raises(BadConfig, match="joins two conversations"):
        propagation(Edges(torch.tensor([0]), torch.tensor([3])), 4, conversation=c.conversation)
