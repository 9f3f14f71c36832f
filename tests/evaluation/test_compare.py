"""Runs are compared on the same labels of the same items, or not at all."""

from __future__ import annotations

import pandas as pd
import pytest

from affuse.core import io
from affuse.core.errors import BadRun, ProtocolError
from affuse.evaluation.compare import compare


def write_scored(run, truth):
    """An evaluated run of three items by two speakers, as far as `compare` reads it."""
    protocol = {"split": "test", "split_hash": "s", "folds": None, "group_by": "speaker", "groups": 2, "n": 3, "same_corpus": True}
    io.write_json(run / "evaluation.json", {"corpus": {"hash": "c"}, "labels": ["sentiment"], "metrics": {"mae": {}}, "protocol": protocol})
    rows = pd.DataFrame({"id": ["u1", "u2", "u3"], "speaker": ["a", "b", "b"], "modalities": "audio", "full": True, "truth": [[t] for t in truth]})
    io.write_table(run / "predictions.parquet", rows.assign(**{"p:sentiment": [0.0, 0.5, 1.0]}))
    return run


def test_runs_of_different_label_columns_are_refused(tmp_path):
    """Both were scored against the labels of the first, so that the difference was not that of the means."""
    one, other = write_scored(tmp_path / "one", [0.0, 0.5, 1.0]), write_scored(tmp_path / "other", [1.0, 1.0, 1.0])
    alike = compare(one, one)
    assert alike["difference"]["value"] == 0
    assert "2 groups only" in alike["interval"]
    with pytest.raises(ProtocolError, match="different labels of the same items"):
        compare(one, other)


def test_a_run_that_was_scored_on_another_corpus_only_is_not_a_folder_of_seeds(tmp_path):
    write_scored(tmp_path / "run" / "on-other", [0.0, 0.5, 1.0])
    with pytest.raises(BadRun, match="holds no evaluated run"):
        compare(tmp_path / "run", tmp_path / "run")
