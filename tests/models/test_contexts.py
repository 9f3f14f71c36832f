"""Properties that every registered context must have, in every mode that it offers."""

from __future__ import annotations

import typing

import pytest
import torch
from torch import Tensor

from affuse.core import io, registry
from affuse.core.labels import SPACES
from affuse.core.parts import Part
from affuse.core.tasks import Task
from affuse.core.types import Batch, StreamSpec
from affuse.models.build import Architecture
from affuse.models.live import LiveSession
from affuse.models.model import Model
from affuse.models.saved import describe, load_model

STREAMS = (StreamSpec("sound", "audio", (7,)), StreamSpec("face", "vision", (5,)), StreamSpec("words", "text", (6,)))
SPACE = SPACES["iemocap-4"]
LENGTHS = (9, 1, 14, 5)


def _cases() -> list[tuple[str, str, str]]:
    found = []
    for name, card in registry.cards("contexts").items():
        if name == "none":
            continue
        found += [(name, stands, mode) for stands in card["stands"] for mode in card["modes"]]
    return found


CASES = _cases()
LIVE = [c for c in CASES if c[2] == "causal"]


def make(name: str, stands: str, mode: str) -> Model:
    """A model with this context at its default options, in eval mode."""
    torch.manual_seed(0)
    fields = registry.schema(registry.load("contexts", name))
    options: dict[str, typing.Any] = {"mode": mode}
    if "stands" in fields:
        options["stands"] = stands
    if mode == "lookahead":
        options["lookahead"] = 2
    if mode != "offline" and "past" in fields:
        options["past"] = 2  # less than a conversation has, so that it is a bound

    def part(kind: str, of: str, **given: typing.Any) -> Part:
        return Part(of, registry.resolve(kind, of, given, of))

    mlp = part("encoders", "mlp", hidden=8)
    context = part("contexts", name, **options)
    parts = Architecture({s.name: mlp for s in STREAMS}, part("fusions", "concat"), (context,))
    model = Model(parts, STREAMS, {"emotion": Task("emotion", SPACE)})
    whole = batch()
    for spec in STREAMS:
        model.fit(spec.name, [(whole.x[spec.name], whole.mask[spec.name])])
    return model.eval()


def batch(seed: int = 0, rename: str = "") -> Batch:
    """29 utterances of four conversations by two or three speakers, some anonymous, rows shuffled, streams missing.

    `rename` is put before the speakers' names, and turns their order round.
    """
    g = torch.Generator().manual_seed(seed)
    n = sum(LENGTHS)
    x = {s.name: torch.randn(n, 1, *s.shape, generator=g) for s in STREAMS}
    present = torch.rand(n, 3, generator=g) > 0.2
    mask = {s.name: present[:, i : i + 1].clone() for i, s in enumerate(STREAMS)}
    for name in x:
        x[name] = x[name] * mask[name].unsqueeze(-1)
    conversation = [f"c{c}" for c, length in enumerate(LENGTHS) for _ in range(length)]
    position = [i for length in LENGTHS for i in range(length)]
    speaker = ["" if k == 7 else f"{rename}s{abs(9 * bool(rename) - k % (2 + (k > 12)))}" for k in range(n)]
    order = torch.randperm(n, generator=g).tolist()
    x, mask = ({k: v[order] for k, v in part.items()} for part in (x, mask))
    names = [[values[i] for i in order] for values in (conversation, position, speaker)]
    target = {"emotion": torch.arange(n) % 4}
    known = {"emotion": torch.ones(n, dtype=torch.bool)}
    named = dict(zip(("conversation", "position", "speaker"), names, strict=True))
    ids = [str(i) for i in order]
    return Batch(STREAMS, x, mask, present[order], target=target, target_mask=known, id=ids, **named)


def rows(full: Batch, keep: list[int]) -> Batch:
    """Some of the batch's utterances."""
    parts = ("x", "mask", "target", "target_mask")
    tensors = {part: {k: v[keep] for k, v in getattr(full, part).items()} for part in parts}
    names = {k: [getattr(full, k)[i] for i in keep] for k in ("id", "conversation", "position", "speaker")}
    return Batch(full.streams, present=full.present[keep], **tensors, **names)  # type: ignore[arg-type]


def logits(model: Model, given: Batch) -> Tensor:
    return model(given).logits["emotion"]


@pytest.mark.parametrize(("name", "stands", "mode"), CASES)
def test_conversations_do_not_know_of_each_other(name, stands, mode):
    model, whole = make(name, stands, mode), batch()
    together = logits(model, whole)
    for conversation in sorted(set(whole.conversation)):
        keep = [i for i, c in enumerate(whole.conversation) if c == conversation]
        torch.testing.assert_close(logits(model, rows(whole, keep)), together[keep], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "stands", "mode"), CASES)
def test_names_of_speakers_mean_nothing(name, stands, mode):
    """Nor does the order in which they are met, which numbers them."""
    model, turned = make(name, stands, mode), list(range(sum(LENGTHS)))[::-1]
    found = logits(model, rows(batch(rename="z"), turned))[turned]
    torch.testing.assert_close(found, logits(model, batch()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "stands", "mode"), CASES)
def test_context_matters_and_everything_is_trained(name, stands, mode):
    model = make(name, stands, mode).train()
    output = logits(model, batch()).square().sum() + logits(model, batch(1)).square().sum()
    output.backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
    model.eval()
    whole = batch()
    first = [i for i, p in enumerate(whole.position) if p == 0 and whole.conversation[i] == "c2"]
    later = [i for i, p in enumerate(whole.position) if p == 2 and whole.conversation[i] == "c2"]
    changed = batch()
    for key in changed.x:
        changed.x[key][first] = 3.0 * changed.mask[key][first].unsqueeze(-1)
    assert not torch.allclose(logits(model, changed)[later], logits(model, whole)[later], atol=1e-7)


@pytest.mark.parametrize(("name", "stands", "mode"), [c for c in CASES if c[2] != "offline"])
def test_the_future_has_no_influence_at_all(name, stands, mode):
    model, whole = make(name, stands, mode), batch()
    ahead = 2 if mode == "lookahead" else 0
    for spec in STREAMS:
        whole.x[spec.name].requires_grad_(True)
    conversation, limit = "c2", 6
    at = [i for i, c in enumerate(whole.conversation) if c == conversation and whole.position[i] == limit]
    logits(model, whole)[at].sum().backward()
    for spec in STREAMS:
        for i, c in enumerate(whole.conversation):
            if c != conversation or whole.position[i] > limit + ahead:
                assert not whole.x[spec.name].grad[i].any()
    with torch.no_grad():
        own = [i for i, c in enumerate(whole.conversation) if c == conversation]
        prefix = [i for i in own if whole.position[i] <= limit + ahead]
        early = [k for k, i in enumerate(prefix) if whole.position[i] <= limit]
        found = logits(model, rows(whole, prefix))[early]
        torch.testing.assert_close(found, logits(model, whole)[[prefix[k] for k in early]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "stands", "mode"), LIVE)
def test_live_equals_afterwards(name, stands, mode):
    model, whole = make(name, stands, mode), batch()
    expected = logits(model, whole)
    for conversation in sorted(set(whole.conversation)):
        session = LiveSession(model)
        own = [i for i, c in enumerate(whole.conversation) if c == conversation]
        for i in sorted(own, key=lambda i: whole.position[i]):
            found = session.push(rows(whole, [i]), whole.speaker[i]).logits["emotion"]
            torch.testing.assert_close(found, expected[i : i + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "stands", "mode"), CASES)
def test_absent_streams_and_lonely_utterances_are_finite(name, stands, mode):
    model = make(name, stands, mode)
    assert torch.isfinite(logits(model, batch().without({s.name for s in STREAMS}))).all()
    assert torch.isfinite(logits(model, batch().without({"words"}))).all()
    alone = batch()
    alone.conversation, alone.speaker = [], []
    assert torch.isfinite(logits(model, alone)).all()


@pytest.mark.parametrize(("name", "stands", "mode"), CASES)
def test_saved_and_loaded_it_is_the_same(name, stands, mode, tmp_path):
    model = make(name, stands, mode)
    io.write_tensors(tmp_path / "model.safetensors", model.state_dict())
    io.write_json(tmp_path / "model.json", describe(model))
    again = load_model(io.read_json(tmp_path / "model.json"), tmp_path / "model.safetensors")
    assert torch.equal(logits(model, batch()), logits(again, batch()))
    assert torch.equal(logits(model, batch()), logits(model, batch()))


def test_live_equals_afterwards_where_nothing_is_present_and_no_context_follows_the_fusion():
    name, stands, mode = next(case for case in LIVE if case[1] == "before")
    model, whole = make(name, stands, mode), batch().without({s.name for s in STREAMS})
    torch.nn.init.normal_(model.fusion.absent["sound"])
    found = LiveSession(model).push(rows(whole, [0]), whole.speaker[0]).logits["emotion"]
    torch.testing.assert_close(found, logits(model, rows(whole, [0])))
