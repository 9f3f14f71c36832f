"""Pretraining without labels, what a training takes over of it, few labels, pseudo-labels, the control beside a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from affuse.cli.app import main
from affuse.core import io
from affuse.core.config import load_recipe, make_recipe, pretraining
from affuse.core.errors import BadConfig
from affuse.corpora.manifest import Corpus, write_corpus
from affuse.training import binding
from affuse.training.run_folder import open_run
from tests.contracts.corpora import make_corpus

STREAMS = {
    "audio_steps": {"encoder": {"name": "mlp", "hidden": 8, "dropout": 0.0}},
    "vision_steps": {"encoder": {"name": "mlp", "hidden": 8, "dropout": 0.0}},
}
BASE = {
    "streams": STREAMS,
    "fusion": {"name": "cross_modal", "dim": 8, "heads": 2, "layers": 1},
    "optim": {"lr": 0.01},
    "train": {"epochs": 2, "batch_size": 8},
    "pretrain": {
        "objectives": {"contrast": {"name": "pair_contrastive", "queue": 4, "dim": 4}, "match": "pair_matching"},
        "train": {"epochs": 3, "ema": 0.9, "ema_keeps": False},
    },
}
BASE["pretrain"]["objectives"]["match"] = {"name": "pair_matching"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("stages") / "corpus", 60)


def write_recipe(folder: Path, **values: object) -> str:
    path = folder / "stages.yaml"
    path.write_text(yaml.safe_dump(BASE | values, sort_keys=False))
    return str(path)


def affuse(verb: str, recipe: str, corpus: Corpus, out: Path, *more: object) -> int:
    return main([verb, recipe, "--corpus", str(corpus.path), "--out", str(out), *map(str, more), "--quiet"])


def said(capsys) -> str:
    return " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def pretrained(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    assert affuse("pretrain", write_recipe(folder), corpus, folder / "run") == 0
    return folder / "run"


def test_pretraining_does_not_look_at_labels(corpus, pretrained, tmp_path):
    blank = corpus.table.assign(label="", **dict.fromkeys(("happy", "sad", "angry", "sentiment"), np.nan))
    bare = write_corpus(tmp_path / "bare", blank, "steps", "iemocap-4")
    (bare.path / "features").symlink_to(corpus.path / "features")
    assert affuse("pretrain", write_recipe(tmp_path), bare, tmp_path / "run") == 0
    info = io.read_json(tmp_path / "run" / "run.json")
    assert info["pretrained"] and info["labelled"] == 0
    rows = io.read_jsonl(pretrained / "metrics.jsonl")
    assert set(rows[-1]["terms"]) == {"contrast", "match"} and rows[-1]["valid"] == {}
    assert rows[-1]["counts"]["contrast.without_pair"] > 0


def test_a_training_starts_from_what_is_the_same_and_says_so(corpus, pretrained, tmp_path):
    recipe = write_recipe(tmp_path, train={"epochs": 1, "batch_size": 8}, optim={"lr": 1e-9})
    assert affuse("train", recipe, corpus, tmp_path / "run", f"init={pretrained}") == 0
    before, after = (io.read_tensors(run / "model.safetensors") for run in (pretrained, tmp_path / "run"))
    for name, value in before.items():
        if not name.startswith("heads"):
            torch.testing.assert_close(after[name], value, atol=1e-6, rtol=0)  # normalisation statistics too
    told = io.read_json(tmp_path / "run" / "run.json")["init"]
    assert set(told["matched"]) == {"encoders.audio_steps", "encoders.vision_steps", "fusion"}
    assert told["fresh"] == {"heads.emotion": "trained without labels"} and told["unused"] == []


def test_a_part_that_differs_is_named_and_the_others_are_taken(corpus, pretrained, tmp_path):
    recipe = write_recipe(tmp_path, fusion="gated", train={"epochs": 1})
    assert affuse("train", recipe, corpus, tmp_path / "run", f"init={pretrained}") == 0
    told = io.read_json(tmp_path / "run" / "run.json")["init"]
    assert "fusion" in told["fresh"] and "encoders.audio_steps" in told["matched"]


def test_a_run_of_which_nothing_fits_is_refused(corpus, pretrained, tmp_path, capsys):
    wider = {s: {"encoder": {"name": "mlp", "hidden": 9}} for s in STREAMS}
    recipe = write_recipe(tmp_path, fusion="gated", streams=wider)
    assert affuse("train", recipe, corpus, tmp_path / "run", f"init={pretrained}") == 1
    told = said(capsys)
    assert "nothing of" in told and "another shape" in told and "Traceback" not in told


def test_folds_start_from_the_same_fold_and_never_from_tested_utterances(corpus, pretrained, tmp_path, capsys):
    recipe = write_recipe(tmp_path)
    assert affuse("train", recipe, corpus, tmp_path / "leak", "--folds", 3, f"init={pretrained}") == 1
    assert "tested here" in said(capsys)
    assert affuse("pretrain", recipe, corpus, tmp_path / "pre", "--folds", 3) == 0
    assert affuse("train", recipe, corpus, tmp_path / "run", "--folds", 3, f"init={tmp_path / 'pre'}") == 0
    for k in range(3):
        info = io.read_json(tmp_path / "run" / f"fold{k}" / "run.json")
        assert info["init"]["run"].endswith(f"fold{k}")
    assert affuse("train", recipe, corpus, tmp_path / "two", "--folds", 2, f"init={tmp_path / 'pre'}") == 1
    assert "3 folds" in said(capsys)


def test_a_run_without_labels_is_not_scored(corpus, pretrained, capsys):
    assert main(["evaluate", str(pretrained), "--corpus", str(corpus.path)]) == 1
    assert "trained without labels" in said(capsys)


def test_objectives_that_need_labels_do_not_pretrain():
    values = {**BASE, "pretrain": {"objectives": {"cross_entropy": {}}}}
    with pytest.raises(BadConfig, match="needs labels"):
        make_recipe(values)
    with pytest.raises(BadConfig, match="does without labels"):
        pretraining(make_recipe({**BASE, "pretrain": {}}))


def test_pretraining_resumes(corpus, pretrained, tmp_path, monkeypatch):
    from affuse.training.loop import Trainer

    recipe, record = write_recipe(tmp_path), Trainer._record

    def stop(self, row):
        record(self, row)
        if self.progress.epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_record", stop)
    assert affuse("pretrain", recipe, corpus, tmp_path / "run") == 130
    monkeypatch.setattr(Trainer, "_record", record)
    assert affuse("pretrain", recipe, corpus, tmp_path / "run") == 0
    one, two = (io.read_tensors(run / "model.safetensors") for run in (pretrained, tmp_path / "run"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


# ---- few labels -------------------------------------------------------------------------------------------------


def labelled(corpus: Corpus, share: float, **more: object) -> set[str]:
    recipe = binding.bind(make_recipe({**BASE, "split": {"labelled": share}, **more}), corpus)
    tasks = binding.tasks_of(recipe, corpus)
    data, _ = binding.training_set(corpus, recipe, tasks, np.ones(len(corpus.table), bool))
    return set(data.table["id"][data.labelled()])


def test_a_smaller_share_of_labels_is_part_of_a_larger_one_and_has_every_class(corpus):
    each = [labelled(corpus, share) for share in (0.1, 0.3, 0.7, 1.0)]
    assert all(a < b for a, b in zip(each, each[1:], strict=False)) and len(each[-1]) == 60
    counts = corpus.table[corpus.table["id"].isin(each[1])]["label"].value_counts()
    assert len(counts) == 4 and counts.max() - counts.min() <= 1 and abs(len(each[1]) - 18) <= 2


def test_rows_without_a_label_stay_where_something_learns_from_them(corpus, tmp_path):
    objectives = {"cross_entropy": {}, "contrast": {"name": "pair_contrastive", "teacher": False}}
    soft = {"cross_entropy": {}, "soft": {"name": "momentum_distillation", "items": "labelled"}}
    for extra, rows in (({}, 6), ({"objectives": objectives}, 40), ({"objectives": soft}, 6)):
        values = {**BASE, "split": {"labelled": 0.1}, **extra}
        recipe = binding.bind(make_recipe(values), corpus)
        data, _ = binding.training_set(corpus, recipe, binding.tasks_of(recipe, corpus), np.arange(60) < 40)
        assert abs(len(data) - rows) <= 2


# ---- pseudo-labels ----------------------------------------------------------------------------------------------


def pseudo(corpus: Corpus, folder: Path, sure: float) -> list[dict[str, float]]:
    recipe = write_recipe(folder, train={"epochs": 4, "batch_size": 8, "pseudo_labels": sure, "pseudo_from": 2})
    assert affuse("train", recipe, corpus, folder / "run", "split.labelled=0.3") == 0
    return [row.get("counts", {}) for row in io.read_jsonl(folder / "run" / "metrics.jsonl")]


def test_pseudo_labels_are_drawn_anew_every_epoch_and_counted(corpus, tmp_path):
    counts = pseudo(corpus, tmp_path, 0.26)
    assert counts[0] == {} and all(c["pseudo_labels"] > 0 for c in counts[1:])
    assert len({c["pseudo_labels.unlabelled"] for c in counts[1:]}) == 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Counted in training" in page and "pseudo labels" in page


def test_that_no_pseudo_label_is_sure_enough_is_said(corpus, tmp_path):
    counts = pseudo(corpus, tmp_path, 1.0)
    assert [c.get("pseudo_labels") for c in counts] == [None, 0, 0, 0]
    assert "No utterance without a label was sure enough" in (tmp_path / "run" / "report.html").read_text()


def test_pseudo_labels_fill_what_is_unknown_and_nothing_else(corpus):
    from dataclasses import replace

    recipe = binding.bind(make_recipe(BASE), corpus)
    data = binding.dataset(corpus, recipe, binding.tasks_of(recipe, corpus), np.ones(60, bool))
    hidden = data.hiding(np.arange(60) % 2 == 0)
    given = np.where(np.arange(60) % 4 == 0, 3, -1)
    target, known = replace(hidden, pseudo={"emotion": given}).labels("emotion")
    truth, _ = data.labels("emotion")
    assert known.tolist() == [i % 2 == 1 or i % 4 == 0 for i in range(60)]
    assert target[known].tolist() == [3 if i % 4 == 0 else int(truth[i]) for i in range(60) if i % 2 or i % 4 == 0]
    rows = [4, 5, 6]
    batch = replace(hidden, pseudo={"emotion": given}).batch(rows)
    assert batch.target_mask["emotion"].tolist() == [True, True, False] and int(batch.target["emotion"][0]) == 3


def test_pseudo_labels_are_for_classes(corpus, tmp_path, capsys):
    tasks = {"sentiment": {"column": "sentiment", "space": "sentiment"}}
    recipe = write_recipe(tmp_path, tasks=tasks, objectives={"l1": {}}, train={"pseudo_labels": 0.9})
    assert affuse("train", recipe, corpus, tmp_path / "run") == 2
    assert "classes of utterances" in said(capsys)


# ---- the control ------------------------------------------------------------------------------------------------


def test_a_model_of_the_sound_alone_is_trained_beside_it_and_stands_in_the_report(corpus, tmp_path, capsys):
    objectives = {"cross_entropy": {}, "contrast": {"name": "pair_contrastive", "teacher": False}}
    recipe = write_recipe(tmp_path, control=["audio"], objectives=objectives)
    command = ["train", recipe, "--corpus", str(corpus.path), "--out", str(tmp_path / "run"), "--folds", "3"]
    assert main(command) == 0
    assert "against audio trained alone" in said(capsys)
    found = io.read_json(tmp_path / "run" / "evaluation.json")
    row = next(r for r in found["rows"] if r["kind"] == "control")
    alone = io.read_json(tmp_path / "run" / "control" / "evaluation.json")
    assert row["metrics"]["uar"] == alone["metrics"]["uar"]
    gap = found["metrics"]["uar"]["value"] - alone["metrics"]["uar"]["value"]
    assert found["control"]["difference"]["value"] == pytest.approx(gap)
    _, own, _ = open_run(tmp_path / "run" / "control")
    assert list(own.streams) == ["audio_steps"] and list(own.objectives) == ["cross_entropy"]
    assert "Against audio trained alone" in (tmp_path / "run" / "report.html").read_text()
    before = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert main(["evaluate", str(tmp_path / "run"), "--corpus", str(corpus.path), "--quiet"]) == 0
    again = io.read_json(tmp_path / "run" / "evaluation.json")
    assert again["control"] == found["control"] and len(again["rows"]) == len(found["rows"])
    assert len(before) == len(pd.read_parquet(tmp_path / "run" / "predictions.parquet"))


def test_recipes_are_read_back_as_they_were_written(tmp_path):
    path = write_recipe(tmp_path, control=["audio"])
    recipe = load_recipe(path)
    assert make_recipe(recipe.to_dict()) == recipe


# ---- a queue longer than the data -------------------------------------------------------------------------------


def test_a_queue_longer_than_the_training_split_is_refused(corpus, tmp_path, capsys):
    recipe = write_recipe(tmp_path)
    assert affuse("pretrain", recipe, corpus, tmp_path / "run", "pretrain.objectives.contrast.queue=65536") == 2
    assert "65536" in (told := said(capsys)) and "contrast.queue=" in told
