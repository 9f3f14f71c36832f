"""Long recordings in overlapping windows: every label counts once, and windows change nothing but the context."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from affuse.cli.app import main
from affuse.core import io
from affuse.corpora.manifest import Corpus
from affuse.models.predict import predict
from affuse.stores.store import FeatureStore
from affuse.training.binding import dataset, tasks_of
from affuse.training.run_folder import open_run, run_model
from tests.contracts.corpora import make_corpus

RECIPE = {
    "streams": {s: {"encoder": {"name": "mlp", "hidden": 8}} for s in ("audio_steps", "vision_steps")},
    "fusion": "framewise",
    "tasks": {"emotion": {"resolution": "frame", "track": "expression"}},
    "optim": {"lr": 0.01},
    "train": {"epochs": 2, "batch_size": 8, "window": 0.9, "hop": 0.4},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("windows") / "corpus", same_rate=True)


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    return train(tmp_path_factory.mktemp("run"), corpus)


def write(folder, **values):
    (folder / "r.yaml").write_text(yaml.safe_dump(RECIPE | values, sort_keys=False))
    return str(folder / "r.yaml")


def train(folder, corpus, *more: str, **values):
    run = folder / "run"
    command = ["train", write(folder, **values), "--corpus", str(corpus.path), "--out", str(run), "--quiet", *more]
    assert main(command) == 0
    return run


def whole_and_windowed(run, corpus: Corpus):
    """The data of a run's recipe whole, and in windows that are scored."""
    _, recipe, _ = open_run(run)
    whole = dataset(corpus, recipe, tasks_of(recipe, corpus), np.ones(len(corpus.table), bool))
    return whole, whole.windowed(recipe.train.window, recipe.train.hop, scored=True)


def test_every_annotated_frame_is_scored_once(run, corpus):
    table = pd.read_parquet(run / "predictions.parquet").query("full")
    tested = io.read_table(run / "split.parquet").query("split == 'test'")["id"]
    track = FeatureStore(corpus.annotation_path("expression"))
    annotated = {
        (name, k) for name in tested if name in track for k in np.flatnonzero(~np.isnan(track.get(name).values[:, 0]))
    }
    assert len(table) == len(annotated) and set(zip(table["id"], table["frame"], strict=True)) == annotated


def test_a_model_that_looks_at_single_steps_says_the_same_in_windows(run, corpus):
    """The windows' own clocks, labels and order are right: the predictions of all frames agree one by one."""
    whole, windowed = whole_and_windowed(run, corpus)
    assert len(windowed) > 2 * len(whole)
    _, _, ((folder,),) = open_run(run)
    model, found = run_model(folder), []
    for data in (whole, windowed):
        target, known = data.labels("emotion")
        names = data.table["id"].repeat(data.frames("emotion")).to_numpy(dtype=str)
        rows = pd.DataFrame(predict(model, data, torch.device("cpu"))["emotion"])
        rows = rows.assign(id=names, frame=data.frame_numbers("emotion"), target=target.numpy())[known.numpy()]
        found.append(rows.sort_values(["id", "frame"]).reset_index(drop=True))
    pd.testing.assert_frame_equal(*found, atol=1e-5)


def test_windows_keep_their_part_of_the_streams(run, corpus):
    whole, windowed = whole_and_windowed(run, corpus)
    store = whole.stores["audio_steps"]
    row = int(np.flatnonzero(windowed.table["id"] == "u001")[1])
    start, end = (round(float(v[row]) * 10) for v in (windowed.cuts.start, windowed.cuts.end))
    assert (start, end) == (4, 13)
    batch = windowed.batch([row])
    np.testing.assert_array_equal(batch.x["audio_steps"][0], store["u001"].values[start:end])
    assert batch.t0["audio_steps"].tolist() == [0.0]


def test_batches_are_bucketed_by_the_windows_lengths(run, corpus):
    whole, windowed = whole_and_windowed(run, corpus)
    assert windowed.lengths.max() == 9 and whole.lengths.max() > 20, windowed.lengths
    for row in range(0, len(windowed), 7):
        assert windowed.lengths[row] >= windowed.batch([row]).x["audio_steps"].shape[1]


def test_answers_per_utterance_come_from_all_of_its_windows(corpus, tmp_path):
    run = train(tmp_path, corpus, tasks={"emotion": {"resolution": "frame", "rate": 5.0}})
    found = io.read_json(run / "evaluation.json")
    tested = io.read_table(run / "split.parquet").query("split == 'test'")
    assert found["per_utterance"]["n"] == len(tested) < found["n"]


def test_a_run_in_windows_resumes_and_is_scored_on_other_splits(run, corpus, capsys):
    assert main(["evaluate", str(run), "--corpus", str(corpus.path), "--split", "valid", "--quiet"]) == 0
    assert main(["train", str(run.parent / "r.yaml"), "--corpus", str(corpus.path), "--out", str(run), "--quiet"]) == 0


@pytest.mark.parametrize("values", [{"tasks": {"emotion": {}}, "fusion": "concat"}, {"context": "recurrent"}])
def test_what_windows_do_not_fit_is_refused(corpus, tmp_path, values, capsys):
    command = ["train", write(tmp_path, **values), "--corpus", str(corpus.path), "--out", str(tmp_path / "run")]
    assert main([*command, "--quiet"]) == 2
    assert "train.window = 0.9 with a" in " ".join(capsys.readouterr().err.split())
