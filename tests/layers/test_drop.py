from __future__ import annotations

import pytest
import torch

from affuse.core.errors import BadConfig
from affuse.layers.drop import DropEdge, DropNode, consistency
from affuse.layers.edges import window
from affuse.layers.gfpush import propagation
from affuse.layers.graph import GraphAttention, aggregate, mean

from .dialogues import dialogues


@pytest.fixture
def edges():
    torch.manual_seed(0)
    return window(dialogues([6, 3]), 2, 2)


def test_the_expectation_of_many_draws_is_no_drop(edges):
    x, drop = torch.randn(9, 3, dtype=torch.float64), DropNode(0.3)
    draws = torch.stack([aggregate(x, edges, weight=drop(edges, 9)) for _ in range(4000)])
    error = draws.std(0) / 4000**0.5
    assert ((draws.mean(0) - aggregate(x, edges)).abs() <= 5 * error + 1e-12).all()


def test_a_node_is_lost_whole_and_to_all_but_itself(edges):
    for scale, kept in [(True, 2.0), (False, 1.0)]:
        weight = DropNode(0.5, scale=scale)(edges, 9)
        loops = edges.loops()
        assert weight[loops].eq(1).all()
        for node in range(9):
            said = weight[(edges.source == node) & ~loops]
            assert said.unique().tolist() in ([0.0], [kept])
    both = DropNode(0.5, drop_self=True)(edges, 9)
    assert {0.0} == set(both[edges.loops()].tolist()) - {2.0}


def test_nothing_is_dropped_in_evaluation(edges):
    node, edge, weight = DropNode(0.9).eval(), DropEdge(0.9).eval(), torch.rand(len(edges))
    assert node(edges, 9).eq(1).all()
    assert node(edges, 9, weight) is weight
    assert edge(edges).all()
    assert DropNode(0.0)(edges, 9).eq(1).all()
    assert DropEdge(0.0)(edges).all()


def test_dropped_edges_are_a_share_and_never_loops(edges):
    drop = DropEdge(0.4)
    draws = torch.stack([drop(edges) for _ in range(2000)])
    assert draws[:, edges.loops()].all()
    share = draws[:, ~edges.loops()].double().mean(0)
    assert (share - 0.6).abs().max() < 0.06
    assert not DropEdge(0.99, drop_self=True)(edges)[edges.loops()].all()


def test_gradients_pass_to_those_who_were_heard(edges):
    x = torch.randn(9, 3, requires_grad=True)
    learned = torch.rand(len(edges), requires_grad=True)
    weight = DropNode(0.5)(edges, 9, learned)
    other = (weight * ~edges.loops()).detach()
    aggregate(x, edges, weight=weight * ~edges.loops()).sum().backward()
    heard = torch.zeros(9).index_add(0, edges.source, other)
    torch.testing.assert_close(x.grad, heard.unsqueeze(1).expand(9, 3))
    assert learned.grad[other > 0].ne(0).all()
    assert learned.grad[(other == 0) & ~edges.loops()].eq(0).all()


def test_a_dropped_node_is_not_heard_through_attention(edges):
    layer, x = GraphAttention(3, 4, heads=2), torch.randn(9, 3)
    weight = torch.ones(len(edges)).masked_fill((edges.source == 2) & ~edges.loops(), 0)
    value = layer.of_source(x).detach().requires_grad_()
    layer.of_source.register_forward_hook(lambda *_: value)
    layer(x, edges, weight=weight)[[0, 1, 3, 4]].sum().backward()
    with_scores = value.grad[2].clone()
    layer.attention.data.zero_()  # all scores are equal: what is left of the gradient is the message itself
    value.grad = None
    layer(x, edges, weight=weight)[[0, 1, 3, 4]].sum().backward()
    assert with_scores.ne(0).any()
    assert value.grad[2].eq(0).all()


def test_random_propagation_of_grand_plus_is_a_mean_over_who_is_left():
    torch.manual_seed(0)
    c, x = dialogues([12]), torch.randn(12, 3)
    found, pi = propagation(window(c, 3, 3), 12, top_k=6)
    drop = DropNode(0.5, scale=False, drop_self=True)
    weight = drop(found, 12, pi)
    dense = torch.zeros(12, 12).index_put((found.target, found.source), weight)
    expected = dense @ x / (dense.sum(1, keepdim=True) + 1e-12)
    torch.testing.assert_close(mean(x, found, weight=weight), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        mean(x, found, weight=drop.eval()(found, 12, pi)).mean(0), mean(x, found, weight=pi).mean(0)
    )


def test_consistency_is_its_formula():
    torch.manual_seed(0)
    draws = [torch.randn(7, 4, dtype=torch.float64).softmax(1) for _ in range(3)]
    average = sum(draws) / 3
    sharp = average.pow(2) / average.pow(2).sum(1, keepdim=True)
    sure = average.amax(1) > 0.4
    assert 0 < sure.sum() < 7
    expected = sum(((p - sharp) ** 2).sum(1) for p in draws) / 3 * sure
    torch.testing.assert_close(consistency(draws, 0.5, 0.4), expected)


def test_consistency_is_safe_and_teaches_only_the_draws():
    p = torch.tensor([[1.0, 0, 0], [0.4, 0.3, 0.3]], requires_grad=True)
    assert consistency([p[:1], p[:1]]).tolist() == [0]
    assert consistency([p, p], confidence=1.0).tolist() == [0, 0]
    loss = consistency([p, p.flip(1)], 0.1).sum()
    loss.backward()
    assert p.grad.isfinite().all()
    q = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    fixed = torch.randn(4, 3, dtype=torch.float64).softmax(1)
    (found,) = torch.autograd.grad(consistency([q.softmax(1), fixed]).sum(), q)
    assert found.isfinite().all() and found.ne(0).any()
    assert consistency([p[:0], p[:0]]).shape == (0,)


def test_impossible_shares_are_refused():
    for p in (-0.1, 1.0):
        for kind in (DropNode, DropEdge):
            with pytest.raises(BadConfig, match="0 <= p < 1"):
                kind(p)
