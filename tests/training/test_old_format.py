"""Runs of format 1, from before tasks had objects of their own, are scored and used as what they were."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

import affuse
from affuse.core import io
from affuse.core.errors import BadRun
from affuse.corpora.manifest import Corpus
from affuse.evaluation.protocol import evaluate
from affuse.training.run_folder import open_run


@pytest.fixture
def old_run(demo_run, tmp_path):
    """The demo run rewritten as format 1 had it."""
    run = tmp_path / "run"
    shutil.copytree(demo_run[0], run)
    info, described = io.read_json(run / "run.json"), io.read_json(run / "model.json")
    majority = int(np.argmax(info.pop("baselines")["emotion"]))
    info.pop("tasks")
    io.write_json(run / "run.json", info | {"format": 1, "majority": majority})
    tasks = described.pop("tasks")
    described.pop("lead")
    refined = {"refined": {}}
    spaces = {name: task["space"] for name, task in tasks.items()}
    io.write_json(run / "model.json", described | {"spaces": spaces, "parts": described["parts"] | refined})
    recipe = yaml.safe_load((run / "config.yaml").read_text())
    for key in ("task", "ema_schedule", "ema_keeps"):
        recipe["train"].pop(key)
    for task in recipe["tasks"].values():
        for key in ("kind", "resolution", "track", "rate", "reduce"):
            task.pop(key)
    terms = recipe["objectives"].values()
    recipe["objectives"] = {term.pop("name"): term for term in terms}
    (run / "config.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return run


def test_it_is_scored_as_before(old_run, demo_run):
    corpus = Corpus.open(demo_run[1])
    found = evaluate(old_run, corpus)
    expected = io.read_json(demo_run[0] / "evaluation.json")
    assert found["rows"] == expected["rows"]
    table, other = (pd.read_parquet(path / "predictions.parquet") for path in (old_run, demo_run[0]))
    pd.testing.assert_frame_equal(table, other)


def test_it_analyses_a_clip_as_before(old_run, demo_run):
    corpus = Corpus.open(demo_run[1])
    clip = corpus.path / corpus.table["video"][0]
    one, other = (json.loads(affuse.load(run)(clip).to_json()) for run in (old_run, demo_run[0]))
    assert one == other


def test_a_later_format_is_one_error(old_run):
    io.write_json(old_run / "run.json", io.read_json(old_run / "run.json") | {"format": 99})
    with pytest.raises(BadRun, match="format 99"):
        open_run(old_run)
