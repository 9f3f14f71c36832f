"""The language encoder with ALBERT, whose depths share one block: whole, frozen, partly frozen, with LoRA."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.parts import TOKENS, random_input
from tests.tiny_albert import PIECES, save_tiny_albert
from torch import Tensor

from affuse.cli.app import main
from affuse.core import hub, io
from affuse.core.errors import BadConfig
from affuse.core.labels import SPACES
from affuse.core.parts import Part
from affuse.core.tasks import Task
from affuse.core.types import Batch
from affuse.corpora.manifest import write_corpus
from affuse.features.tokens import Tokens
from affuse.media.clip import Clip
from affuse.models.build import Architecture
from affuse.models.encoders.language import Language
from affuse.models.model import Model
from affuse.models.saved import describe, load_model

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return str(save_tiny_albert(tmp_path_factory.mktemp("albert")))


def make_model(tiny: str, **options) -> Model:
    torch.manual_seed(0)
    parts = Architecture({"tokens": Part("language", {"model": tiny, **options})}, Part("gated", {"dim": 8}))
    return Model(parts, [TOKENS], {"emotion": Task("emotion", SPACES["iemocap-4"])})


def make_batch(n: int = 6) -> Batch:
    x, mask = random_input(TOKENS, n)
    return Batch((TOKENS,), {"tokens": x}, {"tokens": mask}, mask.any(1, keepdim=True))


def moved(model: Model, batch: Batch) -> set[str]:
    """Names of the encoder's weights that two steps of training change."""
    before = {k: v.clone() for k, v in model.encoders["tokens"].named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # the first one moves B of LoRA alone, which is zero until then
        optimizer.zero_grad()
        model.train()(batch).logits["emotion"].square().sum().backward()
        optimizer.step()
    return {k for k, v in model.encoders["tokens"].named_parameters() if not torch.equal(v, before[k])}


def test_token_ids_are_those_of_the_words_between_the_markers(tiny):
    found = Tokens(model=tiny)(Clip(text="Good days!")).values
    assert [PIECES[i] for i in found] == ["[CLS]", "▁good", "▁day", "s", "!", "[SEP]"]


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_it_equals_the_pretrained_model_at_every_depth(tiny, depth):
    from transformers import AutoModel

    encoder, (x, mask) = Language(TOKENS, model=tiny, depth=depth, pool="first").eval(), random_input(TOKENS, 9)
    with torch.no_grad():
        given = {"input_ids": x.long(), "attention_mask": mask.long()}
        reference = AutoModel.from_pretrained(tiny, num_hidden_layers=depth or 3).eval()(**given).last_hidden_state
        found = encoder(x, mask)
    torch.testing.assert_close(found.tokens[mask], reference[mask], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.pooled, reference[:, 0], rtol=1e-4, atol=1e-5)
    assert not any("pooler" in name for name in encoder.state_dict())


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(tiny, side):
    encoder, (x, _) = Language(TOKENS, model=tiny).eval(), random_input(TOKENS, 4)
    mask = torch.ones(x.shape, dtype=torch.bool)
    more = (3, 0) if side == "left" else (0, 3)

    def padded(values: Tensor) -> Tensor:
        return torch.nn.functional.pad(values, more)

    with torch.no_grad():
        short, long = encoder(x, mask), encoder(padded(x), padded(mask))
    torch.testing.assert_close(short.pooled, long.pooled, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(short.tokens[mask], long.tokens[padded(mask)], rtol=1e-4, atol=1e-5)


def test_all_is_trained_by_default(tiny):
    model, batch = make_model(tiny), make_batch()
    names = {name for name, _ in model.encoders["tokens"].named_parameters()}
    assert moved(model, batch) >= {n for n in names if not n.endswith("key.bias")}  # a softmax ignores what all share


def test_a_frozen_stream_stays_as_it_is(tiny):
    model, batch = make_model(tiny, dropout=0.5), make_batch()
    model.freeze("tokens")
    assert moved(model, batch) == set()
    encoder, x, mask = model.encoders["tokens"], batch.x["tokens"], batch.mask["tokens"]
    assert torch.equal(encoder(x, mask).tokens, encoder(x, mask).tokens)  # no dropout in training mode


def test_embeddings_alone_can_be_frozen(tiny):
    model, batch = make_model(tiny, frozen_layers=0, dropout=0.5), make_batch()
    found = moved(model, batch)
    assert found
    assert not any("embeddings." in name for name in found)
    assert "network.encoder.albert_layer_groups.0.albert_layers.0.ffn.weight" in found


@pytest.mark.parametrize("more", [{}, {"inner_group_num": 3}])
def test_freezing_some_depths_of_a_shared_block_is_refused(tiny, more, tmp_path):
    folder = str(save_tiny_albert(tmp_path, **more)) if more else tiny
    with pytest.raises(BadConfig, match=r"no layers with weights of their own(.|\n)*lora=8"):
        Language(TOKENS, model=folder, frozen_layers=2)


def test_a_block_per_depth_can_be_frozen_one_by_one(tmp_path):
    model = make_model(str(save_tiny_albert(tmp_path, num_hidden_groups=3)), frozen_layers=2)
    found = {name.split("albert_layer_groups.")[1][0] for name in moved(model, make_batch()) if "groups" in name}
    assert found == {"2"}


@pytest.mark.parametrize("frozen", [None, 0])
def test_lora_trains_query_and_value_of_the_shared_block(tiny, frozen, tmp_path):
    model, batch = make_model(tiny, lora=4, frozen_layers=frozen), make_batch()
    found = {name.rpartition("attention.")[2] for name in moved(model, batch)}
    assert found == {"query.a", "query.b", "value.a", "value.b"}
    io.write_tensors(tmp_path / "model.safetensors", model.state_dict())
    io.write_json(tmp_path / "model.json", describe(model))
    again = load_model(io.read_json(tmp_path / "model.json"), tmp_path / "model.safetensors")
    assert torch.equal(model.eval()(batch).logits["emotion"], again(batch).logits["emotion"])


def test_the_short_name_is_a_model_of_the_hub():
    assert hub.TEXT_MODELS["albert"].hub == "albert/albert-base-v2"


def test_a_recipe_trains_and_scores_with_it(tiny, tmp_path):
    said = {"happy": "good day !", "sad": "bad night"}
    rows = [
        {"id": f"u{i:02d}", "text": said[label], "label": label, "speaker": f"s{i // 4}"}
        for i, label in enumerate(["happy", "sad", "sad", "happy"] * 6)
    ]
    write_corpus(tmp_path / "corpus", rows, "words", "iemocap-4")
    options = [f"streams.tokens.{part}.model={tiny}" for part in ("extractor", "encoder")]
    options += ["train.epochs=1", "train.batch_size=8", "split.valid=0.2", "streams.tokens.frozen=true"]
    where = ["--corpus", str(tmp_path / "corpus"), "--out", str(tmp_path / "run"), "--quiet"]
    assert main(["train", "finetuned-none", *options, *where]) == 0
    assert io.read_json(Path(tmp_path / "run" / "evaluation.json"))["protocol"]["n"] > 0
