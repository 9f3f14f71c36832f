from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from tests.conftest import make_vector_corpus

from affuse.cli.app import main
from affuse.core import io, registry


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "affuse", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def test_help_is_quick_and_loads_no_torch():
    started = time.perf_counter()
    done = command("--help")
    assert done.returncode == 0
    assert "analyze" in done.stdout
    assert time.perf_counter() - started < 5  # the figure itself is measured by benchmarks/speed.py
    code = "import affuse, affuse.cli.app, sys; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("kind", [*registry.KINDS, "recipes", "models"])
def test_list_is_json_cards(kind, capsys):
    assert run("list", kind, "--json") == 0
    cards = json.loads(capsys.readouterr().out)
    assert isinstance(cards, list)
    assert all({"name", "summary", "source"} <= set(card) for card in cards)
    assert run("list", kind) == 0


def test_show(capsys):
    assert run("show", "gated", "--json") == 0
    card = json.loads(capsys.readouterr().out)
    assert (card["kind"], card["parameters"]) == ("fusions", {"dim": 64})
    assert run("show", "ravdess") == 0
    assert "zenodo" in capsys.readouterr().out.lower()
    assert run("show", "vectors", "balance=ogm") == 0
    assert "alpha: 0.8" in capsys.readouterr().out
    assert run("show", "gatedd") == 2
    assert "gated" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["train"],
        ["train", "vectors"],
        ["list", "things"],
        ["analyze"],
        ["analyze", "--model", "none"],
        ["evaluate", "none", "--corpus", "none"],
        ["import", "ravdess", "/nonexistent", "dst"],
        ["import", "iemocapp", ".", "dst"],
        ["import", "table", "none.csv", "dst"],
        ["extract", "none", "waveform"],
        ["train", "vectors", "--corpus", "none"],
        ["bench", "missing.yaml"],
        ["bench", "missing.yaml", "--workers", "0"],
        ["evaluate", "none", "--corpus", "none", "--alone", "nonsense"],
        ["evaluate", "none", "--corpus", "none", "--alone", "audio=a", "--alone", "audio=b"],
        ["show", "vectors", "balance=ogmm"],
    ],
)
def test_wrong_usage_exits_2_with_a_message_and_no_traceback(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert "error" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "vectors", "--corpus", "{}", "--threads", "-1"], "--threads -1"),
        (["train", "vectors", "--corpus", "{}", "--folds", "0"], "--folds 0"),
        (["train", "vectors", "--corpus", "{}", "--device", "gpu"], "--device gpu"),
        (["extract", "{}", "functionals", "--workers", "-1"], "--workers -1"),
        (["extract", "{}", "functionals", "--threads", "-1"], "--threads -1"),
        (["import", "features", "{}", "a/b", "none.npz"], "a/b"),
        (["doctor", "none"], "none"),
    ],
)
def test_values_that_cannot_be_are_named(arguments, named, vector_corpus, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*(a.format(vector_corpus.path) for a in arguments)) == 2
    assert named in capsys.readouterr().err.splitlines()[0]


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_a_run_folder_that_cannot_be_made_is_named(out, vector_corpus, tmp_path, capsys):
    (tmp_path / "file").touch()
    code = run("train", "vectors", "train.epochs=1", "--corpus", vector_corpus.path, "--out", tmp_path / out, "--quiet")
    assert code == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_recipe_file_and_a_damaged_corpus_are_shown(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("extends: vectors\nfusion: gated\n")
    assert run("show", tmp_path / "mine.yaml") == 0
    assert "name: gated" in capsys.readouterr().out
    (tmp_path / "corpus.json").write_text("{")
    assert run("show", tmp_path) == 1
    assert "not valid JSON" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["show", "mlp"], ["list", "encoders", "--json"], ["--help"]])
def test_a_reader_that_has_gone_away_is_no_failure(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "affuse", *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("word", ["-talk.wav", "-h.wav", "-missing.mp4"])
def test_a_path_that_begins_with_a_dash_is_told_how_to_write_it(word, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-talk.wav").touch()
    assert run("analyze", word) == 2
    assert f"./{word}" in capsys.readouterr().err
    assert run("analyze", "-x") == 2
    assert "./" not in capsys.readouterr().err
    assert run("analyze", "-") == 2
    assert "standard input" in capsys.readouterr().err


def test_closed_and_full_outputs(tmp_path):
    """The exit code is not 0 where the result has no place, and nothing breaks where only the messages have none."""
    def shell(line):
        command = f"{shlex.quote(sys.executable)} -m affuse {line}"
        return subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, cwd=tmp_path)

    closed = shell("analyze none.mp4 >&-")
    assert closed.returncode == 1
    assert "standard output is closed" in closed.stderr
    assert "Traceback" not in closed.stderr
    assert shell("list models >&- 2>&-").returncode == 0
    assert shell("analyze a.mp4 b.mp4 --format json 2>&- --quiet").stdout.count("does not exist") == 2
    full = shell("list models --json > /dev/full")
    assert (full.returncode, "No space left" in full.stderr, "Traceback" in full.stderr) == (1, True, False)


def test_a_terminal_without_the_characters_gets_the_output(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: vectors\nsummary: größer ▅\n", encoding="utf-8")
    name = str(tmp_path / "mine.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "affuse", "show", name],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0
    assert "gr??er ?" in done.stdout


def test_metrics_keep_their_names_in_a_narrow_terminal(monkeypatch, capsys):
    from affuse.cli import console
    from affuse.cli.train import print_scores

    monkeypatch.setattr(console.console, "width", 60)
    value = {"value": 0.5, "low": 0.4, "high": 0.6}
    rows = [{"name": f"row {i}", "metrics": {"calibration_error": value}} for i in range(6)]
    about = {"corpus": {"name": "c"}, "split": "test", "task": "emotion", "n": 3}
    about |= {"protocol": {"interval": "", "selection": ""}}
    print_scores({"rows": rows, "metrics": {"calibration_error": value}, **about})
    first = "".join(line.split("  ")[0].split(" ")[0] for line in capsys.readouterr().err.splitlines()[2:])
    assert "calibration_error" in first


def test_doctor(capsys):
    code = run("doctor", "--json")
    report = json.loads(capsys.readouterr().out)
    assert code == (1 if report["problems"] else 0)
    assert report["packages"]["torch"]
    assert "cache" in report


def test_own_table_and_features_to_scores(tmp_path, capsys):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    names = np.array(["joy", "anger", "sadness"])[labels]
    table = pd.DataFrame({"utt": [f"u{i}" for i in range(60)], "emo": names, "who": [f"s{i % 10}" for i in range(60)]})
    table.to_csv(tmp_path / "t.csv", index=False)
    corpus = tmp_path / "corpus"
    assert run("import", "table", tmp_path / "t.csv", corpus, "--map", "id=utt", "label=emo", "speaker=who") == 0
    for name, dim in (("audio", 4), ("video", 6)):
        values = rng.normal(size=(3, dim))[labels] * 2 + rng.normal(size=(60, dim))
        np.savez(tmp_path / f"{name}.npz", ids=table["utt"].to_numpy().astype(str), values=values)
        assert run("import", "features", corpus, name, tmp_path / f"{name}.npz") == 0
    out = tmp_path / "run"
    options = ["train.epochs=80", "train.batch_size=16", "streams.*.encoder.hidden=64"]
    assert run("train", "vectors", *options, "--corpus", corpus, "--folds", 5, "--out", out, "--quiet") == 0
    capsys.readouterr()
    assert run("evaluate", out, "--corpus", corpus, "--missing", "each", "--json", "--quiet") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["n"] == result["n_split"] == 60
    assert set(result["labels"]) == {"happy", "angry", "sad"}
    accuracy = result["metrics"]["accuracy"]
    assert set(accuracy) == {"value", "low", "high", "n"}
    assert 0.6 < accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    assert [r["name"] for r in result["rows"]] == ["majority class", "all modalities", "audio only", "vision only"]
    assert np.sum(result["confusion_matrix"]) == 60
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    info = io.read_json(out / "run.json")
    assert info["test_openings"] == 2
    assert info["configurations_tried"] == 1
    assert run("compare", out, out, "--modalities-b", "audio", "--json") == 0
    gap = json.loads(capsys.readouterr().out)["difference"]
    assert gap["low"] <= gap["value"] <= gap["high"]


def test_runs_of_different_protocols_are_not_compared(tmp_path, capsys):
    corpus = make_vector_corpus(tmp_path / "corpus").path
    for folds in (2, 4):
        out = tmp_path / f"run{folds}"
        code = run("train", "vectors", "train.epochs=1", "--corpus", corpus, "--folds", folds, "--out", out, "--quiet")
        assert code == 0
    assert run("compare", tmp_path / "run2", tmp_path / "run4") == 1
    assert "different protocols" in capsys.readouterr().err


def test_a_run_folder_is_never_mixed_with_another_recipe(tmp_path, capsys):
    corpus = make_vector_corpus(tmp_path / "corpus").path
    common = ["--corpus", corpus, "--out", tmp_path / "run", "--quiet"]
    assert run("train", "vectors", "train.epochs=1", *common) == 0
    assert run("train", "vectors", "train.epochs=1", *common) == 0
    assert run("train", "vectors", "train.epochs=2", *common) == 1
    assert "holds another run (its recipe differs)" in capsys.readouterr().err
    io.write_json(corpus / "corpus.json", io.read_json(corpus / "corpus.json") | {"hash": "of other labels"})
    assert run("train", "vectors", "train.epochs=1", *common) == 1
    assert "holds another run (its corpus differs)" in capsys.readouterr().err


def test_another_corpus_is_scored_by_label_name(tmp_path, capsys):
    corpus = make_vector_corpus(tmp_path / "corpus").path
    out = tmp_path / "run"
    code = run("train", "vectors", "train.epochs=60", "train.batch_size=8", "--corpus", corpus, "--out", out, "--quiet")
    assert code == 0
    other = make_vector_corpus(tmp_path / "other")
    table = other.table.copy()
    table["label"] = table["label"].replace({"angry": "disgust"})
    from affuse.corpora.manifest import write_corpus

    write_corpus(tmp_path / "other", table, other.name, "ekman-7")
    capsys.readouterr()
    assert run("evaluate", out, "--corpus", tmp_path / "other", "--include-seen", "--json", "--quiet") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["protocol"]["mapping"]["model_lacks"] == ["fear", "disgust", "surprise"]
    scores = {row["label"]: row for row in result["per_class"]}
    assert scores["disgust"]["recall"] == 0
    assert scores["happy"]["recall"] > 0.5
    assert result["n"] == 48


def test_a_full_disk_in_the_middle_of_extraction(demo_run, tmp_path, monkeypatch, capsys):
    corpus = tmp_path / "corpus"
    shutil.copytree(demo_run[1], corpus)
    shutil.rmtree(corpus / "features")
    real = os.replace

    def full(a, b):
        if str(b).endswith("shard-00000.safetensors"):
            raise OSError(28, "No space left on device")
        real(a, b)

    monkeypatch.setattr(os, "replace", full)
    assert run("extract", corpus, "waveform", "--quiet", "--workers", "0") == 1
    assert "no space left" in capsys.readouterr().err
    assert not list((corpus / "features" / "waveform").glob("shard-*"))
    assert not list((corpus / "features" / "waveform").glob(".aside-*"))
    monkeypatch.setattr(os, "replace", real)
    assert run("extract", corpus, "waveform", "--quiet", "--workers", "0") == 0


def test_ctrl_c_in_extract_and_in_train_keeps_what_is_complete(demo_run, tmp_path, monkeypatch, capsys):
    corpus = tmp_path / "corpus"
    shutil.copytree(demo_run[1], corpus)
    shutil.rmtree(corpus / "features" / "waveform")
    from affuse.features import waveform
    from affuse.stores.store import FeatureStore
    from affuse.training.loop import Trainer

    calls = []
    real = waveform.Waveform.__call__

    def interrupted(self, clip):
        calls.append(clip)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(self, clip)

    monkeypatch.setattr(waveform.Waveform, "__call__", interrupted)
    assert run("extract", corpus, "waveform", "--quiet", "--workers", "0") == 130
    assert len(FeatureStore(corpus / "features" / "waveform")) == 4
    monkeypatch.setattr(waveform.Waveform, "__call__", real)
    assert run("extract", corpus, "waveform", "--quiet", "--workers", "0") == 0
    assert len(FeatureStore(corpus / "features" / "waveform")) == 18

    step = Trainer._step

    def interrupted(self, pieces, number, turn=0):
        if self.progress.epoch == 1:
            raise KeyboardInterrupt
        return step(self, pieces, number, turn)

    monkeypatch.setattr(Trainer, "_step", interrupted)
    common = ["train", "demo", "train.epochs=2", "--corpus", corpus, "--out", tmp_path / "run", "--quiet"]
    assert run(*common) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model.safetensors").exists()
    monkeypatch.setattr(Trainer, "_step", step)
    assert run(*common) == 0
    assert [r["epoch"] for r in io.read_jsonl(tmp_path / "run" / "metrics.jsonl")] == [1, 2]


def test_an_utterance_that_fails_is_listed_and_the_others_go_on(demo_run, tmp_path, capsys):
    corpus = tmp_path / "corpus"
    shutil.copytree(demo_run[1], corpus)
    shutil.rmtree(corpus / "features")
    broken = sorted((corpus / "clips").iterdir())[3]
    broken.write_bytes(b"not a film")
    assert run("extract", corpus, "waveform", "--quiet", "--workers", 2) == 1
    out = capsys.readouterr()
    assert broken.stem in out.err
    from affuse.stores.store import FeatureStore

    store = FeatureStore(corpus / "features" / "waveform")
    assert len(store) == 17
    assert store.failures[broken.stem]["type"] == "BadMedia"
    options = ["--corpus", corpus, "--out", tmp_path / "run", "--quiet", "--workers", 2]
    code = run("train", "demo", "train.epochs=1", *options)
    assert code == 0


def test_a_dry_run_says_what_would_be_imported_and_leaves_nothing(tmp_path, capsys):
    release = tmp_path / "r"
    release.mkdir()
    (release / "03-01-05-02-01-01-07.wav").touch()
    assert main(["import", "ravdess", str(release), str(tmp_path / "c"), "--partial", "--dry-run"]) == 0
    assert "angry 1" in (shown := capsys.readouterr().out)
    assert "would go to" in shown
    assert not (tmp_path / "c").exists()


def test_a_folder_of_tables_becomes_a_store(vector_corpus, tmp_path, capsys):
    rows = "frame, timestamp, confidence, success, AU01_r\n" + "".join(
        f"{k + 1},{k / 25:.2f},0.9,1,{k}.5\n" for k in range(50)
    )
    for i in (0, 1):
        (tmp_path / f"u00{i}.csv").write_text(rows)
    (tmp_path / "u002.csv").write_text("nothing")
    arguments = ["import", "features", vector_corpus.path, "face_au", tmp_path]
    arguments += ["--tables", "openface", "--columns", "AU*_r"]
    assert run(*arguments) == 1
    shown = capsys.readouterr()
    assert "2 utterances, [1] per step, 25 per second" in shown.out
    assert "u002" in shown.err


def test_demo_leaves_what_is_no_demo_alone(tmp_path, capsys):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "mine.txt").write_text("mine")
    assert main(["demo", str(tmp_path), "--quiet"]) == 2
    assert "no demo's" in capsys.readouterr().err
    assert (tmp_path / "corpus" / "mine.txt").is_file()


def test_brackets_in_paths_are_printed_as_they_are(vector_corpus, tmp_path, capsys):
    out = tmp_path / "runs" / "[v2]a"
    options = ["--corpus", str(vector_corpus.path), "--out", str(out), "--quiet"]
    code = main(["train", "vectors", "train.epochs=1", *options])
    assert code == 0
    assert str(out) in capsys.readouterr().out
