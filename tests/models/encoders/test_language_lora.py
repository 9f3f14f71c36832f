"""The language encoder with LoRA and with a model that reads from left to right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.parts import TOKENS, random_input
from tests.tiny_bert import WORDS, save_tiny_bert
from tests.tiny_llama import END, save_tiny_llama

from affuse.core import hub, io
from affuse.core.errors import BadConfig
from affuse.core.labels import SPACES
from affuse.core.parts import Part
from affuse.core.tasks import Task
from affuse.core.types import Batch
from affuse.layers.lora import LoRALinear, merge
from affuse.models.build import Architecture
from affuse.models.encoders.language import ROWS, Language
from affuse.models.model import Model
from affuse.models.saved import describe, load_model

pytest.importorskip("transformers")
KINDS = ("bert", "llama")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    made = {"bert": save_tiny_bert, "llama": save_tiny_llama}
    return {kind: str(save(tmp_path_factory.mktemp(kind))) for kind, save in made.items()}


def make_encoder(folder: str, **options) -> Language:
    torch.manual_seed(0)
    encoder = Language(TOKENS, model=folder, **{"lora": 4, "pool": "last", **options})
    for module in encoder.modules():
        if isinstance(module, LoRALinear):
            torch.nn.init.normal_(module.b, std=0.3)
    return encoder


def make_model(folder: str, **options) -> Model:
    torch.manual_seed(0)
    part = Part("language", {"model": folder, "lora": 4, "pool": "last", **options})
    return Model(
        Architecture({"tokens": part}, Part("gated", {"dim": 8})),
        [TOKENS],
        {"emotion": Task("emotion", SPACES["iemocap-4"])},
    )


def make_batch(n: int = 6) -> Batch:
    x, mask = random_input(TOKENS, n)
    return Batch((TOKENS,), {"tokens": x}, {"tokens": mask}, mask.any(1, keepdim=True))


def train(model: Model, batch: Batch, steps: int = 2) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        model.train()(batch).logits["emotion"].square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
def test_lora_starts_at_the_pretrained_model(folders, kind):
    x, mask = random_input(TOKENS, 5)
    plain = Language(TOKENS, model=folders[kind]).eval()
    adapted = Language(TOKENS, model=folders[kind], lora=4).eval()
    assert torch.equal(plain(x, mask).tokens, adapted(x, mask).tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_only_lora_weights_and_the_rest_is_bit_identical(folders, kind):
    model, batch = make_model(folders[kind]), make_batch()
    encoder = model.encoders["tokens"]
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    train(model, batch)
    with_gradient = {k for k, p in encoder.named_parameters() if p.grad is not None and p.grad.any()}
    moved = {k for k, v in encoder.state_dict().items() if not torch.equal(v, before[k])}
    low_rank = {k for k in before if k.endswith((".a", ".b"))}
    assert len(low_rank) == 2 * 2 * 2  # A and B of queries and values in two blocks
    assert with_gradient == moved == low_rank
    assert {p.requires_grad for k, p in encoder.named_parameters() if k not in low_rank} == {False}


def test_lora_leaves_frozen_layers_alone(folders):
    encoder = make_encoder(folders["bert"], frozen_layers=1, dropout=0.5)
    assert {k.split("layer.")[1][0] for k, p in encoder.named_parameters() if p.requires_grad} == {"1"}
    with pytest.raises(BadConfig, match="no linear layer"):
        make_encoder(folders["bert"], frozen_layers=2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pool", ["mean", "first", "last"])
def test_padding_side_and_batch_composition_change_nothing(folders, kind, pool):
    encoder = make_encoder(folders[kind], pool=pool).eval()
    x, mask = random_input(TOKENS, ROWS + 3)
    found = encoder(x, mask)
    for i in (0, ROWS + 2):
        n = int(mask[i].sum())
        alone = encoder(x[i : i + 1, :n], mask[i : i + 1, :n])
        torch.testing.assert_close(alone.pooled[0], found.pooled[i], rtol=1e-4, atol=1e-5)
    shift = mask.shape[1] - mask.sum(1) + 2  # to the right, and two steps more
    left, held = torch.zeros(len(x), mask.shape[1] + 2), torch.zeros(len(x), mask.shape[1] + 2, dtype=torch.bool)
    for i, k in enumerate(shift.tolist()):
        n = int(mask[i].sum())
        left[i, k : k + n], held[i, k : k + n] = x[i, :n], True
    other = encoder(left, held)
    torch.testing.assert_close(other.pooled, found.pooled, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other.tokens[held], found.tokens[mask], rtol=1e-4, atol=1e-5)
    assert not other.tokens[~held].any()


def test_pool_last_takes_the_last_valid_token_even_where_padding_is_the_end_marker(folders):
    """Published: pad = eos, and what is last is found by comparing ids with the padding's."""
    encoder = make_encoder(folders["llama"]).eval()
    x = torch.tensor([[5.0, 7, END, END, END], [5, 8, 6, 7, END]])
    mask = torch.tensor([[True] * 4 + [False], [True] * 5])
    found = encoder(x, mask)
    assert torch.equal(found.pooled, found.tokens[torch.arange(2), torch.tensor([3, 4])])
    with torch.no_grad():
        states = encoder.network(input_ids=x[:1, :4].long()).last_hidden_state
    torch.testing.assert_close(found.pooled[0], states[0, 3], rtol=1e-4, atol=1e-5)


def test_a_model_that_reads_from_left_to_right_stays_one(folders):
    encoder = make_encoder(folders["llama"]).eval()
    x, mask = torch.tensor([[5.0, 7, 8, 6]]), torch.ones(1, 4, dtype=torch.bool)
    y = x.clone()
    y[0, 3] = 9
    a, b = encoder(x, mask), encoder(y, mask)
    assert torch.allclose(a.tokens[:, :3], b.tokens[:, :3], atol=1e-6) and not torch.allclose(a.pooled, b.pooled)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_comes_back_and_merged_weights_answer_the_same(folders, kind, tmp_path):
    model, batch = make_model(folders[kind]), make_batch()
    train(model, batch)
    io.write_tensors(tmp_path / "model.safetensors", model.state_dict())
    io.write_json(tmp_path / "model.json", describe(model))
    again = load_model(io.read_json(tmp_path / "model.json"), tmp_path / "model.safetensors")
    expected = model.eval()(batch).logits["emotion"]
    assert torch.equal(again(batch).logits["emotion"], expected)
    fresh = make_model(folders[kind]).eval()(batch).logits["emotion"]
    assert not torch.allclose(fresh, expected)
    merged = merge(again)
    assert not any(isinstance(m, LoRALinear) for m in merged.modules())
    torch.testing.assert_close(merged(batch).logits["emotion"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_pretrained_weights_in_bfloat16_train_and_stay_close(folders, kind):
    x, mask = random_input(TOKENS, 4)
    full, half = (make_encoder(folders[kind], bfloat16=b).eval() for b in (False, True))
    assert {p.dtype for k, p in half.named_parameters() if k.endswith((".a", ".b"))} == {torch.float32}
    assert half.network.get_input_embeddings().weight.dtype == torch.bfloat16
    found = half(x, mask)
    assert found.pooled.dtype == torch.float32
    torch.testing.assert_close(found.pooled, full(x, mask).pooled, rtol=0.1, atol=0.1)
    found.pooled.square().sum().backward()
    assert all(p.grad.any() for p in half.parameters() if p.requires_grad)
    with pytest.raises(BadConfig, match="bfloat16"):
        make_encoder(folders[kind], bfloat16=True, lora=0)


def rows_run(encoder: Language, x: torch.Tensor, mask: torch.Tensor) -> list[tuple[int, int]]:
    """The (rows, steps) of every run of the network."""
    runs: list[tuple[int, int]] = []
    hook = encoder.network.register_forward_pre_hook(
        lambda module, args, kwargs: runs.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    encoder(x, mask)
    hook.remove()
    return runs


def test_defect_everything_was_padded_to_the_global_maximum(folders):
    encoder = make_encoder(folders["llama"]).eval()
    lengths = torch.tensor([3] * ROWS + [150])
    mask = torch.arange(150) < lengths[:, None]
    x = torch.randint(len(WORDS), mask.shape).float() * mask
    x[:, 0] = torch.arange(ROWS + 1) % len(WORDS)
    x[:, 1] = torch.arange(ROWS + 1) // len(WORDS)
    assert sorted(rows_run(encoder, x, mask)) == [(1, 150), (ROWS, 3)]


def test_defect_equal_prompts_were_run_again_and_again(folders):
    encoder = make_encoder(folders["bert"]).eval()
    x, mask = random_input(TOKENS, 3)
    again = torch.tensor([2, 0, 0, 1, 2, 0])
    found = encoder(x[again], mask[again])
    torch.testing.assert_close(found.pooled, encoder(x, mask).pooled[again])
    torch.testing.assert_close(found.tokens, encoder(x, mask).tokens[again])
    assert sum(n for n, _ in rows_run(encoder, x[again], mask[again])) == 3
    assert sum(n for n, _ in rows_run(encoder.train(), x[again], mask[again])) == 6  # dropout makes them differ


def test_code_that_a_folder_brings_along_is_never_run(folders, tmp_path):
    described = json.loads((Path(folders["bert"]) / "config.json").read_text())
    own = {"AutoConfig": "planted.Config", "AutoModel": "planted.Model"}
    (tmp_path / "config.json").write_text(json.dumps({**described, "model_type": "planted", "auto_map": own}))
    (tmp_path / "model.safetensors").write_bytes((Path(folders["bert"]) / "model.safetensors").read_bytes())
    lines = [f"open({str(tmp_path / 'ran')!r}, 'w')", "class Config: pass", "class Model: pass"]
    (tmp_path / "planted.py").write_text("\n".join(lines))
    for load in (hub.config, hub.load, lambda folder: Language(TOKENS, model=str(folder))):
        with pytest.raises(BadConfig, match="cannot be loaded"):
            load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_no_safetensors_are_refused(folders, tmp_path):
    (tmp_path / "config.json").write_text((Path(folders["bert"]) / "config.json").read_text())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"safetensors"):
        Language(TOKENS, model=str(tmp_path))
