from __future__ import annotations

import pytest
import torch
from tests.layers.dialogues import dialogues
from tests.models.contexts.test_modal_graph import DIMS, nodes_of, rows
from torch.nn import functional as F

from affuse.layers.conversation import conversations
from affuse.layers.edges import cross_modal, hyperedges, window, within_modal
from affuse.layers.graph import HypergraphConv
from affuse.models.contexts.hypergraph import ModalHypergraph


def part(**options):
    torch.manual_seed(0)
    made = ModalHypergraph(DIMS, **{"dim": 8, "layers": 2, "high": 2, **options}).eval()
    with torch.no_grad():
        made.over_time.copy_(torch.tensor([[0.3], [-0.5], [0.1]]))
        made.bias.normal_()
    return made


CASES = [({}, None, None), ({"past": 3, "future": 2}, 3, 2), ({"mode": "causal", "past": 2}, 2, 0)]


@pytest.mark.parametrize(("options", "past", "future"), CASES)
def test_hypergraph_equals_its_incidence_form(options, past, future):
    """D^-1 H W B^-1 H^T X over `hyperedges`, as HypergraphConv computes it."""
    c = dialogues([5, 1, 80], anonymous=True)
    (x, present), made = rows(c), part(**options)
    nodes = nodes_of(made, x, present, c)
    flat = nodes.transpose(0, 1).flatten(0, 1)
    groups = hyperedges(c, present, past, future)
    kind = groups.kind[groups.into.target]
    member = made.member(flat).sigmoid()[groups.into.source, kind]
    share = made.over_time.sigmoid().squeeze(1).repeat_interleave(len(c))
    h = flat
    for bias in made.bias:  # a node's groups weigh share and 1 - share, which differ by its stream: one call per stream
        heard = torch.zeros_like(h)
        for s in range(len(DIMS)):
            part_of = slice(s * len(c), (s + 1) * len(c))
            weight = torch.where(groups.kind == 0, share[part_of][0], 1 - share[part_of][0])
            heard[part_of] = HypergraphConv(8, 8, linear=False, bias=False)(h, groups, weight, member)[part_of]
        h = F.leaky_relu(heard + bias)
    found = made(x, present, c)
    for i, s in enumerate(DIMS):
        expected = h.view(3, len(c), 8)[i] * present[:, i, None]
        torch.testing.assert_close(found[s][:, :8], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("options", "past", "future"), CASES)
def test_high_pass_equals_its_sparse_form(options, past, future):
    c = dialogues([5, 1, 80])
    (x, present), made = rows(c), part(**options)
    flat = nodes_of(made, x, present, c).transpose(0, 1).flatten(0, 1)
    edges = within_modal(window(c, past, future), present)
    edges = edges.select(~edges.loops()) + cross_modal(present)
    for layer in made.passes:
        flat = layer(flat, edges)
    found = made(x, present, c)
    for i, s in enumerate(DIMS):
        torch.testing.assert_close(
            found[s][:, 8:], flat.view(3, len(c), 8)[i] * present[:, i, None], rtol=1e-4, atol=1e-5
        )


def test_one_dialogue_by_hand():
    c, made = dialogues([3]), part(layers=1, high=1, speaker="none")
    x, present = rows(c, share=2.0)
    nodes = nodes_of(made, x, present, c)
    weight = made.member(nodes).sigmoid()
    found, layer = made(x, present, c), made.passes[0]
    for s, name in enumerate(DIMS):
        r = made.over_time[s].sigmoid()
        over_time = sum(weight[j, s, 0] * nodes[j, s] for j in range(3)) / sum(weight[j, s, 0] for j in range(3))
        for i in range(3):
            at_once = sum(weight[i, m, 1] * nodes[i, m] for m in range(3)) / sum(weight[i, m, 1] for m in range(3))
            hyper = F.leaky_relu(r * over_time + (1 - r) * at_once + made.bias[0])
            heard = [nodes[j, s] for j in range(3) if j != i] + [nodes[i, m] for m in range(3) if m != s]
            gates = [
                torch.tanh(layer.of_target(nodes[i, s]) + layer.of_source(v)) / 4 for v in heard
            ]  # every degree is 4
            high = nodes[i, s] + sum(g * v for g, v in zip(gates, heard))
            torch.testing.assert_close(found[name][i], torch.cat([hyper, high]), rtol=1e-4, atol=1e-6)


def test_the_place_in_a_batch_means_nothing():
    """Published defect: hyperedge weights belonged to places in the batch, and ran out of them."""
    made, lengths = part(), [40, 3, 600]
    c = dialogues(lengths)
    x, present = rows(c)
    whole = made(x, present, c)
    last = slice(43, 643)
    alone = conversations(["z"] * 600, range(600), [str(int(w)) for w in c.speaker[last]])
    found = made({s: v[last] for s, v in x.items()}, present[last], alone)
    for s in DIMS:
        torch.testing.assert_close(found[s], whole[s][last], rtol=1e-4, atol=1e-5)


def test_reach_is_enough_and_needed():
    made = part(mode="causal", past=2)
    who = [f"s{i % 3 % 2}" for i in range(20)]
    c = conversations(["a"] * 20, range(20), who)
    x, present = rows(c, share=2.0)
    whole = made(x, present, c)["words"][-1]

    def last(count):
        c = conversations(["a"] * count, range(count), who[-count:])
        return made({s: v[-count:] for s, v in x.items()}, present[-count:], c)["words"][-1]

    assert made.reach == 7
    torch.testing.assert_close(last(made.reach + 1), whole, rtol=1e-5, atol=1e-6)
    assert not torch.equal(last(made.reach - 2), whole)
