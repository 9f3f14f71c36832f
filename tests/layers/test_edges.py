from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from affuse.core.errors import BadConfig
from affuse.layers.edges import (
    Edges,
    complete,
    cross_modal,
    dilated,
    hyperedges,
    relations,
    similarity,
    window,
    within_modal,
)

from .dialogues import dialogues

LENGTHS = [7, 1, 12, 3, 30]


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "graph_edges.py"
    spec = importlib.util.spec_from_file_location("graph_edges", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pairs(edges: Edges) -> set[tuple[int, int]]:
    return set(zip(edges.target.tolist(), edges.source.tolist()))


@pytest.mark.parametrize(("past", "future"), [(10, 10), (2, 5), (3, 0), (0, 0), (-1, 2), (4, -1), (-1, -1)])
def test_edges_and_types_are_those_of_the_published_algorithm(benchmark, past, future):
    c = dialogues(LENGTHS, speakers=3)
    turn = torch.zeros(len(c), dtype=torch.int64)
    for b in range(len(LENGTHS)):  # speakers numbered as they first speak
        seen: list[int] = []
        for row in (c.conversation == b).nonzero().squeeze(1).tolist():
            seen += [s for s in [int(c.speaker[row])] if s not in seen]
            turn[row] = seen.index(int(c.speaker[row]))
    one_hot = torch.zeros(max(LENGTHS), len(LENGTHS), 3)
    one_hot[c.position, c.conversation, turn] = 1
    theirs, types = benchmark.published(LENGTHS, one_hot, past, future)
    edges = window(c, *(None if bound < 0 else bound for bound in (past, future)))
    found, count = relations(c, edges, "absolute", speakers=3)
    assert count == 18
    assert benchmark.agree(c, theirs, types, edges, found)


def test_dilated_windows_are_the_pairs_their_definition_names():
    c = dialogues(LENGTHS)
    for past, future, dilation in [(4, 4, 2), (5, 1, 3), (None, None, 4), (3, None, 1), (None, 0, 2)]:
        expected = {
            (i, j)
            for i in range(len(c))
            for j in range(len(c))
            if c.conversation[i] == c.conversation[j]
            and (i - j) % dilation == 0
            and i - j <= (len(c) if past is None else past)
            and j - i <= (len(c) if future is None else future)
        }
        edges = dilated(c, past, future, dilation)
        assert pairs(edges) == expected
        assert len(edges) == len(expected)
    assert pairs(complete(c)) == pairs(window(c, None, None))


def test_an_impossible_window_is_refused():
    for bounds in [(-1, 2, 1), (2, -1, 1), (2, 2, 0)]:
        with pytest.raises(BadConfig, match="past and future are utterances"):
            dilated(dialogues([3]), *bounds)


def test_edges_can_be_turned_joined_chosen_and_looped():
    edges = Edges(torch.tensor([0, 1, 1]), torch.tensor([1, 1, 2]))
    assert pairs(edges.reverse()) == {(0, 1), (1, 1), (1, 2)}
    looped = edges.with_self(3)
    assert pairs(looped) == pairs(edges) | {(0, 0), (1, 1), (2, 2)}
    assert len(looped) == 5
    assert looped.degree(4).tolist() == [1, 2, 2, 0]
    assert len(edges.select(~edges.loops()) + edges) == 5
    assert edges.to("cpu").degree(3).tolist() == [0, 2, 1]


def test_no_utterances_no_edges():
    c = dialogues([])
    assert len(window(c, 2, 2)) == len(complete(c)) == 0
    present = torch.ones(0, 3, dtype=torch.bool)
    assert len(cross_modal(present)) == len(within_modal(window(c, 1, 1), present)) == 0
    assert hyperedges(c, present).count == 0
    for kind, count in [("temporal", 3), ("relative", 5), ("absolute", 2)]:
        found, total = relations(c, window(c, 1, 1), kind)
        assert (len(found), total) == (0, count)


def test_modalities_join_only_where_they_are_present():
    c = dialogues([3, 2])
    n, present = len(c), torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 0]]).bool()
    has = {(m, i) for m in range(3) for i in range(n) if present[i, m]}
    cross = {(a * n + i, b * n + i) for a, i in has for b in range(3) if a != b and (b, i) in has}
    assert pairs(cross_modal(present)) == cross
    edges = window(c, 1, 1)
    lifted = {(m * n + i, m * n + j) for i, j in pairs(edges) for m in range(3) if (m, i) in has and (m, j) in has}
    assert pairs(within_modal(edges, present)) == lifted


def test_similarity_is_exact_at_its_ends_and_safe_at_zero():
    x = torch.tensor([[1.0, 0], [3, 0], [-2, 0], [0, 5], [0, 0]], dtype=torch.float64, requires_grad=True)
    edges = Edges(torch.tensor([0, 1, 0, 3, 0, 4]), torch.tensor([0, 0, 2, 0, 4, 4]))
    angular, cosine = similarity(x, edges), similarity(x, edges, "cosine")
    torch.testing.assert_close(cosine, torch.tensor([1.0, 1, -1, 0, 0, 0]).double())
    torch.testing.assert_close(angular, torch.tensor([1, 1, 0, 0.5, 0.5, 0.5]).double())
    (angular + cosine).sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad[4].eq(0).all()


def test_similarity_is_one_minus_the_angle_over_pi():
    torch.manual_seed(0)
    x, edges = torch.randn(22, 6, dtype=torch.float64), window(dialogues([22]), 5, 5)
    edges = edges.select(~edges.loops())
    cosine = torch.cosine_similarity(x[edges.source], x[edges.target])
    torch.testing.assert_close(similarity(x, edges), 1 - cosine.acos() / torch.pi)
    few = edges.select(slice(0, 4))
    assert torch.autograd.gradcheck(lambda x: similarity(x, few), x[:5].clone().requires_grad_())


def test_relative_relations_are_named_by_time_and_speaker():
    c = replace(dialogues([4]), speaker=torch.tensor([0, 1, 0, -1]))
    found, count = relations(c, complete(c))
    grid = torch.zeros(4, 4, dtype=torch.int64).index_put_((complete(c).target, complete(c).source), found)
    assert grid.tolist() == [[0, 4, 2, 4], [3, 0, 4, 4], [1, 3, 0, 4], [3, 3, 3, 0]]
    assert count == 5


def test_new_names_for_speakers_change_no_relation():
    c = dialogues(LENGTHS, speakers=3, anonymous=True)
    edges, new = window(c, 4, 4), torch.randperm(int(c.speaker.max()) + 1)
    renamed = replace(c, speaker=torch.where(c.speaker < 0, -1, new[c.speaker]))
    for kind in ("relative", "absolute"):
        assert torch.equal(relations(c, edges, kind, 3)[0], relations(renamed, edges, kind, 3)[0])


def test_speakers_past_the_last_number_and_nameless_ones_share_it():
    c = replace(dialogues([4]), speaker=torch.tensor([5, 3, 9, -1]))
    loops = Edges(torch.arange(4), torch.arange(4))
    found, count = relations(c, loops, "absolute", speakers=2)
    assert found.tolist() == [1, 7, 7, 7]
    assert count == 8
    assert relations(c, loops, "absolute")[1] == 18


def test_who_comes_later_never_changes_the_relations_of_the_past():
    c, short = dialogues([9, 5], speakers=4), dialogues([9], speakers=4)
    for kind in ("relative", "absolute"):
        whole = relations(c, window(c, 3, 0), kind, 4)[0]
        begun = relations(short, window(short, 3, 0), kind, 4)[0]
        assert torch.equal(whole[: len(begun)], begun)


def test_modalities_have_types_of_their_own():
    c, present = dialogues([3, 4]), torch.ones(7, 3, dtype=torch.bool)
    edges = within_modal(window(c, 2, 2), present) + cross_modal(present)
    found, count = relations(c, edges, "temporal", modalities=3)
    assert count == 15  # the seed system's: three temporal signs of three modalities, six pairs
    assert found.unique().tolist() == list(range(15))
    assert relations(c, edges, "temporal")[1] == 3


def test_hyperedges_group_by_modality_and_by_utterance():
    c, present = dialogues([2, 3]), torch.ones(5, 2, dtype=torch.bool)
    present[3, 1] = False
    groups = hyperedges(c, present)
    members = [set(groups.into.source[groups.into.target == g].tolist()) for g in range(groups.count)]
    assert members == [{0, 1}, {5, 6}, {2, 3, 4}, {7, 9}, {0, 5}, {1, 6}, {2, 7}, {3}, {4, 9}]
    assert groups.kind.tolist() == [0] * 4 + [1] * 5
    assert pairs(groups.out) == pairs(groups.into.reverse())


def test_causal_hyperedges_are_windows_of_their_own():
    c, present = dialogues([4]), torch.ones(4, 2, dtype=torch.bool)
    groups = hyperedges(c, present, past=2, future=0)
    for g, heard in zip(groups.out.source.tolist(), groups.out.target.tolist()):
        assert (groups.into.source[groups.into.target == g] % 4 <= heard % 4).all()
    assert set(groups.into.source[groups.into.target == 3].tolist()) == {1, 2, 3}
