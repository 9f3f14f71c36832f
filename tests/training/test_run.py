"""What a run folder says of itself: the epoch that was kept, and the runs that its encoders started from."""

from __future__ import annotations

import pytest

from affuse.core import io
from affuse.core.config import load_recipe
from affuse.core.errors import BadConfig, BadRun
from affuse.evaluation.protocol import evaluate
from affuse.reporting.report import write_report
from affuse.training.run import bind, train

SMALL = ["streams.*.encoder.hidden=8", "train.ema=0"]


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_kept_epoch_is_the_one_whose_weights_are_there(vector_corpus, tmp_path, keep):
    recipe = bind(load_recipe("vectors", [*SMALL, "split.valid=0.25", "train.epochs=6", "train.patience=0", f"train.keep={keep}", "optim.lr=0.05"]), vector_corpus)
    train(recipe, "vectors", vector_corpus, tmp_path / "run")
    info = io.read_json(tmp_path / "run" / "run.json")
    scores = [row["valid"][recipe.train.selection] for row in io.read_jsonl(tmp_path / "run" / "metrics.jsonl")]
    epoch = 6 if keep == "last" else 1 + scores.index(max(scores))
    assert (info["best_epoch"], info["best_score"]) == (epoch, pytest.approx(scores[epoch - 1]))
    page = write_report(tmp_path / "run").read_text()
    assert ("that number chose the epoch" in page) == (keep == "best")
    found = evaluate(tmp_path / "run", vector_corpus, split="valid")
    reported = next(row for row in found["rows"] if row["name"] == "all modalities")["metrics"][recipe.train.selection]["value"]
    assert reported == pytest.approx(info["best_score"], abs=1e-6)


def test_nothing_held_out_chose_nothing(vector_corpus, tmp_path):
    changes = [*SMALL, "train.epochs=2", "train.patience=0", "train.keep=last", "split.valid=0.0"]
    train(bind(load_recipe("vectors", changes), vector_corpus), "vectors", vector_corpus, tmp_path / "run")
    info = io.read_json(tmp_path / "run" / "run.json")
    assert (info["best_epoch"], info["best_score"]) == (2, None)
    assert "validation" not in write_report(tmp_path / "run").read_text().partition("Kept epoch")[2][:80]


def test_another_run_to_start_from_is_another_run(vector_corpus, tmp_path):
    short = [*SMALL, "train.epochs=1"]
    for seed in (0, 1):
        train(bind(load_recipe("vectors", [*short, f"train.seed={seed}"]), vector_corpus), "vectors", vector_corpus, tmp_path / f"start{seed}")
    recipe = bind(load_recipe("vectors", [*short, f"streams.audio_vec.init={tmp_path / 'start0'}", "streams.audio_vec.encoder.name=mlp", "streams.audio_vec.encoder.hidden=8"]), vector_corpus)
    train(recipe, "vectors", vector_corpus, tmp_path / "run")
    (tmp_path / "start1" / "model.safetensors").replace(tmp_path / "start0" / "model.safetensors")
    with pytest.raises(BadRun, match="init_hashes"):
        train(recipe, "vectors", vector_corpus, tmp_path / "run")


def test_options_of_the_wildcard_hold_for_every_stream(vector_corpus):
    recipe = bind(load_recipe("vectors", ["streams.*.standardise_by=speaker", "streams.*.lr=0.1"]), vector_corpus)
    assert {(s.standardise_by, s.lr) for s in recipe.streams.values()} == {("speaker", 0.1)}


def test_a_run_in_which_nothing_was_trained_makes_way_for_the_corrected_one(vector_corpus, tmp_path):
    refused = bind(load_recipe("vectors", [*SMALL, "train.epochs=1", "objectives.cross_entropy.task=nobody"]), vector_corpus)
    with pytest.raises(BadConfig, match="nobody"):
        train(refused, "vectors", vector_corpus, tmp_path / "run")
    corrected = bind(load_recipe("vectors", [*SMALL, "train.epochs=1"]), vector_corpus)
    train(corrected, "vectors", vector_corpus, tmp_path / "run")
    assert load_recipe(str(tmp_path / "run" / "config.yaml")) == corrected


def test_a_corpus_is_no_place_for_a_run(vector_corpus):
    with pytest.raises(BadRun, match="is a corpus"):
        train(bind(load_recipe("vectors", SMALL), vector_corpus), "vectors", vector_corpus, vector_corpus.path)
