"""Label tracks that importers write are what tasks per frame learn from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from affuse.cli.app import main
from affuse.core import io
from affuse.core.errors import BadCorpus
from affuse.core.labels import SPACES
from affuse.core.tasks import Task
from affuse.corpora.aff_wild2 import import_aff_wild2
from affuse.stores.label_track import LabelTrack
from affuse.stores.store import FeatureStore, import_arrays
from tests.contracts.corpora import make_corpus
from tests.corpora.test_aff_wild2 import AU, EXPR, VA, release

TASKS = {
    "expression": {"space": "abaw-8", "resolution": "frame", "track": "expression"},
    "affect": {"space": "va", "resolution": "frame", "track": "valence_arousal"},
    "units": {"space": "action-units-12", "resolution": "frame", "track": "action_units"},
}
TERMS = {
    "expression": {"name": "cross_entropy", "task": "expression"},
    "affect": {"name": "l1", "task": "affect"},
    "units": {"name": "binary_cross_entropy", "task": "units"},
}


def frames(seed: int, n: int = 40) -> dict[str, list[str]]:
    """The lines of a video's three files; every seventh frame has no label."""
    rng = np.random.default_rng(seed)
    lines: dict[str, list[str]] = {"va": [], "expression": [], "units": []}
    for k in range(n):
        missing = k % 7 == 6
        lines["va"].append("-5,-5" if missing else "{:.2f},{:.2f}".format(*rng.uniform(-1, 1, 2)))
        lines["expression"].append("-1" if missing else str(rng.integers(0, 8)))
        lines["units"].append(",".join("-1" if missing else str(v) for v in rng.integers(0, 2, 12)))
    return lines


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Twelve videos of Aff-Wild2 with all three annotations, and random vectors of 25 Hz in place of their pictures."""
    folder = tmp_path_factory.mktemp("aff")
    files = {}
    for i in range(12):
        part, lines = "Validation_Set" if i >= 9 else "Train_Set", frames(i)
        for challenge, name in ((VA, "va"), (EXPR, "expression"), (AU, "units")):
            files[f"{challenge}/{part}/video{i}"] = lines[name]
    made = import_aff_wild2(release(folder / "r", files), folder / "c", partial=True, rate=25.0, fps=25.0)
    rng, ids = np.random.default_rng(0), made.table["id"].tolist()
    offsets = np.arange(len(ids) + 1) * 40
    import_arrays(made.store_path("vectors"), ids, rng.normal(size=(40 * len(ids), 5)), offsets, "vision", 25.0)
    return made


def test_expression_affect_and_action_units_at_once(corpus, tmp_path):
    recipe = {
        "streams": {"vectors": {"encoder": {"name": "mlp", "hidden": 8}}},
        "fusion": "framewise",
        "tasks": TASKS,
        "objectives": TERMS,
        "split": {"test": 0.25},
        "train": {"epochs": 2, "batch_size": 4},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    run = tmp_path / "run"
    command = [
        "train",
        str(tmp_path / "r.yaml"),
        "--corpus",
        str(corpus.path),
        "--out",
        str(run),
        "--quiet",
        "--folds",
        "3",
    ]
    assert main(command) == 0
    found = io.read_json(run / "evaluation.json")
    every = 12 * sum(k % 7 != 6 for k in range(40))  # each video is tested once
    assert found["task"] == "expression" and found["n"] == every
    assert found["tasks"]["affect"]["n"] == found["tasks"]["units"]["n"] == every
    assert {"ccc", "mae"} <= set(found["tasks"]["affect"]["metrics"])
    assert found["tasks"]["units"]["kind"] == "multilabel"
    assert found["protocol"]["groups"] == 12  # intervals are over videos, not over frames
    table = pd.read_parquet(run / "predictions-affect.parquet").query("full")
    store = FeatureStore(corpus.annotation_path("valence_arousal"))
    for name, frame, truth in table[["id", "frame", "truth"]].head(50).itertuples(index=False):
        np.testing.assert_allclose(store.get(name).values[frame], truth, atol=1e-6)


def test_a_run_per_frame_is_scored_on_another_corpus_with_its_track(tmp_path):
    one, other = (make_corpus(tmp_path / f"c{k}", seed=k, same_rate=True) for k in (0, 1))
    recipe = {
        "streams": {s: {"encoder": {"name": "mlp", "hidden": 8}} for s in ("audio_steps", "vision_steps")},
        "fusion": "framewise",
        "tasks": {"emotion": {"resolution": "frame", "track": "expression"}},
        "train": {"epochs": 1},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    run = tmp_path / "run"
    assert main(["train", str(tmp_path / "r.yaml"), "--corpus", str(one.path), "--out", str(run), "--quiet"]) == 0
    assert main(["evaluate", str(run), "--corpus", str(other.path), "--include-seen", "--quiet"]) == 0
    track = FeatureStore(other.annotation_path("expression"))
    annotated = sum(int((~np.isnan(track.get(i).values)).sum()) for i in track.ids)
    assert io.read_json(run / "on-steps" / "evaluation.json")["n"] == annotated


def test_labels_that_the_space_lacks_are_named(tmp_path):
    corpus = make_corpus(tmp_path / "c")
    track = LabelTrack(FeatureStore(corpus.annotation_path("expression")), ["neutral", "happy", "sad", "contempt"])
    with pytest.raises(BadCorpus, match="contempt"):
        for name in track.store.ids:
            track.frames(name, Task("emotion", SPACES["iemocap-4"]))
    values = Task("affect", SPACES["va"])
    with pytest.raises(BadCorpus, match="valence"):
        track.frames(track.store.ids[0], values)


def test_columns_are_matched_by_name_and_a_track_that_begins_later_is_moved(tmp_path):
    class Store:
        spec = type("Spec", (), {"rate": 5.0})
        path = tmp_path

        def __contains__(self, name):
            return True

        def get(self, name):
            return type("F", (), {"values": np.float32([[1, -1], [0.5, np.nan]]), "valid": None, "t0": 0.4})

    target, known = LabelTrack(Store(), ["arousal", "valence"]).frames("x", Task("affect", SPACES["va"]))
    assert known.tolist() == [False, False, True, False]
    assert torch.equal(target[2], torch.tensor([-1.0, 1.0]))
