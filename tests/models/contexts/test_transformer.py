"""The transformer over conversations: its equations by loops, its windows by gradients, its memory by counting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from affuse.core.errors import BadConfig
from affuse.layers.blocks import blocks
from affuse.layers.conversation import Conversations, conversations
from affuse.models.contexts.transformer import ContextTransformer

LENGTHS = (6, 1, 90, 4)
N = sum(LENGTHS)


def talk(lengths=LENGTHS, speaker=None) -> Conversations:
    names = [f"c{c}" for c, length in enumerate(lengths) for _ in range(length)]
    position = [i for length in lengths for i in range(length)]
    who = [["a", "b", "b", "a", ""][k % 5] for k in range(sum(lengths))]
    return conversations(names, position, speaker or who)


def make(**options) -> ContextTransformer:
    torch.manual_seed(0)
    part = ContextTransformer({"fused": 6}, **{"dim": 8, "heads": 2, **options}).eval()
    for layer in part.layers["fused"]:
        if layer.distance is not None:
            torch.nn.init.normal_(layer.distance)
    return part


def run(part: ContextTransformer, x: Tensor, who: Conversations, present: Tensor | None = None) -> Tensor:
    return part({"fused": x}, torch.ones(len(x), 1, dtype=torch.bool) if present is None else present, who)["fused"]


def by_loops(
    part: ContextTransformer, x: Tensor, who: Conversations, past: int | None, future: list[int | None]
) -> Tensor:
    """The same, one utterance and one head at a time."""
    h = part.start["fused"](x)
    for layer, ahead in zip(part.layers["fused"], future, strict=True):
        q, k, v = (m.unflatten(1, (2, 4)) for m in layer.project(layer.before(h)).chunk(3, 1))
        mixed = torch.zeros_like(q)
        for i in range(len(x)):
            near = [j for j in range(len(x)) if who.conversation[i] == who.conversation[j]]
            near = [j for j in near if (past is None or i - j <= past) and (ahead is None or j - i <= ahead)]
            for head in range(2):
                scores = []
                for j in near:
                    same = i == j or (who.speaker[i] == who.speaker[j] and who.speaker[i] >= 0)
                    score = q[i, head] @ (k[j, head] + (layer.same[head] if same else 0)) / 2
                    scores.append(score + layer.distance[max(-64, min(64, j - i)) + 64, head])
                mixed[i, head] = torch.stack(scores).softmax(0) @ v[near, head]
        h = h + layer.out(mixed.flatten(1))
        h = h + layer.feed(layer.between(h))
    return part.norm["fused"](h)


@pytest.mark.parametrize(
    ("options", "future"),
    [
        ({}, [None, None]),
        ({"mode": "causal"}, [0, 0]),
        ({"mode": "causal", "past": 3}, [0, 0]),
        ({"mode": "lookahead", "past": 3, "lookahead": 3}, [2, 1]),
    ],
)
def test_its_equations(options, future):
    part, x, who = make(**options), torch.randn(N, 6), talk()
    with torch.no_grad():
        expected = by_loops(part, x, who, options.get("past"), future)
        torch.testing.assert_close(run(part, x, who), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("mode", "lookahead"), [("causal", 0), ("lookahead", 1), ("lookahead", 5)])
def test_it_reaches_as_far_as_it_says(mode, lookahead):
    part, who = make(mode=mode, past=4, layers=3, lookahead=lookahead), talk()
    assert part.reach == 12
    x, at = torch.randn(N, 6, requires_grad=True), 7 + 50
    run(part, x, who)[at, 0].backward()
    heard = x.grad.any(1).nonzero().squeeze(1).tolist()
    assert heard == list(range(at - 12, at + lookahead + 1))


def test_the_last_rows_are_enough_for_the_last_answer():
    part, x = make(mode="causal", past=4), torch.randn(80, 6)
    names = [["a", "b", ""][k % 3] for k in range(80)]
    whole = run(part, x, talk((80,), names))
    recent = part.reach + 1
    torch.testing.assert_close(run(part, x[-recent:], talk((recent,), names[-recent:]))[-1], whole[-1])


def test_absent_utterances_are_not_heard():
    part, who, x = make(), talk(), torch.randn(N, 6)
    present = torch.ones(N, 1, dtype=torch.bool)
    present[[2, 20, 21]] = False
    changed = x.clone()
    changed[~present[:, 0]] = 5.0
    before, after = run(part, x, who, present), run(part, changed, who, present)
    assert torch.equal(before[present[:, 0]], after[present[:, 0]])
    assert torch.isfinite(run(part, x * 0, who, ~present & present)).all()


def test_sinusoids_tell_places_and_cannot_be_live():
    part = make(positions="sinusoidal", mode="causal", past=4)
    assert part.reach is None
    same = run(part, torch.ones(5, 6), talk((5,), [""] * 5))
    assert not torch.allclose(same[3], same[4])
    layers, start = part.layers["fused"], part.start["fused"]
    assert all(layer.distance is None for layer in layers)
    angle = 2.0 * 10000 ** (-torch.arange(4) / 4)
    h = start(torch.ones(1, 6))
    moved = (h + torch.cat([angle.sin(), angle.cos()])).detach()
    seen = []
    layers[0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    run(part, torch.ones(5, 6), talk((5,)))
    torch.testing.assert_close(seen[0][2:3].detach(), moved)


def test_scores_take_no_more_memory_than_is_heard():
    lengths = [1, 1, 2, 3, 5, 9, 17, 33, 60, 61, 62, 120, 250, 500]
    pairs = sum(length**2 for length in lengths)
    assert sum(b.attended.numel() for b in blocks(talk(lengths), None, 0).parts) < 1.3 * pairs
    assert sum(b.attended.numel() for b in blocks(talk(lengths), 10, 0).parts) < 0.3 * pairs


@pytest.mark.parametrize("positions", ["relative", "sinusoidal"])
def test_everything_is_trained_and_dropout_is_for_training(positions):
    part, who, x = make(dropout=0.5, positions=positions), talk(), torch.randn(N, 6)
    assert torch.equal(run(part, x, who), run(part, x, who))
    part.train()
    out = run(part, x, who)
    assert not torch.allclose(out, run(part, x, who))
    out.square().mul(torch.rand_like(out)).sum().backward()
    assert [n for n, p in part.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_what_cannot_be_is_refused():
    for options in ({"dim": 10, "heads": 4}, {"layers": 0}, {"past": -1}, {"lookahead": 2}):
        with pytest.raises(BadConfig):
            make(**options)
    assert make(mode="causal").reach is None
