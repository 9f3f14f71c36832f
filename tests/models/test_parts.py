"""Properties that every registered encoder, fusion and objective must have."""

from __future__ import annotations

import pytest
import torch

from affuse.core import io, registry
from affuse.core.errors import BadConfig
from affuse.core.labels import SPACES
from affuse.core.types import Output, StreamSpec
from affuse.models.model import describe, keep_streams, load_model
from tests.parts import CANDIDATES, inputs_of, make_encoder, make_model, random_batch, random_input

ENCODERS = [(e, s) for e in registry.cards("encoders") for s in inputs_of(e)]
IDS = [f"{e}-{s.name}" for e, s in ENCODERS]
FUSIONS = list(registry.cards("fusions"))
SPACE = SPACES["iemocap-4"]
STREAMS = (CANDIDATES[1], CANDIDATES[3], CANDIDATES[4])
MLPS = {s.name: "mlp" for s in STREAMS}


def test_every_encoder_takes_some_stream():
    assert {e for e, _ in ENCODERS} == set(registry.cards("encoders"))


@pytest.mark.parametrize(("name", "spec"), ENCODERS, ids=IDS)
def test_padding_never_changes_an_encoding(name, spec):
    encoder = make_encoder(name, spec).eval()
    x, mask = random_input(spec, 4)
    longer = random_input(spec, 4, longer=max(3, x.shape[1] // 3))
    torch.testing.assert_close(encoder(x, mask).pooled, encoder(*longer).pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "spec"), ENCODERS, ids=IDS)
def test_batch_composition_never_changes_an_encoding(name, spec):
    encoder = make_encoder(name, spec).eval()
    x, mask = random_input(spec, 4)
    alone = torch.cat([encoder(x[i : i + 1], mask[i : i + 1]).pooled for i in range(4)])
    torch.testing.assert_close(encoder(x, mask).pooled, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "spec"), ENCODERS, ids=IDS)
def test_an_absent_row_is_finite_zero_and_harmless(name, spec):
    encoder = make_encoder(name, spec).eval()
    x, mask = random_input(spec, 3)
    full = encoder(x, mask).pooled
    mask[1], x[1] = False, 0
    found = encoder(x, mask).pooled
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[[0, 2]], full[[0, 2]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "spec"), ENCODERS, ids=IDS)
def test_every_parameter_of_an_encoder_is_trained(name, spec):
    encoder = make_encoder(name, spec).train()
    x, mask = random_input(spec, 4)
    encoding = encoder(x.requires_grad_(), mask)
    assert encoding.pooled.shape == (4, encoder.dim)
    assert encoding.tokens.shape[:2] == encoding.mask.shape
    (encoding.pooled.square().sum() + encoding.tokens.square().sum()).backward()
    idle = [n for n, p in encoder.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert idle == []


@pytest.mark.parametrize("fusion", FUSIONS)
def test_absent_modality_equals_never_recorded(fusion):
    model = make_model(STREAMS, MLPS, fusion, SPACE).eval()
    batch = random_batch(STREAMS, 5, len(SPACE))
    for name in batch.x:
        masked = model(batch.without({name})).logits["emotion"]
        column = torch.tensor([s.name != name for s in STREAMS])
        dropped = model.fuse(keep_streams(model.encode(batch), column.expand(5, -1)), batch).logits["emotion"]
        torch.testing.assert_close(masked, dropped)
        changed = batch.without({name})
        changed.x[name] = torch.randn_like(changed.x[name])
        torch.testing.assert_close(model(changed).logits["emotion"], masked)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_nothing_present_gives_finite_logits(fusion):
    model = make_model(STREAMS, MLPS, fusion, SPACE).eval()
    batch = random_batch(STREAMS, 3, len(SPACE)).without(set(MLPS))
    assert torch.isfinite(model(batch).logits["emotion"]).all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_stream_order_of_a_row_never_matters(fusion):
    model = make_model(STREAMS, MLPS, fusion, SPACE).eval()
    batch = random_batch(STREAMS, 6, len(SPACE))
    batch.present[::2, 0] = False
    whole = model(batch).logits["emotion"]
    for i in range(6):
        one = random_batch(STREAMS, 6, len(SPACE))
        one.present[::2, 0] = False
        rows = slice(i, i + 1)
        one.x = {k: v[rows] for k, v in one.x.items()}
        one.mask = {k: v[rows] for k, v in one.mask.items()}
        one.present = one.present[rows]
        torch.testing.assert_close(model(one).logits["emotion"], whole[rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_save_and_load_give_the_same_model(fusion, tmp_path):
    model = make_model(STREAMS, MLPS, fusion, SPACE, unimodal=True).eval()
    io.write_tensors(tmp_path / "model.safetensors", model.state_dict())
    io.write_json(tmp_path / "model.json", describe(model))
    again = load_model(io.read_json(tmp_path / "model.json"), tmp_path / "model.safetensors")
    batch = random_batch(STREAMS, 4, len(SPACE))
    assert torch.equal(model(batch).logits["emotion"], again(batch).logits["emotion"])


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("objective", [o for o, c in registry.cards("objectives").items() if "classes" in c["tasks"] and not c.get("auxiliary")])
def test_every_parameter_of_a_model_is_trained(fusion, objective):
    model = make_model(STREAMS, MLPS, fusion, SPACE, unimodal=True).train()
    loss = registry.build("objectives", objective, len(SPACE), unimodal=1.0)
    batch = random_batch(STREAMS, 8, len(SPACE))
    whole = loss(model(batch), batch).sum()
    lacking = random_batch(STREAMS, 8, len(SPACE))
    for row in range(6):
        lacking.present[row, row % 3] = False
    (whole + loss(model(lacking), lacking).sum()).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@pytest.mark.parametrize("objective", list(registry.cards("objectives")))
def test_unlabelled_items_weigh_nothing(objective):
    card = registry.cards("objectives")[objective]
    kind = card["tasks"][0]
    loss = registry.build("objectives", objective, 4)
    batch = random_batch(STREAMS, 6, 4)
    if kind == "values":
        batch.target["emotion"] = torch.rand(6, 4)
    batch.target_mask["emotion"][2] = False
    assert (loss.weights(batch)[2] > 0) == card.get("unlabelled", False)
    assert (loss.weights(batch)[[0, 1, 3, 4, 5]] > 0).all()
    own = {s.name: {"emotion": torch.randn(6, 4)} for s in STREAMS}
    output = Output({"emotion": torch.randn(6, 4)}, torch.zeros(6, 1), own)
    output.aux["views"] = [output, output]
    items = loss(output, batch)
    assert items.shape == (6,)
    assert torch.isfinite(items).all()


@pytest.mark.parametrize(("kind", "name", "given", "option"), [("encoders", "mlp", CANDIDATES[1], {"dropout": 1.5}), ("fusions", "gated", {"a": 4}, {"dim": -1})])
def test_options_that_torch_refuses_are_named(kind, name, given, option):
    options = registry.resolve(kind, name, option, name)
    with pytest.raises(BadConfig, match=f"'{name}' cannot be made") as found:
        registry.build(kind, name, given, **options)
    ((key, value),) = option.items()
    assert f"{key}={value}" in found.value.remedy


@pytest.mark.parametrize("name", ["face.v2", "keys", "type"])
def test_a_stream_name_that_modules_cannot_have_is_refused(name):
    spec = StreamSpec(name, "audio", (12,), 10.0)
    with pytest.raises(BadConfig, match=name):
        make_model((spec,), {name: "mlp"}, "sum", SPACE)
