"""Runs are compared on the same labels of the same items, or not at all."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from affuse.core import io
from affuse.core.errors import BadRun, ProtocolError
from affuse.evaluation.compare import Scored, Sums, compare, joined
from affuse.evaluation.intervals import estimate


def write_scored(run, truth):
    """An evaluated run of three items by two speakers, as far as `compare` reads it."""
    protocol = {
        "split": "test",
        "split_hash": "s",
        "folds": None,
        "group_by": "speaker",
        "groups": 2,
        "n": 3,
        "same_corpus": True,
    }
    io.write_json(
        run / "evaluation.json",
        {"corpus": {"hash": "c"}, "labels": ["sentiment"], "metrics": {"mae": {}}, "protocol": protocol},
    )
    rows = pd.DataFrame(
        {
            "id": ["u1", "u2", "u3"],
            "speaker": ["a", "b", "b"],
            "modalities": "audio",
            "full": True,
            "truth": [[t] for t in truth],
        }
    )
    io.write_table(run / "predictions.parquet", rows.assign(**{"p:sentiment": [0.0, 0.5, 1.0]}))
    return run


def test_runs_of_different_label_columns_raise(tmp_path):
    """Both were scored against the labels of the first, so that the difference was not that of the means."""
    one, other = write_scored(tmp_path / "one", [0.0, 0.5, 1.0]), write_scored(tmp_path / "other", [1.0, 1.0, 1.0])
    alike = compare(one, one)
    assert alike["difference"]["value"] == 0
    assert "takes the 2 for typical ones" in alike["interval"]
    assert "for this seed only" in alike["interval"]
    with pytest.raises(ProtocolError, match="different labels of the same items"):
        compare(one, other)


def test_a_run_that_was_scored_on_another_corpus_only_is_not_a_folder_of_seeds(tmp_path):
    write_scored(tmp_path / "run" / "on-other", [0.0, 0.5, 1.0])
    with pytest.raises(BadRun, match="holds no evaluated run"):
        compare(tmp_path / "run", tmp_path / "run")


def test_groups_from_which_a_label_could_be_read_off_are_joined():
    groups = np.repeat(["a", "b", "c", "d", "e"], [10, 2, 3, 8, 4])
    truth = np.arange(27) % 3
    truth[groups == "d"] = 1  # all of one class
    found = joined(groups, truth)
    assert np.bincount(found).tolist() == [10, 5, 12]
    assert len(set(found[groups == "d"])) == 1
    assert all(len(set(truth[found == g])) > 1 for g in range(3))
    assert joined(np.repeat(["a", "b"], [9, 3]), np.arange(12) % 2).tolist() == [0] * 12
    assert joined(np.repeat(["a", "b"], 2), np.arange(4) % 2).tolist() == [0] * 4


def scored_on_values(run, predicted):
    """An evaluated run of 24 items by four speakers, values."""
    write_scored(run, [0.0, 0.5, 1.0])
    evaluation = io.read_json(run / "evaluation.json")
    io.write_json(run / "evaluation.json", evaluation | {"protocol": evaluation["protocol"] | {"groups": 4, "n": 24}})
    rows = pd.DataFrame(
        {
            "id": [f"u{i:02d}" for i in range(24)],
            "speaker": [f"s{i % 4}" for i in range(24)],
            "modalities": "audio",
            "full": True,
        }
    )
    truth = np.random.default_rng(0).normal(size=24)
    io.write_table(run / "predictions.parquet", rows.assign(truth=[[t] for t in truth], **{"p:sentiment": predicted}))
    return run


def test_the_sums_give_the_numbers_of_the_runs_and_survive_a_file(tmp_path):
    rng = np.random.default_rng(1)
    one, other = ([scored_on_values(tmp_path / f"{arm}{s}", rng.normal(size=24)) for s in range(2)] for arm in "ab")
    arms = {"one": Scored(one), "other": Scored(other), "mean": Scored(one).averaged()}
    Sums.of(arms, ["ccc", "mae"], {"head": []}).write(tmp_path / "sums.parquet")
    sums = Sums.read(tmp_path / "sums.parquet")
    for name in ("ccc", "mae", "pearson"):  # the last from the sums of the first
        for arm, runs in arms.items():
            assert sums.each(name, arm) == pytest.approx(runs.each(name), abs=1e-9)
            assert sums.estimate(name, arm).to_dict() == pytest.approx(runs.estimate(name).to_dict(), abs=1e-9)
        assert sums.less(name, "one", "other").to_dict() == pytest.approx(
            arms["one"].less(arms["other"], name).to_dict(), abs=1e-9
        )
    assert arms["mean"].predictions()[0] == pytest.approx(np.mean(arms["one"].predictions(), axis=0))
    assert not {"id", "speaker", "truth"} & set(sums.table.columns)


def test_a_metric_of_ranks_is_kept_as_its_values_without_each_group(tmp_path):
    rng, truth = np.random.default_rng(2), np.arange(30) % 3
    runs = Scored([scored_on_values(tmp_path / "run", rng.normal(size=24))])
    runs.truth, runs.groups, runs.ids = truth, np.repeat(list("abcde"), 6), [str(i) for i in range(30)]
    predicted = rng.dirichlet(np.ones(3), 30)
    runs.predictions = lambda subset="": [predicted]
    sums = Sums.of({"run": runs}, ["mean_average_precision", "uar"], {})
    for name in sums.info["metrics"]:
        assert sums.estimate(name, "run") == estimate(name, truth, predicted, runs.groups)
