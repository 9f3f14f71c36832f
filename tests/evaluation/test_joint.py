"""Metrics over two tasks: scored with intervals on the clips that have both labels, selected by, compared."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, mean_squared_error
from tests.challenge_corpora import MER_TASKS, MER_TERMS, mer2023, train

from affuse.cli.app import main
from affuse.core import io
from affuse.core.errors import BadConfig
from affuse.corpora.manifest import Corpus
from affuse.evaluation.compare import compare
from affuse.evaluation.intervals import estimate
from affuse.evaluation.predictions import read_predictions
from affuse.evaluation.protocol import evaluate

SELECTED = ("train.selection=mer_score", "split.group_by=film")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """MER2023, the first test clip without a valence."""
    made = mer2023(tmp_path_factory.mktemp("mer"))
    table = made.table.copy()
    table.loc[(table["part"] == "multi").idxmax(), "valence"] = np.nan
    table.to_parquet(made.path / "manifest.parquet")
    return Corpus.open(made.path)


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    return train(corpus, tmp_path_factory.mktemp("runs") / "run", MER_TASKS, MER_TERMS, *SELECTED, "train.epochs=6")


def full(run, task=""):
    table = io.read_table(run / f"predictions{task}.parquet")
    return table[table["full"]].set_index("id").sort_index()


def test_the_score_is_that_of_the_two_tasks_predictions(run, corpus):
    result = evaluate(run, corpus)
    emotion, valence = full(run), full(run, "-valence")
    assert (len(emotion), len(valence)) == (30, 23)  # SEMI has no valence
    both = emotion.loc[valence.index]
    p, v = read_predictions(both), read_predictions(valence)[:, 0]
    truth = np.concatenate(valence["truth"].to_list())
    f1 = f1_score(both["truth"], p.argmax(1), average="weighted", zero_division=0)
    found = result["metrics"]["mer_score"]
    assert found["value"] == pytest.approx(f1 - 0.25 * mean_squared_error(truth, v), abs=1e-6)
    assert found["n"] == 23
    assert result["protocol"]["group_by"] == "film"
    same = estimate("mer_score", np.column_stack([both["truth"], truth]), np.column_stack([p, v]), both["film"])
    assert (found["low"], found["high"]) == pytest.approx((same.low, same.high), abs=1e-6)
    assert result["joint"] == {"mer_score": "valence"}
    assert "mer_score" not in result["tasks"]["valence"]["metrics"]
    baseline = result["rows"][0]["metrics"]
    assert baseline["mer_score"]["value"] < baseline["weighted_f1"]["value"]
    assert all("mer_score" in row["metrics"] for row in result["rows"])


def test_it_is_in_the_terminal_and_heads_the_report(run, corpus, capsys):
    assert main(["evaluate", str(run), "--corpus", str(corpus.path)]) == 0
    assert "mer_score" in capsys.readouterr().err
    page = (run / "report.html").read_text(encoding="utf-8")
    assert '<div class="metric">MER score</div>' in page
    assert "n = 23" in page


def test_the_best_epoch_is_the_one_with_the_highest_score(run, corpus):
    lines = io.read_jsonl(run / "metrics.jsonl")
    scores = {line["epoch"]: value for line in lines for k, value in flat(line).items() if k.endswith("mer_score")}
    info = io.read_json(run / "run.json")
    assert len(scores) == 6
    assert info["selection"]["metric"] == "mer_score"
    assert info["best_score"] == pytest.approx(max(scores.values()))
    assert scores[info["best_epoch"]] == max(scores.values())
    kept = evaluate(run, corpus, "valid")["metrics"]["mer_score"]["value"]
    assert kept == pytest.approx(info["best_score"], abs=1e-6)


def flat(line, prefix=""):
    found = {}
    for key, value in line.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def test_two_runs_are_compared_by_it(run, corpus, tmp_path):
    other = train(corpus, tmp_path / "other", MER_TASKS, MER_TERMS, *SELECTED, "train.epochs=1")
    scores = [evaluate(r, corpus)["metrics"]["mer_score"]["value"] for r in (run, other)]
    found = compare(run, other, "mer_score")
    assert found["mean"] == pytest.approx(scores, abs=1e-6)
    assert found["difference"]["value"] == pytest.approx(scores[0] - scores[1], abs=1e-6)
    assert found["difference"]["n"] == 23
    assert found["better"] == "higher"


def test_a_part_without_valence_has_no_such_score(run, tmp_path):
    semi = mer2023(tmp_path / "semi", test="semi")
    result = evaluate(run, semi)
    assert "mer_score" not in result["metrics"]
    assert "joint" not in result


def test_a_corpus_without_the_second_task_s_column_is_scored_on_the_first(run, tmp_path):
    other = mer2023(tmp_path / "noise", test="noise")
    table = io.read_table(other.path / "manifest.parquet").drop(columns="valence")
    table.to_parquet(other.path / "manifest.parquet")
    result = evaluate(run, Corpus.open(other.path))
    assert (result["task"], result["n"], "tasks" in result) == ("emotion", 12, False)


def test_it_selects_only_where_both_tasks_are(corpus, tmp_path):
    emotion = {"emotion": MER_TASKS["emotion"]}
    with pytest.raises(BadConfig, match="'mer_score' does not fit a task of classes"):
        train(corpus, tmp_path / "one", emotion, {"e": MER_TERMS["e"]}, *SELECTED)
    with pytest.raises(BadConfig, match="'mer_score' does not fit a task of values"):
        train(corpus, tmp_path / "two", MER_TASKS, MER_TERMS, *SELECTED, "train.task=valence")
