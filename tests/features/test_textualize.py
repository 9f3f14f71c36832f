"""The extractor textualize: its ids are those of its text, bound to its template, readable and kept with the corpus."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests.tiny_bert import save_tiny_bert
from tests.tiny_llama import save_tiny_llama

import affuse
from affuse.cli.app import main
from affuse.core import io
from affuse.core.errors import BadConfig, BadFeatures, UnknownName
from affuse.corpora.extraction.extract import extract
from affuse.corpora.manifest import Corpus, write_corpus
from affuse.features import textualize
from affuse.features.description import describers
from affuse.features.description.cues import Cue
from affuse.features.description.template import Template
from affuse.features.textualize import Textualize
from affuse.layers.lora import LoRALinear
from affuse.media.clip import Clip
from affuse.stores.store import FeatureStore

pytest.importorskip("transformers")
RATE = 16000
SILENT = "There is no picture. There is silence."


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return str(save_tiny_bert(tmp_path_factory.mktemp("bert"), max_position_embeddings=300))


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The clips whose sound was described, by a describer that needs no network."""
    asked: list[str] = []

    def describe(self, clip: Clip) -> list[Cue]:
        if not clip.has_audio:
            return []
        asked.append((clip.audio or clip.video).name)
        loud = float(np.abs(clip.read_audio(RATE).samples).max())
        return [Cue("sound", loud, "audio", 0, 1), Cue("voice", loud, "audio", 0, 1), Cue("sad", loud, "audio", 0, 1)]

    monkeypatch.setattr(describers.VoiceDescriber, "describe", describe)
    return asked


def make_corpus(path: Path, n: int = 5) -> Corpus:
    """Utterance i is a constant of i / 10 + 0.05 (the first: 0), and says i times "good"."""
    rows = []
    path.mkdir(parents=True)
    for i in range(n):
        soundfile.write(path / f"{i}.wav", np.full(RATE // 10, i / 10 + 0.05 * (i > 0), np.float32), RATE)
        label = ("happy", "sad")[i % 2]
        rows.append({"id": f"u{i}", "source": f"s{i}", "label": label, "audio": f"{i}.wav", "text": "good " * i})
    return write_corpus(path, rows, "constants", "ekman-7")


def said(i: int) -> str:
    words = f'They say: "{" ".join(["good"] * i)}"' if i else "Nobody speaks."
    strength = ("weak", "some", "strong")[(i >= 2) + (i >= 5)]
    return f"{words} " + (f"There is no picture. The voice expresses {strength} sadness." if i else SILENT)


def test_ids_are_those_of_the_text(tiny, calls, tmp_path):
    from transformers import AutoTokenizer

    corpus = make_corpus(tmp_path / "corpus")
    extractor = Textualize(model=tiny)
    assert (extractor.spec.name, extractor.spec.shape, extractor.spec.rate) == ("textualize", (), 0.0)
    feature = extractor(Clip(audio=corpus.path / "2.wav", text="good good"))
    assert feature.text == said(2)
    assert feature.values.tolist() == AutoTokenizer.from_pretrained(tiny)(said(2))["input_ids"]
    assert feature.values.dtype == np.int32
    assert len(extractor(Clip()).values) == 0 and extractor(Clip()).text == ""


def test_the_budget_is_counted_in_tokens(tiny, calls, tmp_path):
    clip = Clip(audio=make_corpus(tmp_path / "corpus").path / "2.wav", text="good bad " * 9)
    texts = {length: Textualize(model=tiny, length=length)(clip) for length in (60, 30, 25, 12, 8)}
    assert {length: len(feature.values) for length, feature in texts.items()} == {60: 36, 30: 25, 25: 25, 12: 12, 8: 8}
    assert texts[12].text == 'They say: "good bad good bad good"'
    assert texts[8].text == 'They say: "good"'


def test_modalities_that_are_off_are_not_looked_for(tiny, calls, tmp_path):
    clip = Clip(audio=make_corpus(tmp_path / "corpus").path / "4.wav", text="good day")
    assert Textualize(model=tiny, modalities=("text",))(clip).text == 'They say: "good day"'
    assert calls == []
    assert Textualize(model=tiny, modalities=("audio", "text"))(clip).text == (
        'The voice expresses some sadness. They say: "good day"'
    )


def test_texts_of_a_corpus_can_be_read_and_survive_interruption_and_change(tiny, calls, tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    done = extract(corpus, "textualize", {"model": tiny})
    rows = io.read_jsonl(done.store.path / "texts.jsonl")
    assert rows == [{"id": f"u{i}", "text": said(i)} for i in range(5)]
    assert done.store["u3"].text == said(3)
    table = corpus.table[corpus.table["id"] != "u1"]
    fewer = write_corpus(corpus.path, table.to_dict("records"), "constants", "ekman-7")
    again = extract(fewer, "textualize", {"model": tiny})
    assert [row["id"] for row in io.read_jsonl(again.store.path / "texts.jsonl")] == ["u0", "u2", "u3", "u4"]
    assert calls == [f"{i}.wav" for i in range(5)]


def test_a_store_is_bound_to_its_template(tiny, calls, tmp_path, monkeypatch):
    corpus = make_corpus(tmp_path / "corpus")
    card = extract(corpus, "textualize", {"model": tiny}).store.card
    assert card["parameters"]["template"] is None and str(tmp_path / "corpus") not in json.dumps(card)
    for changes in ({"no_words": "Silence."}, {"version": 2}, {"bins": {"pitch": [100, 200]}}):
        with pytest.raises(BadFeatures, match="template"):
            extract(corpus, "textualize", {"model": tiny, "template": changes})
    hashes = {Textualize(model=tiny, modalities=m).weights_hash for m in (("text",), ("text", "audio"))}
    assert len(hashes) == 2
    # a sentence that affuse itself changes, while the options stay the same
    monkeypatch.setattr(textualize, "make_template", lambda changes: replace(Template(), silence="It is quiet."))
    with pytest.raises(BadFeatures, match="weights_hash"):
        extract(corpus, "textualize", {"model": tiny})


def test_a_new_template_runs_no_network_again(tiny, calls, tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    extract(corpus, "textualize", {"model": tiny})
    assert len(calls) == 5
    other = {"name": "textualize", "model": tiny, "template": {"voice": "They sound of {}."}}
    store = extract(corpus, "shorter", other).store
    assert len(calls) == 5
    assert store["u3"].text == said(3).replace("The voice expresses", "They sound of")
    assert len(io.read_jsonl(corpus.path / "cues.jsonl")) == 2 * 5  # picture and sound of each


def test_the_command_says_where_the_texts_are(tiny, tmp_path, capsys):
    """With the real describers, in another process."""
    corpus = make_corpus(tmp_path / "corpus", n=2)
    options = [f"model={tiny}", "modalities=[text,audio]"]
    assert main(["extract", str(corpus.path), "textualize", *options, "--workers", "1"]) == 0
    assert "texts.jsonl" in " ".join(capsys.readouterr().err.split())
    store = FeatureStore(corpus.store_path("textualize"))
    assert store.text("u0") == "Nobody speaks. There is silence."
    assert store.text("u1") == 'They say: "good" There is no voice.'
    assert len(io.read_jsonl(corpus.path / "cues.jsonl")) == 2


def test_defect_everything_was_padded_to_the_global_maximum(tiny, calls, tmp_path):
    store = extract(make_corpus(tmp_path / "corpus"), "textualize", {"model": tiny}).store
    assert len({store.length(f"u{i}") for i in range(2, 5)}) == 3


def test_defect_importing_ran_the_whole_program(tmp_path):
    """Published: the module of textualisation calls its main on import."""
    code = "import sys, affuse.features.textualize; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"modalities": ()}, BadConfig, "modalities"),
        ({"modalities": ("text", "text")}, BadConfig, "modalities"),
        ({"template": {"no_fase": ""}}, UnknownName, "no_fase"),
        ({"length": 2}, BadConfig, "length = 2"),
    ],
)
def test_misfits_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        Textualize(**options)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_the_recipe_trains_and_answers_for_a_clip_without_words(kind, tiny, calls, tmp_path):
    """cexpr-text from sounds to the timeline of a clip, in full and with LoRA on a model that reads left to right."""
    model, options = tiny, []
    if kind == "llama":
        (tmp_path / "llama").mkdir()
        model = str(save_tiny_llama(tmp_path / "llama"))
        options = [f"streams.textualize.encoder.{o}" for o in ("lora=4", "pool=last", "frozen_layers=null")]
        options += ["streams.textualize.encoder.bfloat16=true", "streams.textualize.encoder.lora_stabilised=true"]
    corpus = make_corpus(tmp_path / "corpus", n=10)
    options += [f"streams.textualize.{part}.model={model}" for part in ("extractor", "encoder")]
    run = tmp_path / "run"
    arguments = ["train", "cexpr-text", *options, "--corpus", str(corpus.path), "--out", str(run), "--quiet"]
    assert main([*arguments, "train.epochs=2"]) == 0
    assert io.read_json(run / "evaluation.json")["protocol"]["n"] > 0
    described = io.read_json(run / "model.json")
    assert described["parts"]["streams"]["textualize"]["lora"] == (4 if kind == "llama" else 0)
    recognizer = affuse.load(str(run))
    assert not any(isinstance(m, LoRALinear) for m in recognizer.models[0].modules())
    soundfile.write(tmp_path / "clip.wav", np.sin(np.arange(3 * RATE) / 12).astype(np.float32) * 0.5, RATE)
    segments = recognizer(tmp_path / "clip.wav").segments
    assert segments
    for segment in segments:
        assert segment.modalities["text"].present and "no words" not in str(segment.reason)
        assert sum(segment.probabilities.values()) == pytest.approx(1, abs=1e-3)
