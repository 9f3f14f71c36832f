"""LFAN, CAN and joint cross-attention: published sizes, and attention on the right axis."""

from __future__ import annotations

import pytest
import torch

from affuse.core import registry
from affuse.core.errors import BadConfig
from affuse.core.labels import SPACES
from affuse.core.parts import Part
from affuse.core.tasks import Task
from affuse.core.types import Encoded, StreamSpec
from affuse.models.build import Architecture
from affuse.models.model import Model

DIMS = {"video": 8, "sound": 4, "words": 6}
FUSIONS = {
    "lfan": {"dim": 4, "heads": 2, "dropout": 0.0},
    "can": {"dim": 4},
    "joint_cross_attention": {"dim": 4, "hidden": 8},
}


def make(name: str, **options):
    torch.manual_seed(0)
    given = registry.resolve("fusions", name, FUSIONS[name] | options, "fusion")
    return registry.build("fusions", name, DIMS, **given).eval()


def encoded(n: int = 3, steps: int = 7) -> Encoded:
    generator = torch.Generator().manual_seed(2)
    tokens = {s: torch.randn(n, steps, d, generator=generator) for s, d in DIMS.items()}
    mask = dict.fromkeys(DIMS, torch.ones(n, steps, dtype=torch.bool))
    pooled = {s: t.mean(1) for s, t in tokens.items()}
    t0 = dict.fromkeys(DIMS, torch.zeros(n, dtype=torch.float64))
    return Encoded(tuple(DIMS), tokens, mask, pooled, torch.ones(n, 3, dtype=torch.bool), dict.fromkeys(DIMS, 5.0), t0)


def test_lfan_has_the_published_number_of_parameters():
    specs = [StreamSpec("video", "vision", (512,), 25.0), StreamSpec("vggish", "audio", (128,), 25.0)]
    specs.append(StreamSpec("bert", "text", (768,), 25.0))
    wide, narrow = [256, 256, 128, 128], [64, 64, 32, 32]
    channels = {"video": wide, "vggish": narrow, "bert": wide}

    def part(kind, name, **options):
        return Part(name, registry.resolve(kind, name, options, name))

    encoders = {s: part("encoders", "tcn", channels=c, standardise=False) for s, c in channels.items()}
    parts = Architecture(encoders, part("fusions", "lfan"))
    model = Model(parts, specs, {"expression": Task("expression", SPACES["ekman-7"], "frame")})
    assert sum(p.numel() for p in model.fusion.parameters()) == 37_440
    assert sum(p.numel() for p in model.heads.parameters()) == 1_575
    assert sum(p.numel() for p in model.parameters()) == 5_002_503


def test_lfan_attends_across_streams_within_a_step_only():
    fusion, given = make("lfan"), encoded()
    tokens = {s: t.requires_grad_() for s, t in given.tokens.items()}
    fused = fusion(given)
    grads = torch.autograd.grad(fused.tokens[0, 3].sum(), list(tokens.values()))
    for grad in grads:
        assert grad[0, 3].any()
        assert not grad[1:].any() and not grad[0, :3].any() and not grad[0, 4:].any()


def test_lfan_by_hand():
    """One head: A = softmax(q k^T / sqrt(d)), z = A v + v, the leader's features beside LN(W z)."""
    fusion, given = make("lfan", heads=1), encoded(1, 1)
    q, k, v = [], [], []
    for s in DIMS:
        x = fusion.project[s](given.tokens[s][0, 0])
        q.append(x[:4]), k.append(x[4:8]), v.append(x[8:])
    q, k, v = (torch.stack(x) for x in (q, k, v))
    z = (q @ k.T / 2).softmax(-1) @ v + v
    expected = torch.cat([given.tokens["video"][0, 0], fusion.norm(fusion.out(z.flatten()))])
    torch.testing.assert_close(fusion(given).tokens[0, 0], expected)


def test_lfan_follows_the_leader_that_is_named():
    given = encoded()
    torch.testing.assert_close(make("lfan", leader="words")(given).tokens[..., :6], given.tokens["words"])
    with pytest.raises(BadConfig, match="no stream"):
        make("lfan", leader="face")


def test_defect_joint_attention_never_mixes_utterances_and_every_pair_counts():
    """The published attention runs over all L * B positions, and five of six cross-attentions change nothing."""
    fusion, given = make("joint_cross_attention"), encoded()
    alone = fusion(given.take(slice(0, 1))).tokens
    torch.testing.assert_close(fusion(given).tokens[:1], alone, rtol=1e-4, atol=1e-5)
    fusion(given).tokens.square().sum().backward()
    assert len(fusion.pairs) == 12
    assert all(any(p.grad.any() for p in layer.parameters()) for layer in fusion.cross.values())


def test_without_the_joint_it_is_the_plain_multimodal_transformer():
    assert len(make("joint_cross_attention", joint=False).pairs) == 6


@pytest.mark.parametrize("options", [{}, {"joint": False}])
def test_a_causal_joint_attention_has_no_gradient_from_the_future(options):
    fusion, given = make("joint_cross_attention", causal=True, **options), encoded()
    tokens = {s: t.requires_grad_() for s, t in given.tokens.items()}
    grads = torch.autograd.grad(fusion(given).tokens[:, 3].sum(), list(tokens.values()))
    assert all(not g[:, 4:].any() and g[:, :4].any() for g in grads)


@pytest.mark.parametrize("name", FUSIONS)
def test_an_absent_stream_changes_nothing_and_leaves_finite_tokens(name):
    fusion, given = make(name), encoded()
    keep = torch.ones(3, 3, dtype=torch.bool)
    keep[0, 1] = keep[1, 0] = keep[1, 2] = False
    keep[2] = False
    found = fusion(given.keep(keep))
    wild = given.keep(keep)
    wild.tokens["sound"][0], wild.tokens["video"][1] = 9.0, -9.0
    torch.testing.assert_close(fusion(wild).tokens, found.tokens)
    assert torch.isfinite(found.tokens).all() and not found.tokens[2].any() and not found.mask[2].any()


@pytest.mark.parametrize("name", FUSIONS)
def test_padding_and_other_rows_change_no_step(name):
    fusion, given = make(name), encoded()
    whole = fusion(given)
    longer = {s: torch.cat([t, torch.zeros(3, 4, t.shape[2])], 1) for s, t in given.tokens.items()}
    mask = {s: torch.cat([m, torch.zeros(3, 4, dtype=torch.bool)], 1) for s, m in given.mask.items()}
    padded = Encoded(given.streams, longer, mask, given.pooled, given.present, given.rate, given.t0)
    torch.testing.assert_close(fusion(padded).tokens[:, :7], whole.tokens, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fusion(padded).pooled, whole.pooled, rtol=1e-4, atol=1e-5)
    for i in range(3):
        one = fusion(given.take(slice(i, i + 1)))
        torch.testing.assert_close(one.tokens, whole.tokens[i : i + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FUSIONS)
def test_every_parameter_is_trained(name):
    fusion = make(name).train()
    fused = fusion(encoded())
    (fused.tokens.pow(3).sum() + fused.pooled.sum()).backward()
    assert [n for n, p in fusion.named_parameters() if p.grad is None or not p.grad.any()] == []
