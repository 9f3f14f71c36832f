from __future__ import annotations

import pytest
import torch
from tests.layers.dialogues import dialogues
from tests.models.contexts.test_modal_graph import DIMS, rows

from affuse.core.errors import BadConfig
from affuse.layers.conversation import conversations
from affuse.layers.positions import sinusoids
from affuse.models.contexts.cross_attention import FAR, CrossModalAttention


def part(**options):
    torch.manual_seed(0)
    return CrossModalAttention(DIMS, **{"dim": 8, "heads": 2, **options}).eval()


def block(matrix, m, h, dim=8, wide=4):
    """Rows of a stream's projection that belong to partner m and head h."""
    return matrix[m * dim + h * wide : m * dim + (h + 1) * wide]


def heard_by(made, nodes, present, c, m, n, i, past, ahead):
    """What utterance i of stream m hears of stream n, one utterance after the other."""
    parts = []
    for h in range(2):
        q = block(made.query[m].weight, n, h)
        if made.attention == "cross":
            k = block(made.key[n].weight, m, h)
        else:
            k = block(made.key[n].weight, 0, h) if m == n else block(made.query[n].weight, m, h)
        v, b = block(made.value[n].weight, m, h), block(made.value[n].bias, m, h)
        scores, values = [], []
        for j in range(len(nodes)):
            if not present[j, n] or not i - past <= j <= i + ahead:
                continue
            score = nodes[i, m] @ (q.T @ k) @ nodes[j, n] / 2  # X W Y^T, W = Q^T K of this head
            if made.near is not None:
                other = i != j and (c.speaker[i] != c.speaker[j] or c.speaker[i] < 0)
                score = score + made.near.weight[j - i + FAR + bool(other) * (2 * FAR + 1), h]
            scores.append(score)
            values.append(v @ nodes[j, n] + b)
        share = torch.stack(scores).softmax(0) if scores else torch.zeros(0)
        parts.append(sum((a * w for a, w in zip(share, values)), torch.zeros(4)))
    return torch.cat(parts)


@pytest.mark.parametrize(("options", "past", "ahead"), [
    ({}, 99, 99), ({"attention": "co"}, 99, 99), ({"past": 2, "future": 1, "attention": "co"}, 2, 1),
    ({"mode": "causal", "past": 2}, 2, 0), ({"mode": "lookahead", "lookahead": 1}, 99, 1),
    ({"positions": "none"}, 99, 99),
    ({"positions": "sinusoid", "speaker": "turn"}, 99, 99),
])  # fmt: skip
def test_equations(options, past, ahead):
    c, made = dialogues([6], anonymous=True), part(**options)
    x, present = rows(c, share=0.6)
    nodes = made.speaker(torch.stack([widen(v) for widen, v in zip(made.widen, x.values())], 1), c)
    if made.positions == "sinusoid":
        nodes = nodes + sinusoids(c.position, 8).unsqueeze(1)
    nodes = nodes * present.unsqueeze(2)
    found = made(x, present, c)
    for m, name in enumerate(DIMS):
        for i in range(6):
            gated = []
            for n in range(3):
                layer = made.pairs[3 * m + n]
                z = layer.first(nodes[i, m] + layer.out(heard_by(made, nodes, present, c, m, n, i, past, ahead)))
                z = layer.second(z + layer.feed(z))
                gated.append(torch.sigmoid(layer.gate.weight @ z) * z)
            expected = made.merge[m](torch.cat(gated)) * present[i, m]
            torch.testing.assert_close(found[name][i], expected, rtol=1e-4, atol=1e-5)


def test_co_attention_shares_one_affinity():
    """In co, fewer parameters: the keys for the other streams are their queries."""
    cross, co = part(), part(attention="co")
    assert sum(p.numel() for p in cross.key.parameters()) == 3 * sum(p.numel() for p in co.key.parameters())
    c = dialogues([4])
    x, present = rows(c, share=2.0)
    nodes = torch.randn(4, 3, 8)
    query, key, _ = co._projections(nodes)
    one = torch.einsum("ihd,jhd->hij", query[:, 0, 1], key[:, 1, 0])
    other = torch.einsum("ihd,jhd->hij", query[:, 1, 0], key[:, 0, 1])
    torch.testing.assert_close(one, other.mT)
    assert not torch.allclose(co(x, present, c)["sound"], cross(x, present, c)["sound"])


def test_absent_utterances_are_never_heard():
    c = dialogues([6, 3])
    (x, present), made = rows(c, share=0.6), part()
    found = made(x, present, c)
    loud = {s: v + 9.0 * ~present[:, i, None] for i, (s, v) in enumerate(x.items())}
    for i, s in enumerate(DIMS):
        assert not found[s][~present[:, i]].any()
        torch.testing.assert_close(made(loud, present, c)[s], found[s])


def test_a_conversation_of_one_and_one_of_500_do_not_disturb_each_other():
    lengths = [1, 500, 7]
    c = dialogues(lengths)
    (x, present), made = rows(c), part()
    whole = made(x, present, c)
    for b, start in enumerate([0, 1, 501]):
        own = slice(start, start + lengths[b])
        alone = conversations(["z"] * lengths[b], range(lengths[b]), [str(int(w)) for w in c.speaker[own]])
        found = made({s: v[own] for s, v in x.items()}, present[own], alone)
        for s in DIMS:
            torch.testing.assert_close(found[s], whole[s][own], rtol=1e-4, atol=1e-5)


def test_dropout_in_training_only():
    c = dialogues([9])
    (x, present), made = rows(c), part(dropout=0.5)
    assert torch.equal(made(x, present, c)["face"], made(x, present, c)["face"])
    made.train()
    assert not torch.equal(made(x, present, c)["face"], made(x, present, c)["face"])


def test_reach_is_enough_and_needed():
    made = part(mode="causal", past=3)
    who = [f"s{i % 3 % 2}" for i in range(20)]
    c = conversations(["a"] * 20, range(20), who)
    x, present = rows(c, share=2.0)
    whole = made(x, present, c)["words"][-1]

    def last(count):
        c = conversations(["a"] * count, range(count), who[-count:])
        return made({s: v[-count:] for s, v in x.items()}, present[-count:], c)["words"][-1]

    assert made.reach == 4
    torch.testing.assert_close(last(5), whole, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(last(3), whole, rtol=1e-5, atol=1e-6)
    assert part(mode="causal", past=3, positions="sinusoid").reach is None
    assert part(mode="causal").reach is None


def test_misfits_are_refused():
    with pytest.raises(BadConfig, match="heads=3"):
        part(heads=3)
    with pytest.raises(BadConfig, match="lookahead=0"):
        part(mode="lookahead")
