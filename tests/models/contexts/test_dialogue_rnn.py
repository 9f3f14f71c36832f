"""DialogueRNN against its equations, one utterance after the other."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.layers.conversation import Conversations, conversations
from affuse.models.contexts.dialogue_rnn import DialogueRNN

WHO = (["a", "b", "a", "", "c", "b", "", "a"], ["a"], ["", "", "b", "d", "b"], ["a", "b"] * 7)
LENGTHS = [len(names) for names in WHO]
N = sum(LENGTHS)
SIZES = {"dim": 3, "global_dim": 4, "party_dim": 5}
OPTIONS = [
    {"past": past, "attention": attention, "listener": listener, "matching": matching}
    for past, attention, listener, matching in itertools.product(
        (3, None), ("general", "simple"), (False, True), (False, True)
    )
]


def talk(who=WHO) -> Conversations:
    names = [f"c{c}" for c, turns in enumerate(who) for _ in turns]
    return conversations(names, [i for turns in who for i in range(len(turns))], [s for turns in who for s in turns])


def make(**options) -> DialogueRNN:
    torch.manual_seed(0)
    return DialogueRNN({"fused": 6}, **{**SIZES, **options}).eval()


def run(part: DialogueRNN, x: Tensor, who: Conversations) -> Tensor:
    return part({"fused": x}, torch.ones(len(x), 1, dtype=torch.bool), who)["fused"]


def cell(mine: nn.Module) -> nn.GRUCell:
    """torch's cell with the same weights, for [a; b] -> h."""
    theirs = nn.GRUCell(mine.of_ahead.in_features + mine.of_other.in_features, mine.of_state.in_features)
    theirs.load_state_dict(
        {"weight_ih": torch.cat([mine.of_ahead.weight, mine.of_other.weight], 1), "bias_ih": mine.of_ahead.bias,
         "weight_hh": mine.of_state.weight, "bias_hh": mine.of_state.bias}
    )  # fmt: skip
    return theirs


def by_loops(way: nn.Module, x: Tensor, names: list[str], past: int | None) -> Tensor:
    """e of one dialogue one way, as the published code: a state for everyone who will ever speak, from the start."""
    whole, speaking, listening = (None if c is None else cell(c) for c in (way.whole, way.speaking, way.listening))
    people = {s if s else ("", t): torch.zeros(1, 5) for t, s in enumerate(names)}
    history, g, e, found = [], torch.zeros(1, 4), None, []
    for t, (u, s) in enumerate(zip(x.split(1), names, strict=True)):
        key = s if s else ("", t)
        g_now = whole(torch.cat([u, people[key]], 1), g)
        c = torch.zeros(1, 4)
        if history:
            near = torch.cat(history if past is None else history[-past:])
            c = (near @ (way.score if way.query is None else way.query(u)[0])).softmax(0) @ near
            c = c.unsqueeze(0)
        spoken = speaking(torch.cat([u, c], 1), people[key])
        if listening is not None:
            people = {k: listening(torch.cat([u, spoken], 1), q) for k, q in people.items()}
        people[key] = spoken
        out, e = way.emotion(spoken, e)
        history, g = [*history, g_now], g_now
        found.append(out)
    return torch.cat(found)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("mode", ["offline", "causal"])
def test_its_equations(mode, options):
    part, x = make(mode=mode, **options), torch.randn(N, 6)
    found = run(part, x, talk()).split(LENGTHS)
    ways = part.ways["fused"]
    for got, piece, names in zip(found, x.split(LENGTHS), WHO, strict=True):
        expected = by_loops(ways[0], piece, names, options["past"])
        if mode == "offline":
            back = by_loops(ways[1], piece.flip(0), names[::-1], options["past"]).flip(0)
            expected = torch.cat([expected, back], 1)
        if options["matching"]:
            layer = part.matching["fused"]
            scores = torch.tanh(layer.transform(expected) @ expected.T)
            if mode == "causal":
                seen = torch.ones_like(scores, dtype=torch.bool).tril()
                seen &= seen.triu(-(options["past"] or 99))
                scores = scores.masked_fill(~seen, -torch.inf)
            expected = scores.softmax(1) @ expected
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [o for o in OPTIONS if o["past"]])
def test_live_equals_afterwards_and_the_future_has_no_gradient(options):
    part, x = make(mode="causal", **options), torch.randn(N, 6, requires_grad=True)
    offline, row = run(part, x, talk()), 0
    for names in WHO:
        state = part.begin()
        for name in names:
            there = torch.ones(1, 1, dtype=torch.bool)
            found, state = part.push({"fused": x[row : row + 1].detach()}, there, name, state)
            torch.testing.assert_close(found["fused"], offline[row : row + 1], rtol=1e-4, atol=1e-5)
            row += 1
        live = state[1]["fused"]
        assert live.states.memory.shape[1] <= 3 and len(live.emotions) <= 4
        assert len(live.states.q) == 1 + len({n for n in names if n})
    offline[4].sum().backward()
    assert x.grad[:5].any(1).all() and not x.grad[5:].any()


@pytest.mark.parametrize("options", OPTIONS)
def test_everything_is_trained_and_dropout_is_for_training(options):
    part, x = make(dropout=0.5, **options), torch.randn(N, 6)
    assert torch.equal(run(part, x, talk()), run(part, x, talk()))
    part.train()
    out = run(part, x, talk())
    assert not torch.allclose(out, run(part, x, talk()))
    out.square().sum().backward()
    assert [n for n, p in part.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_it_goes_backwards_with_the_speakers_backwards():
    """As the published code reverses both; with the speakers forwards, this dialogue gives another answer."""
    part, x = make(), torch.randn(6, 6)
    names = ["a", "a", "a", "b", "b", "c"]
    both = run(part, x, talk((names,)))
    part.ways["fused"] = part.ways["fused"][::-1]
    mirrored = run(part, x.flip(0), talk((names[::-1],))).flip(0)
    torch.testing.assert_close(both, torch.cat(mirrored.chunk(2, 1)[::-1], 1))


def test_any_number_of_speakers():
    part = make(listener=True)
    crowd = ([f"s{i}" for i in range(60)], ["a", "b"] * 20)
    assert torch.isfinite(run(part, torch.randn(100, 6), talk(crowd))).all()


def test_what_cannot_be_is_refused():
    with pytest.raises(BadConfig, match="bound its past"):
        make(mode="causal", past=None).begin()
    with pytest.raises(BadConfig, match="past=0"):
        make(past=0)
