"""Toy parts of one short file each train, resume, are scored and compared through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from affuse.cli.app import main
from affuse.core import io, registry
from tests.contracts.corpora import make_corpus

STREAMS = {s: {"encoder": {"name": "mlp", "hidden": 8, "dropout": 0.0}} for s in ("audio_steps", "vision_steps")}
BASE = {"streams": STREAMS, "optim": {"lr": 0.01}, "train": {"epochs": 3, "batch_size": 8}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("toys") / "corpus")


@pytest.fixture(scope="module")
def grid_corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("toys") / "corpus", same_rate=True)


def write_recipe(folder: Path, **values) -> Path:
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(BASE | values | {"train": BASE["train"] | values.get("train", {})}, sort_keys=False))
    return path


def train(folder: Path, corpus, *more: object, **values) -> Path:
    recipe = write_recipe(folder, **values)
    assert (
        main(
            [
                "train",
                str(recipe),
                "--corpus",
                str(corpus.path),
                "--out",
                str(folder / "run"),
                *map(str, more),
                "--quiet",
            ]
        )
        == 0
    )
    return folder / "run"


def evaluation(run: Path) -> dict:
    return io.read_json(run / "evaluation.json")


def test_a_fusion_of_sequences_of_two_rates(corpus, tmp_path):
    run = train(tmp_path, corpus, fusion="toy_attention")
    assert evaluation(run)["n"] == len(pd.read_parquet(run / "predictions.parquet").query("full"))
    rows = io.read_jsonl(run / "metrics.jsonl")
    assert rows[-1]["loss"] < rows[0]["loss"]


FRAMES = {"emotion": {"resolution": "frame", "track": "expression"}}


def test_a_task_per_frame_from_a_label_track(grid_corpus, tmp_path):
    run = train(tmp_path, grid_corpus, fusion="framewise", tasks=FRAMES, train={"epochs": 25, "selection": "accuracy"})
    found, table = evaluation(run), pd.read_parquet(run / "predictions.parquet").query("full")
    split = io.read_table(run / "split.parquet").query("split == 'test'")["id"]
    from affuse.stores.store import FeatureStore

    track = FeatureStore(grid_corpus.annotation_path("expression"))
    annotated = sum(int((~np.isnan(track.get(i).values)).sum()) for i in split if i in track)
    assert found["n"] == len(table) == annotated
    assert found["resolution"] == "frame" and not table[["id", "frame"]].duplicated().any()
    assert found["metrics"]["accuracy"]["value"] > 0.7  # an answer per utterance cannot follow a class that changes
    assert main(["compare", str(run), str(run)]) == 0


def test_a_task_per_frame_spreads_the_label_of_its_utterance(grid_corpus, tmp_path):
    tasks = {"emotion": {"resolution": "frame", "rate": 5.0, "reduce": "mean_logits"}}
    found = evaluation(train(tmp_path, grid_corpus, fusion="framewise", tasks=tasks))
    assert found["per_utterance"]["n"] < found["n"]
    assert found["per_utterance"]["resolution" if "resolution" in found["per_utterance"] else "n"]


LABELS = {"emotions": {"space": "mosei-6", "kind": "multilabel"}}


def test_a_task_of_several_labels(corpus, tmp_path):
    run = train(
        tmp_path,
        corpus,
        tasks=LABELS,
        objectives={"bce": {"name": "binary_cross_entropy", "positive_weight": "balanced"}},
    )
    found, described = evaluation(run), io.read_json(run / "model.json")
    assert found["kind"] == "multilabel" and set(found["metrics"]) >= {"label_f1", "label_weighted_accuracy"}
    chosen = described["tasks"]["emotions"]["thresholds"]
    assert len(chosen) == 6 and {0.5} != set(chosen)
    table = pd.read_parquet(run / "predictions.parquet")
    assert np.allclose(table[[c for c in table if c.startswith("t:")]].iloc[0], chosen)
    assert found["per_class"][0]["threshold"] == pytest.approx(chosen[0])


TWO = {"emotion": {}, "sentiment": {"column": "sentiment", "space": "sentiment"}}


def test_two_tasks_at_once(corpus, tmp_path):
    terms = {
        "classes": {"name": "cross_entropy", "task": "emotion"},
        "value": {"name": "l1", "task": "sentiment", "weight": 0.5},
    }
    run = train(tmp_path, corpus, tasks=TWO, objectives=terms, train={"task": "sentiment", "selection": "mae"})
    found = evaluation(run)
    assert found["task"] == "sentiment" and "mae" in found["metrics"]
    assert "uar" in found["tasks"]["emotion"]["metrics"]
    last = io.read_jsonl(run / "metrics.jsonl")[-1]
    assert set(last["terms"]) == {"classes", "value"} == set(last["valid_terms"])
    assert {"mae", "emotion.uar"} <= set(last["valid"])
    assert sum(last["terms"].values()) == pytest.approx(last["loss"])
    page = (run / "report.html").read_text()
    assert "Task emotion" in page
    assert main(["compare", str(run), str(run), "--task", "emotion"]) == 0


def test_two_cross_entropies_side_by_side(corpus, tmp_path):
    terms = {"plain": {"name": "cross_entropy"}, "smooth": {"name": "cross_entropy", "smoothing": 0.2, "weight": 0.3}}
    last = io.read_jsonl(train(tmp_path, corpus, objectives=terms) / "metrics.jsonl")[-1]
    assert set(last["terms"]) == {"plain", "smooth"}


CONTRAST = {"cross_entropy": {}, "pair": {"name": "toy_contrast", "weight": 0.2}}


def test_an_objective_with_teacher_and_queue(corpus, tmp_path):
    run = train(
        tmp_path, corpus, objectives=CONTRAST, train={"ema": 0.9, "ema_schedule": "constant", "ema_keeps": False}
    )
    rows = io.read_jsonl(run / "metrics.jsonl")
    assert rows[-1]["terms"]["pair"] < rows[0]["terms"]["pair"]


# ---- bad input --------------------------------------------------------------------------------------------------

BAD = {
    "a teacher without momentum": ({"objectives": CONTRAST}, "needs a teacher"),
    "items that are compared in parts": (
        {"objectives": CONTRAST, "train": {"ema": 0.9, "accumulate": 2}},
        "train.accumulate=1",
    ),
    "frames of a fusion of vectors": ({"tasks": FRAMES}, "one vector per utterance"),
    "an unknown track": (
        {"fusion": "framewise", "tasks": {"emotion": {"resolution": "frame", "track": "expresion"}}},
        "expression",
    ),
    "a track for utterances": ({"tasks": {"emotion": {"track": "expression"}}}, "resolution=frame"),
    "an unknown task": ({"objectives": {"ce": {"name": "cross_entropy", "task": "emotoin"}}}, "emotion"),
    "an unknown leading task": ({"train": {"task": "mood"}}, "emotion"),
    "an objective of another kind": ({"tasks": LABELS}, "binary_cross_entropy"),
    "a balancer of frames": ({"fusion": "framewise", "tasks": FRAMES, "balance": "ogm"}, "balance=none"),
    "a name that modules cannot have": ({"objectives": {"a.b": {"name": "cross_entropy"}}}, "a.b"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_misfit_is_one_error_with_the_way_out(case, grid_corpus, tmp_path, capsys):
    values, told = BAD[case]
    recipe = write_recipe(tmp_path, **values)
    assert (
        main(["train", str(recipe), "--corpus", str(grid_corpus.path), "--out", str(tmp_path / "run"), "--quiet"]) != 0
    )
    said = " ".join(capsys.readouterr().err.split())
    assert told in said and "Traceback" not in said


def test_a_grid_over_streams_of_two_rates_is_refused_and_one_rate_is_not(corpus, tmp_path, capsys):
    recipe = write_recipe(tmp_path, fusion="framewise", tasks=FRAMES)
    command = ["train", str(recipe), "--corpus", str(corpus.path), "--quiet", "--out"]
    assert main([*command, str(tmp_path / "run")]) != 0
    assert "one time grid" in " ".join(capsys.readouterr().err.split())
    assert main([*command, str(tmp_path / "run"), *[f"streams.{s}.rate=4" for s in STREAMS]]) == 0


def test_a_term_that_stands_twice_is_refused(corpus, tmp_path, capsys):
    path = tmp_path / "toy.yaml"
    path.write_text(
        "streams: {audio_steps: {encoder: mlp}}\nobjectives:\n  a: {name: cross_entropy}\n  a: {name: focal}\n"
    )
    assert main(["train", str(path), "--corpus", str(corpus.path), "--out", str(tmp_path / "run")]) != 0
    assert "'a' stands twice" in " ".join(capsys.readouterr().err.split())


def test_a_track_without_a_rate_is_refused(tmp_path, capsys):
    corpus = make_corpus(tmp_path / "corpus", same_rate=True)
    card = corpus.annotation_path("expression") / "card.json"
    values = json.loads(card.read_text())
    card.write_text(json.dumps(values | {"rate": 0.0}))
    recipe = write_recipe(tmp_path, fusion="framewise", tasks=FRAMES)
    assert main(["train", str(recipe), "--corpus", str(corpus.path), "--out", str(tmp_path / "run"), "--quiet"]) != 0
    assert "no rate" in " ".join(capsys.readouterr().err.split())


def test_a_batch_of_one_row(corpus, tmp_path):
    train(tmp_path, corpus, fusion="toy_attention", train={"batch_size": 1, "epochs": 1})


def test_own_parts_are_listed_and_may_not_hide_others(tmp_path, monkeypatch, capsys):
    assert main(["list", "fusions"]) == 0
    assert "toy_attention" in capsys.readouterr().out
    (tmp_path / "fusions").mkdir()
    (tmp_path / "fusions" / "gated.py").write_text("CARD = {'summary': ''}\n")
    monkeypatch.setenv("AFFUSE_PARTS", str(tmp_path))
    registry.cards.cache_clear()
    assert main(["list", "fusions"]) != 0
    assert "another name" in " ".join(capsys.readouterr().err.split())
