"""The language encoder: the pretrained model itself, trained where it should be, and back from a run folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tests.parts import TOKENS, random_input
from tests.tiny_bert import save_tiny_bert

import affuse
from affuse.cli.app import main
from affuse.core import hub, io
from affuse.core.errors import BadConfig, MissingDependency
from affuse.core.labels import SPACES
from affuse.core.parts import Part
from affuse.core.tasks import Task
from affuse.core.types import Batch, StreamSpec
from affuse.corpora.manifest import write_corpus
from affuse.models.build import Architecture
from affuse.models.encoders.language import ROWS, Language
from affuse.models.model import Model
from affuse.models.saved import describe, load_model
from affuse.stores.store import FeatureStore

pytest.importorskip("transformers")
SPACE = SPACES["iemocap-4"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return str(save_tiny_bert(tmp_path_factory.mktemp("bert")))


def make_model(tiny: str, **options) -> Model:
    torch.manual_seed(0)
    parts = Architecture({"tokens": Part("language", {"model": tiny, **options})}, Part("gated", {"dim": 8}))
    return Model(parts, [TOKENS], {"emotion": Task("emotion", SPACE)})


def make_batch(n: int = 6) -> Batch:
    x, mask = random_input(TOKENS, n)
    return Batch((TOKENS,), {"tokens": x}, {"tokens": mask}, mask.any(1, keepdim=True))


def step(model: Model, batch: Batch) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model.train()(batch).logits["emotion"].square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("pool", ["mean", "first"])
@pytest.mark.parametrize("depth", [0, 1])
def test_it_equals_the_pretrained_model(tiny, pool, depth):
    from transformers import AutoModel

    encoder = Language(TOKENS, model=tiny, pool=pool, depth=depth).eval()
    x, mask = random_input(TOKENS, 2 * ROWS + 3)
    x, mask = x[torch.randperm(len(x))], mask
    reference = AutoModel.from_pretrained(tiny).eval()
    with torch.no_grad():
        given = {"input_ids": x.long(), "attention_mask": mask.long()}
        states = reference(**given, output_hidden_states=True).hidden_states[depth or -1]
        mean = (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        found = encoder(x, mask)
    torch.testing.assert_close(found.pooled, mean if pool == "mean" else states[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.tokens[mask], states[mask], rtol=1e-4, atol=1e-5)
    assert not found.tokens[~mask].any()
    assert encoder.dim == 16


def test_training_starts_at_the_pretrained_weights_and_moves_them(tiny):
    model, batch = make_model(tiny), make_batch()
    assert not any("pooler" in name for name in model.state_dict())
    before = {k: v.clone() for k, v in model.encoders["tokens"].state_dict().items()}
    pretrained = hub.load(Path(tiny)).state_dict()
    assert all(torch.equal(v, pretrained[k.removeprefix("network.")]) for k, v in before.items())
    step(model, batch)
    same = [k for k, v in model.encoders["tokens"].state_dict().items() if torch.equal(v, before[k])]
    assert same == []


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_what_is_frozen_is_identical_after_a_step(tiny, frozen):
    model, batch = make_model(tiny, frozen_layers=frozen, dropout=0.5), make_batch()
    encoder = model.encoders["tokens"]
    before = {k: v.clone() for k, v in encoder.named_parameters()}
    step(model, batch)
    moved = {k for k, v in encoder.named_parameters() if not torch.equal(v, before[k])}
    assert moved == {k for k in before if any(f"layer.{i}." in k for i in range(frozen, 2))}
    still = encoder.network.embeddings(torch.arange(5).unsqueeze(0))
    assert torch.equal(still, encoder.network.embeddings(torch.arange(5).unsqueeze(0)))  # no dropout in training mode


def test_dropout_is_for_training_only(tiny):
    encoder, (x, mask) = Language(TOKENS, model=tiny, dropout=0.5), random_input(TOKENS, 4)
    assert not torch.equal(encoder.train()(x, mask).tokens, encoder(x, mask).tokens)
    assert torch.equal(encoder.eval()(x, mask).pooled, encoder(x, mask).pooled)


def test_a_run_brings_its_own_weights(tiny, tmp_path):
    model, batch = make_model(tiny, frozen_layers=0), make_batch()
    step(model, batch)
    io.write_tensors(tmp_path / "model.safetensors", model.state_dict())
    io.write_json(tmp_path / "model.json", describe(model))
    again = load_model(io.read_json(tmp_path / "model.json"), tmp_path / "model.safetensors")
    assert torch.equal(model.eval()(batch).logits["emotion"], again(batch).logits["emotion"])


def test_misfits_are_refused(tiny):
    with pytest.raises(BadConfig, match="extractor `tokens`"):
        Language(StreamSpec("text", "text", (384,)), model=tiny)
    with pytest.raises(BadConfig, match="has 2 layers"):
        Language(TOKENS, model=tiny, depth=3)
    with pytest.raises(BadConfig, match="frozen_layers = 3"):
        Language(TOKENS, model=tiny, frozen_layers=3)
    with pytest.raises(BadConfig, match=r"token 900 (.|\n)*the same model"):
        Language(TOKENS, model=tiny)(torch.full((1, 3), 900.0), torch.ones(1, 3, dtype=torch.bool))


def test_an_absent_model_says_how_to_get_it(monkeypatch):
    def offline(*_: object, **__: object) -> str:
        raise OSError("offline")

    monkeypatch.setattr(hub, "find_spec", lambda _: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(MissingDependency, match=r"91 MB, Apache-2\.0"):
        Language(TOKENS)


def test_a_recipe_trains_scores_and_answers_for_words(tiny, tmp_path):
    """finetuned-transformer from a manifest of words to the timeline of a clip with subtitles."""
    said = {"happy": "good day !", "sad": "bad night"}
    rows = []
    for i in range(48):
        label, dialogue = ("happy", "sad")[(i * i // 3) % 2], f"d{i // 6}"
        place = {"conversation": dialogue, "position": i % 6, "speaker": f"{dialogue}s{i % 2}", "source": dialogue}
        rows.append({"id": f"u{i:02d}", "text": said[label], "label": label, **place})
    write_corpus(tmp_path / "corpus", rows, "words", "iemocap-4")
    options = [f"streams.tokens.{part}.model={tiny}" for part in ("extractor", "encoder")]
    options += ["train.epochs=16", "train.keep=last", "train.batch_size=12", "train.amp=auto"]
    options += ["streams.tokens.lr=10", "split.valid=0.2"]
    run = tmp_path / "run"
    where = ["--corpus", str(tmp_path / "corpus"), "--out", str(run), "--quiet"]
    assert main(["train", "finetuned-transformer", *options, *where]) == 0
    assert io.read_json(run / "evaluation.json")["protocol"]["n"] > 0
    assert FeatureStore(tmp_path / "corpus" / "features" / "tokens")["u00"].values.dtype == np.int32
    soundfile.write(tmp_path / "a.wav", np.zeros(6 * 16000, np.float32), 16000)
    times = ("00:00:00,000 --> 00:00:03,000", "00:00:03,000 --> 00:00:06,000")
    spoken = zip((1, 2), times, ("ANN", "BEN"), said, strict=True)
    srt = [f"{i}\n{t}\n{name}: {said[label]}\n" for i, t, name, label in spoken]
    (tmp_path / "a.srt").write_text("\n".join(srt))
    segments = affuse.load(str(run))(tmp_path / "a.wav").segments
    assert [s.speaker for s in segments] == ["ANN", "BEN"]
    assert [s.label for s in segments] == ["happy", "sad"]
