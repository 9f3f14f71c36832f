"""Another corpus is scored without the speakers that the run was trained on; the protocol names them."""

from __future__ import annotations

import json

import pytest
from tests.conftest import make_vector_corpus

from affuse.cli.app import main
from affuse.core import io
from affuse.core.config import load_recipe
from affuse.corpora.manifest import Corpus, write_corpus
from affuse.evaluation.protocol import evaluate
from affuse.evaluation.seen import seen, trained_by_run
from affuse.training.binding import bind
from affuse.training.run_folder import open_run
from affuse.training.train import train


@pytest.fixture
def trained(vector_corpus, tmp_path):
    """A run, and who was trained or selected on in it."""
    recipe = bind(load_recipe("vectors", ["train.epochs=1", "split.valid=0.15"]), vector_corpus)
    run = train(recipe, "vectors", vector_corpus, tmp_path / "run")
    split = io.read_table(run / "split.parquet")
    return run, set(split.loc[split["split"] != "test", "speaker"])


def other(path, rename=lambda column, value: value, name="elsewhere"):
    """The vectors of `vector_corpus` under other names, and as another corpus."""
    made = make_vector_corpus(path, seed=1)
    table = made.table.assign(**{c: [rename(c, v) for v in made.table[c]] for c in ("speaker", "source")}, extra="")
    info = io.read_json(path / "corpus.json") | {"name": name}
    io.write_json(path / "corpus.json", info)
    return write_corpus(path, table, name, "iemocap-4")


def new_ids(corpus: Corpus) -> Corpus:
    """The corpus as if no id were known (its stores are not asked for)."""
    return Corpus(corpus.path, corpus.table.assign(id="new " + corpus.table["id"]), corpus.info)


def test_whom_the_run_knows_is_named_and_left_out(trained, tmp_path, capsys):
    run, known = trained
    corpus = other(tmp_path / "other")
    assert main(["evaluate", str(run), "--corpus", str(corpus.path), "--json", "--quiet"]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    strangers = ~corpus.table["speaker"].isin(known)
    assert 0 < result["n"] == strangers.sum() < 48
    parts = {part["column"]: part for part in result["protocol"]["seen_in_training"]}
    assert set(parts["speaker"]["values"]) == set(parts["source"]["values"]) == known
    assert parts["id"]["utterances"] == parts["speaker"]["utterances"] == 48 - result["n"]
    assert "was trained on" in shown.err and "--include-seen" in shown.err
    page = (run / "on-elsewhere" / "report.html").read_text()
    assert "vectors on elsewhere" in page and "left out that were trained on" in page
    assert not (run / "report.html").exists()  # nor is the run's own report touched


def test_include_seen_keeps_and_marks_them(trained, tmp_path):
    run, known = trained
    corpus = other(tmp_path / "other")
    result = evaluate(run, corpus, include_seen=True)
    assert (result["n"], result["protocol"]["left_out"]) == (48, 0)
    table = io.read_table(run / "on-elsewhere" / "predictions.parquet")
    assert set(table.loc[table["seen"], "speaker"]) == known
    protocol = result["protocol"]
    words = f"{protocol['seen_scored']} of 48 scored utterances are of what run was trained on"
    assert words in protocol["overlap"][-1]
    assert "does not generalise over speakers" in result["protocol"]["interval_means"]


def test_strangers_are_scored_whole_and_empty_names_match_nothing(trained, tmp_path):
    run, _ = trained
    corpus = new_ids(other(tmp_path / "other", lambda column, value: "" if column == "speaker" else f"another {value}"))
    io.write_table(run / "split.parquet", io.read_table(run / "split.parquet").assign(speaker=""))
    info, _, folders = open_run(run)
    found = seen("run", trained_by_run(info, folders), corpus)
    assert not found.rows.any()
    overlap = found.protocol(~found.rows, ~found.rows)["overlap"]
    assert overlap == ["run was trained on nothing of elsewhere that it names"]


def test_where_nobody_else_is_there_all_are_scored_and_marked(trained, tmp_path):
    run, known = trained
    corpus = other(tmp_path / "other", lambda column, value: min(known))
    result = evaluate(run, corpus)
    assert (result["n"], result["protocol"]["left_out"], result["protocol"]["seen_scored"]) == (48, 0, 48)


def test_the_rows_of_all_folds_count(vector_corpus, tmp_path):
    recipe = bind(load_recipe("vectors", ["train.epochs=1"]), vector_corpus)
    run = train(recipe, "vectors", vector_corpus, tmp_path / "run", folds=2)
    result = evaluate(run, other(tmp_path / "other"))
    assert result["protocol"]["seen_scored"] == 48


def test_names_of_a_joined_corpus_are_those_of_its_parts(vector_corpus):
    part = {"corpus": "joined", "column": "speaker", "values": [f"{vector_corpus.name}_s0"]}
    assert seen("m", [part], vector_corpus).shared[0]["values"] == ["s0"]
