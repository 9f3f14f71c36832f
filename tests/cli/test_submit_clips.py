"""affuse submit mer2023 and muse-mimic: the run's own predictions of every clip of a part, of folds too; refusals."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from tests.challenge_corpora import CLASSES, MER_TASKS, MER_TERMS, mer2023, muse_mimic, train
from tests.conftest import make_vector_corpus

from affuse.cli.app import main
from affuse.core import io
from affuse.evaluation.protocol import evaluate

EMPTY = "sample_00000050"  # of MULTI
MIMIC = ({"mimic": {"column": "mimic", "space": "muse-mimic-3"}}, {"l1": {"task": "mimic"}})


@pytest.fixture(scope="module")
def mer(tmp_path_factory):
    """(corpus with all parts, one of whose clips has no stream; a run; a run of the emotion alone)."""
    base = tmp_path_factory.mktemp("mer")
    corpus = mer2023(base / "data", without=(EMPTY,))
    emotion = train(corpus, base / "emotion", {"emotion": MER_TASKS["emotion"]}, {"e": MER_TERMS["e"]})
    return corpus, train(corpus, base / "run", MER_TASKS, MER_TERMS), emotion


@pytest.fixture(scope="module")
def mimic(tmp_path_factory):
    base = tmp_path_factory.mktemp("mimic")
    corpus = muse_mimic(base / "data")
    return corpus, train(corpus, base / "run", *MIMIC)


def submitted(challenge, run, corpus, out, *options):
    command = ["submit", challenge, str(run), "--corpus", str(corpus.path), "--out", str(out), *options]
    assert main(command) == 0
    with (out / "predictions.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    return head, {row[0]: row[1:] for row in rows}, json.loads((out / "submission.json").read_text())


def scored(run, name="predictions"):
    """id -> what `affuse evaluate` found with all modalities."""
    table = io.read_table(run / f"{name}.parquet")
    table = table[table["full"]].set_index("id")
    return table[[c for c in table if c.startswith("p:")]]


@pytest.mark.parametrize(("part", "count"), [("multi", 12), ("noise", 12), ("semi", 6)])
def test_the_rows_are_what_evaluate_finds(mer, tmp_path, capsys, part, count):
    corpus, run, _ = mer
    evaluate(run, corpus)
    head, rows, record = submitted("mer2023", run, corpus, tmp_path / "out", "--part", part)
    said = capsys.readouterr()
    assert f"{count} rows of {part}" in said.out
    assert head == ["name", "discrete", "valence"]
    assert list(rows) == corpus.table.loc[corpus.table["part"] == part, "id"].tolist()
    emotion = scored(run)
    for name in set(rows) - {EMPTY}:
        assert rows[name][0] == CLASSES[emotion.loc[name].to_numpy().argmax()]
    valence = scored(run, "predictions-valence")["p:valence"]
    known = [name for name in rows if name in valence.index and name != EMPTY]
    assert len(known) == {"multi": 11, "noise": 12, "semi": 0}[part]
    found = np.array([float(rows[name][1]) for name in known])
    np.testing.assert_allclose(found, valence.loc[known].clip(-5, 5), atol=1e-5)
    assert (record["part"], record["rows"], record["folds"]) == (part, count, None)
    assert record["tasks"] == {"discrete": "emotion", "valence": "valence"}
    assert record["without_stream"] == ([EMPTY] if part == "multi" else [])
    assert (f"1 of 12 clips have no usable stream, such as {EMPTY}" in said.err) == (part == "multi")


def test_a_clip_without_a_stream_has_the_baseline_of_the_training_labels(mer, tmp_path):
    corpus, run, _ = mer
    _, rows, _ = submitted("mer2023", run, corpus, tmp_path / "out", "--part", "multi")
    baselines = io.read_json(run / "run.json")["baselines"]
    assert rows[EMPTY][0] == CLASSES[int(np.argmax(baselines["emotion"]))]
    assert float(rows[EMPTY][1]) == pytest.approx(baselines["valence"][0], abs=1e-5)


def test_semi_needs_no_valence_and_the_others_do(mer, tmp_path, capsys):
    corpus, _, emotion = mer
    _, rows, record = submitted("mer2023", emotion, corpus, tmp_path / "out", "--part", "semi")
    assert {row[1] for row in rows.values()} == {"-10"}
    assert record["tasks"] == {"discrete": "emotion", "valence": None}
    assert "no task answers valence" in capsys.readouterr().err
    command = ["submit", "mer2023", str(emotion), "--corpus", str(corpus.path), "--out", str(tmp_path / "no")]
    assert main([*command, "--part", "noise"]) == 2
    assert "mer2023 needs values" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_run_of_folds_answers_by_the_fold_that_tests_a_clip_and_elsewhere_by_the_mean(mer, tmp_path, capsys):
    corpus, _, _ = mer
    run = train(corpus, tmp_path / "run", MER_TASKS, MER_TERMS, folds=3)
    evaluate(run, corpus)
    _, rows, record = submitted("mer2023", run, corpus, tmp_path / "out", "--part", "noise")
    assert record["folds"] == 3
    assert "by the fold that tests it" in capsys.readouterr().err
    expected = scored(run)
    assert {n: row[0] for n, row in rows.items()} == {n: CLASSES[expected.loc[n].to_numpy().argmax()] for n in rows}

    half = mer2023(tmp_path / "train", test="semi")
    folds = train(half, tmp_path / "folds", MER_TASKS, MER_TERMS, folds=2)
    noise = mer2023(tmp_path / "noise", test="noise")
    result = evaluate(folds, noise)
    assert result["protocol"]["same_corpus"] is False
    _, rows, _ = submitted("mer2023", folds, noise, tmp_path / "mean")  # the only part that it has
    expected = scored(folds / "on-mer2023")
    assert len(rows) == 12
    for name, row in rows.items():
        assert row[0] == CLASSES[expected.loc[name].to_numpy().argmax()]
    valence = scored(folds / "on-mer2023", "predictions-valence")["p:valence"]
    np.testing.assert_allclose([float(row[1]) for row in rows.values()], valence.loc[list(rows)], atol=1e-5)


@pytest.mark.parametrize(("part", "split"), [("test", "test"), ("devel", "valid")])
def test_muse_mimic(mimic, tmp_path, part, split):
    corpus, run = mimic
    head, rows, record = submitted("muse-mimic", run, corpus, tmp_path / "out", "--part", part)
    assert head == ["filename", "Approval_", "Disappointment_", "Uncertainty_"]
    assert list(rows) == [f'"{name}"' for name in corpus.table.loc[corpus.table["split"] == split, "id"]]
    values = np.array([[float(v) for v in row] for row in rows.values()])
    assert ((values >= 0) & (values <= 1)).all()
    assert record["part"] == part
    if part == "devel":  # the labels of test are withheld: nothing is scored there
        evaluate(run, corpus, "valid")
        expected = scored(run, "predictions-valid").loc[[name.strip('"') for name in rows]].to_numpy()
        np.testing.assert_allclose(values, np.clip(expected, 0, 1), atol=1e-5)
        assert record["moved_into_range"] == int(((expected < 0) | (expected > 1)).sum())


def test_values_out_of_range_are_counted_and_said(mimic, tmp_path, capsys):
    corpus, _ = mimic
    table = io.read_table(corpus.path / "manifest.parquet")
    far = table.assign(mimic=[[v * 9 - 4 for v in row] for row in table["mimic"]])
    other = muse_mimic(tmp_path / "far")
    far.to_parquet(other.path / "manifest.parquet")
    run = train(type(other).open(other.path), tmp_path / "run", *MIMIC, "train.epochs=40")
    capsys.readouterr()
    _, rows, record = submitted("muse-mimic", run, other, tmp_path / "out")
    values = np.array([[float(v) for v in row] for row in rows.values()])
    assert record["moved_into_range"] == int(((values == 0) | (values == 1)).sum()) > 0
    assert f"{record['moved_into_range']} values outside the range" in capsys.readouterr().err


def test_refusals_name_what_is_wrong_and_write_nothing(mer, mimic, tmp_path, capsys):
    (corpus, run, _), (muse, values) = mer, mimic
    plain = make_vector_corpus(tmp_path / "plain")
    semi = mer2023(tmp_path / "semi", test="semi")
    gone = mer2023(tmp_path / "gone")
    table = pd.read_parquet(gone.path / "manifest.parquet")
    table[table["part"] == "train"].to_parquet(gone.path / "manifest.parquet")
    cases = {
        "needs one of 'mer2023'": (2, "mer2023", run, plain.path, "multi"),
        "needs one of 'muse_mimic'": (2, "muse-mimic", values, corpus.path, "test"),
        "has no clip of noise": (2, "mer2023", run, semi.path, "noise"),
        "has no clip of any part": (2, "mer2023", run, gone.path, ""),
        "has multi, noise, semi": (2, "mer2023", run, corpus.path, ""),
        "mer2023 needs classes, and": (2, "mer2023", values, corpus.path, "multi"),
        "muse-mimic needs values": (2, "muse-mimic", mer[2], muse.path, "test"),
        "is not a run folder": (1, "mer2023", tmp_path / "none", corpus.path, "multi"),
        "is not a corpus": (2, "mer2023", run, tmp_path / "none", "multi"),
        "Invalid value": (2, "mer2023", run, corpus.path, "train"),
    }
    for message, (code, challenge, model, path, part) in cases.items():
        command = ["submit", challenge, str(model), "--corpus", str(path), "--out", str(tmp_path / "out")]
        found = main(command + (["--part", part] if part else []))
        said = " ".join(capsys.readouterr().err.split())
        assert message in said, said
        assert found == code, message
    assert not (tmp_path / "out").exists()


def test_clips_that_the_run_was_trained_on_are_refused(mer, tmp_path, capsys):
    corpus, run, _ = mer
    again = shutil.copytree(run, tmp_path / "run")
    io.write_table(again / "split.parquet", io.read_table(run / "split.parquet").assign(split="train"))
    command = ["submit", "mer2023", str(again), "--corpus", str(corpus.path), "--out", str(tmp_path / "out")]
    assert main([*command, "--part", "multi"]) == 1
    assert "was trained on 12 of the 12 clips" in " ".join(capsys.readouterr().err.split())


def test_the_labels_of_the_part_are_never_read(mer, tmp_path):
    """A corpus whose labels are withheld, or are of other names, gets the same rows."""
    corpus, run, _ = mer
    _, rows, _ = submitted("mer2023", run, corpus, tmp_path / "a", "--part", "noise")
    hidden = mer2023(tmp_path / "hidden", without=(EMPTY,))
    table = pd.read_parquet(hidden.path / "manifest.parquet")
    table.loc[table["part"] == "noise", ["label", "valence"]] = ["bored", np.nan]
    table.to_parquet(hidden.path / "manifest.parquet")
    _, same, _ = submitted("mer2023", run, hidden, tmp_path / "b", "--part", "noise")
    assert same == rows


def test_the_help_names_the_challenges(capsys):
    assert main(["submit", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("abaw-compound", "mer2023", "muse-mimic"))
