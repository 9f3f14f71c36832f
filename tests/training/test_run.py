"""What a run folder says of itself: the epoch that was kept, and the runs that its encoders started from."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from affuse.cli.app import main
from affuse.core import io
from affuse.core.config import load_recipe
from affuse.core.errors import BadConfig, BadRun
from affuse.corpora.manifest import write_corpus
from affuse.evaluation.protocol import evaluate
from affuse.reporting.report import write_report
from affuse.stores.store import import_arrays
from affuse.training.binding import bind
from affuse.training.train import train

SMALL = ["streams.*.encoder.hidden=8", "train.ema=0"]


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_kept_epoch_is_the_one_whose_weights_are_there(vector_corpus, tmp_path, keep):
    epochs = ["train.epochs=6", "train.patience=0", f"train.keep={keep}"]
    recipe = bind(load_recipe("vectors", [*SMALL, *epochs, "split.valid=0.25", "optim.lr=0.05"]), vector_corpus)
    train(recipe, "vectors", vector_corpus, tmp_path / "run")
    info = io.read_json(tmp_path / "run" / "run.json")
    scores = [row["valid"][recipe.train.selection] for row in io.read_jsonl(tmp_path / "run" / "metrics.jsonl")]
    epoch = 6 if keep == "last" else 1 + scores.index(max(scores))
    assert (info["best_epoch"], info["best_score"]) == (epoch, pytest.approx(scores[epoch - 1]))
    page = write_report(tmp_path / "run").read_text()
    assert ("that number chose the epoch" in page) == (keep == "best")
    found = evaluate(tmp_path / "run", vector_corpus, split="valid")
    reported = next(row for row in found["rows"] if row["name"] == "all modalities")["metrics"]
    assert reported[recipe.train.selection]["value"] == pytest.approx(info["best_score"], abs=1e-6)


def test_nothing_held_out_chose_nothing(vector_corpus, tmp_path):
    changes = [*SMALL, "train.epochs=2", "train.patience=0", "train.keep=last", "split.valid=0.0"]
    train(bind(load_recipe("vectors", changes), vector_corpus), "vectors", vector_corpus, tmp_path / "run")
    info = io.read_json(tmp_path / "run" / "run.json")
    assert (info["best_epoch"], info["best_score"]) == (2, None)
    assert "validation" not in write_report(tmp_path / "run").read_text().partition("Kept epoch")[2][:80]


def test_another_run_to_start_from_is_another_run(vector_corpus, tmp_path):
    short = [*SMALL, "train.epochs=1"]
    for seed in (0, 1):
        recipe = bind(load_recipe("vectors", [*short, f"train.seed={seed}"]), vector_corpus)
        train(recipe, "vectors", vector_corpus, tmp_path / f"start{seed}")
    start = [f"init={tmp_path / 'start0'}", "encoder.name=mlp", "encoder.hidden=8"]
    recipe = bind(load_recipe("vectors", [*short, *(f"streams.audio_vec.{s}" for s in start)]), vector_corpus)
    train(recipe, "vectors", vector_corpus, tmp_path / "run")
    (tmp_path / "start1" / "model.safetensors").replace(tmp_path / "start0" / "model.safetensors")
    with pytest.raises(BadRun, match="init_hashes"):
        train(recipe, "vectors", vector_corpus, tmp_path / "run")


def test_options_of_the_wildcard_hold_for_every_stream(vector_corpus):
    recipe = bind(load_recipe("vectors", ["streams.*.standardise_by=speaker", "streams.*.lr=0.1"]), vector_corpus)
    assert {(s.standardise_by, s.lr) for s in recipe.streams.values()} == {("speaker", 0.1)}


def test_a_run_in_which_nothing_was_trained_makes_way_for_the_corrected_one(vector_corpus, tmp_path):
    refused = bind(load_recipe("vectors", [*SMALL, "train.epochs=1", "objectives={l1: {}}"]), vector_corpus)
    with pytest.raises(BadConfig, match="'l1' is not for classes"):
        train(refused, "vectors", vector_corpus, tmp_path / "run")
    corrected = bind(load_recipe("vectors", [*SMALL, "train.epochs=1"]), vector_corpus)
    train(corrected, "vectors", vector_corpus, tmp_path / "run")
    assert load_recipe(str(tmp_path / "run" / "config.yaml")) == corrected


def iemocap_table(path):
    """A corpus like IEMOCAP: dialogues in four sessions of two speakers each, session 4 the published test split."""
    rng = np.random.default_rng(0)
    rows = []
    for s, d in itertools.product(range(1, 5), range(4)):
        split, dialogue = "test" if s == 4 else "train", f"S{s}d{d}"
        whole = {"conversation": dialogue, "source": f"S{s}", "split": split, "text": "words"}
        for u, label in enumerate(rng.permutation(["happy", "sad", "neutral", "angry"] * 2)):
            own = {"id": f"{dialogue}u{u}", "position": u, "speaker": f"S{s}{'FM'[u % 2]}", "label": label}
            rows.append(own | whole)
    corpus = write_corpus(path, rows, "sessions", "iemocap-4")
    for stream, dim in (("voice_vec", 5), ("word_vec", 4)):
        import_arrays(corpus.store_path(stream), [r["id"] for r in rows], rng.normal(size=(len(rows), dim)))
    return corpus


SMALL_MLP = "{encoder: {name: mlp, hidden: 4}}"
DIALOGUE = ["train.epochs=1", f"streams={{voice_vec: {SMALL_MLP}, word_vec: {SMALL_MLP}}}"]


def test_folds_of_a_dialogue_recipe_share_no_speaker_and_no_source(tmp_path, capsys):
    corpus = iemocap_table(tmp_path / "corpus")
    where = ["--corpus", str(corpus.path), "--folds", "4", "--out", str(tmp_path / "run")]
    assert main(["train", "dialogue-none", *DIALOGUE, *where]) == 0
    assert "no speaker, source or conversation is in train and test" in " ".join(capsys.readouterr().err.split())
    for k in range(4):
        split = io.read_table(tmp_path / "run" / f"fold{k}" / "split.parquet")
        trained, tested = (split[split["split"].isin(parts)] for parts in (["train", "valid"], ["test"]))
        assert all(len(tested[c]) and not set(trained[c]) & set(tested[c]) for c in ("speaker", "source"))
    found = io.read_json(tmp_path / "run" / "evaluation.json")["protocol"]
    assert (found["group_by"], found["groups"], found["crossing"]) == ("speaker+source", 4, [])


def test_a_published_split_is_kept_and_its_interval_says_what_it_means(tmp_path):
    corpus = iemocap_table(tmp_path / "corpus")
    run = train(bind(load_recipe("dialogue-none", DIALOGUE), corpus), "dialogue-none", corpus, tmp_path / "run")
    split = io.read_table(run / "split.parquet")
    assert set(split.loc[split["split"] == "test", "source"]) == {"S4"}
    found = evaluate(run, corpus)["protocol"]
    assert (found["group_by"], found["groups"], found["split_by"]) == ("conversation", 4, "speaker+source")
    assert "other conversations of the same 2 speakers and 1 source" in found["interval_means"]
    assert "does not generalise over speakers or sources" in write_report(run).read_text()


def test_what_a_user_lets_cross_is_said_by_train_and_report(tmp_path, capsys):
    corpus = iemocap_table(tmp_path / "corpus")
    where = ["--corpus", str(corpus.path), "--folds", "4", "--out", str(tmp_path / "run")]
    assert main(["train", "dialogue-none", *DIALOGUE, "split.group_by=conversation", *where, "--quiet"]) == 0
    warning = "are in train and test by split.group_by=conversation"
    assert warning in " ".join(capsys.readouterr().err.split())
    found = io.read_json(tmp_path / "run" / "evaluation.json")["protocol"]
    crossing = {(row["fold"], row["column"]) for row in found["crossing"] if row["parts"] == "train/test"}
    assert crossing >= {(k, "source") for k in range(4)}
    assert found["crossing"][0]["examples"]
    assert warning in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--folds", "13"], "13 folds need 13 groups"),
        (["split.group_by=split"], "need 2 groups"),
        (["tasks.emotion.space=sentiment"], "'weighted_f1' does not fit a task of values"),
        (["tasks.emotion.space=sentiment", "train.selection=ccc"], "no numbers for 'sentiment'"),
        (["tasks.emotion.column=mood"], "no column of"),
        (["split.valid=0"], "nothing to select an epoch on"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_extraction(tmp_path, capsys, monkeypatch, given, message):
    labels = ("happy", "sad") * 6
    rows = [{"id": f"u{i}", "speaker": f"s{i % 4}", "text": "words", "label": c} for i, c in enumerate(labels)]
    corpus = write_corpus(tmp_path / "corpus", rows, "words", "iemocap-4")
    monkeypatch.setattr("affuse.cli.extract.extract_into", lambda *_, **__: pytest.fail("extraction began"))
    where = ["--corpus", str(corpus.path), "--out", str(tmp_path / "run")]
    assert main(["train", "dialogue-none", "streams={text: {encoder: mlp}}", *given, *where]) != 0
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (corpus.path / "attempts.jsonl").exists()


def test_a_corpus_is_no_place_for_a_run(vector_corpus):
    with pytest.raises(BadRun, match="is a corpus"):
        train(bind(load_recipe("vectors", SMALL), vector_corpus), "vectors", vector_corpus, vector_corpus.path)
