"""LSTMs and GRUs over conversations: torch's own on each dialogue alone, attention by loops over utterances."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.layers.attention import Matching, SelfAttention
from affuse.layers.conversation import Conversations, conversations
from affuse.models.contexts.recurrent import Recurrent

LENGTHS = (5, 1, 9, 3)
DIMS = {"sound": 6, "words": 8}
OPTIONS = [
    {"cell": cell, "layers": layers, "attention": attention, "residual": residual}
    for cell, layers, attention, residual in itertools.product(
        ("gru", "lstm"), (1, 2), ("none", "self", "matching"), (False, True)
    )
]


def talk() -> Conversations:
    names = [f"c{c}" for c, length in enumerate(LENGTHS) for _ in range(length)]
    position = [i for length in LENGTHS for i in range(length)]
    return conversations(names, position, ["a", "b"] * (len(names) // 2))


def rows(seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(sum(LENGTHS), d, generator=g) for name, d in DIMS.items()}


def there() -> Tensor:
    return torch.ones(sum(LENGTHS), len(DIMS), dtype=torch.bool)


def make(**options) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(DIMS, **{"dim": 4, "heads": 2, **options}).eval()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("mode", ["offline", "causal"])
def test_without_attention_it_is_torch_on_each_dialogue(cell, mode):
    part, x = make(cell=cell, layers=2, mode=mode), rows()
    found = part(x, there(), talk())
    for name, value in x.items():
        alone = torch.cat([part.network[name](piece)[0] for piece in value.split(LENGTHS)])
        torch.testing.assert_close(found[name], alone)
        assert found[name].shape[1] == part.dims[name] == (8 if mode == "offline" else 4)


def hears(i: int, count: int, past: int | None, causal: bool) -> list[int]:
    first = 0 if past is None else max(0, i - past)
    return list(range(first, i + 1 if causal else count))


@pytest.mark.parametrize(("past", "causal"), [(None, False), (None, True), (3, True)])
def test_matching_attention_by_its_equation(past, causal):
    part = make(attention="matching", past=past, mode="causal" if causal else "offline")
    x, name = rows(), "words"
    found = part(x, there(), talk())[name].split(LENGTHS)
    layer: Matching = part.attention[name]
    for got, piece in zip(found, x[name].split(LENGTHS), strict=True):
        h = part.network[name](piece)[0]
        for i in range(len(h)):
            near = h[hears(i, len(h), past, causal)]
            scores = torch.stack([torch.tanh((layer.transform.weight @ h[i] + layer.transform.bias) @ m) for m in near])
            expected = sum(w * m for w, m in zip(scores.softmax(0), near, strict=True))
            torch.testing.assert_close(got[i], expected)


@pytest.mark.parametrize(("past", "causal"), [(None, False), (3, True)])
def test_self_attention_is_torchs_with_residual_and_norm(past, causal):
    part = make(attention="self", past=past, mode="causal" if causal else "offline")
    x, name = rows(), "sound"
    found = part(x, there(), talk())[name].split(LENGTHS)
    layer: SelfAttention = part.attention[name]
    width = part.dims[name]
    theirs = nn.MultiheadAttention(width, 2, batch_first=True)
    theirs.load_state_dict(
        {"in_proj_weight": layer.project.weight, "in_proj_bias": torch.zeros(3 * width),
         "out_proj.weight": layer.out.weight, "out_proj.bias": layer.out.bias}
    )  # fmt: skip
    for got, piece in zip(found, x[name].split(LENGTHS), strict=True):
        h = part.network[name](piece)[0]
        deaf = torch.ones(len(h), len(h), dtype=torch.bool)
        for i in range(len(h)):
            deaf[i, hears(i, len(h), past, causal)] = False
        expected = layer.norm(h + theirs(h, h, h, attn_mask=deaf)[0])
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_live_equals_afterwards_and_the_future_has_no_gradient(options):
    part, x, who = make(mode="causal", past=3, **options), rows(), talk()
    offline = part({n: v.requires_grad_(True) for n, v in x.items()}, there(), who)
    start, end = LENGTHS[0] + LENGTHS[1], LENGTHS[0] + LENGTHS[1] + LENGTHS[2]
    state = part.begin()
    for i in range(start, end):
        found, state = part.push({n: v[i : i + 1].detach() for n, v in x.items()}, there()[:1], "a", state)
        for name in DIMS:
            torch.testing.assert_close(found[name], offline[name][i : i + 1])
            assert len(state[name][1]) <= 4
    at = start + 4
    sum(value[at, 0] for value in offline.values()).backward()  # one of them: a LayerNorm's sum has no gradient
    for value in x.values():
        assert value.grad[start : at + 1].any(1).all()
        assert not value.grad[at + 1 :].any()
        assert not value.grad[:start].any()


@pytest.mark.parametrize("options", OPTIONS)
def test_everything_is_trained_and_dropout_is_for_training(options):
    part, x = make(dropout=0.5, **options), rows()
    first = part(x, there(), talk())
    assert all(torch.equal(v, first[n]) for n, v in part(x, there(), talk()).items())
    part.train()
    dropped = part(x, there(), talk())
    assert not any(torch.allclose(v, first[n]) for n, v in dropped.items())
    sum(v.square().sum() for v in dropped.values()).backward()
    assert [n for n, p in part.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_residual_is_the_input_where_widths_agree():
    torch.manual_seed(0)
    part, x = make(residual=True), rows()
    found = part(x, there(), talk())["words"]
    without = torch.cat([part.network["words"](piece)[0] for piece in x["words"].split(LENGTHS)])
    torch.testing.assert_close(found - without, x["words"])
    assert isinstance(part.skip["sound"], nn.Linear)


def test_what_cannot_be_is_refused():
    with pytest.raises(BadConfig, match="bound its past"):
        make(mode="causal", attention="self").begin()
    make(mode="causal").begin()
    with pytest.raises(BadConfig, match="3 heads"):
        make(attention="self", heads=3)
    with pytest.raises(BadConfig, match="past=-1"):
        make(past=-1)
