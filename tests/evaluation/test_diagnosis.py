"""Shapley values add up and find what was planted; probes read what the encoders learned, fold by fold."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tests.conftest import make_vector_corpus

from affuse.cli.app import main
from affuse.cli.console import console
from affuse.core import io
from affuse.core.config import make_recipe
from affuse.core.errors import BadRun, ProtocolError, UnknownName
from affuse.core.labels import SPACES
from affuse.core.tasks import Task
from affuse.corpora.manifest import Corpus, write_corpus
from affuse.evaluation import diagnosis
from affuse.evaluation.diagnosis import fit_linear, shapley_of
from affuse.evaluation.intervals import as_estimate
from affuse.evaluation.predictions import Predictions, subsets_of
from affuse.evaluation.protocol import evaluate
from affuse.metrics import value
from affuse.stores.store import import_arrays
from affuse.training import binding, run_folder
from affuse.training import train as training

FULL = ("audio", "vision", "text")
RECIPE = {
    "streams": {"*": {"encoder": {"name": "mlp", "hidden": 8, "dropout": 0.0}}},
    "optim": {"lr": 0.02},
    "split": {"valid": 0.0},
    "train": {"epochs": 12, "batch_size": 24, "selection": "accuracy", "keep": "last"},
    "balance": "ogm",
}


def planted(path: Path, n: int = 96, values: bool = False) -> Corpus:
    """Audio that shows the label, vision that is noise."""
    rng = np.random.default_rng(0)
    labels, names = rng.permutation(np.arange(n) % 4), ("neutral", "happy", "sad", "angry")
    labelled = [{"sentiment": c - 1.5} for c in labels] if values else [{"label": names[c]} for c in labels]
    who = [{"speaker": f"s{i % 8}", "source": f"s{i % 8}"} for i in range(n)]
    rows = [{"id": f"u{i:03d}", **who[i], "text": "", **labelled[i]} for i in range(n)]
    corpus = write_corpus(path, rows, "planted", "sentiment" if values else "iemocap-4")
    for stream, strength in (("audio_vec", 3.0), ("vision_vec", 0.0)):
        centres = rng.normal(size=(4, 6)) * strength
        import_arrays(corpus.store_path(stream), [r["id"] for r in rows], centres[labels] + rng.normal(size=(n, 6)))
    return corpus


def trained(corpus: Corpus, out: Path, only: tuple[str, ...] = (), folds: int | None = 2, **train) -> Path:
    balance = {"balance": "none"} if only else {}
    values = {**RECIPE, **balance, "train": {**RECIPE["train"], **train}}
    return training.train(binding.bind(make_recipe(values), corpus, only), "planted", corpus, out, folds)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Path]:
    """The planted corpus, and a folder with a joint run and one of audio alone."""
    base = tmp_path_factory.mktemp("diagnosis")
    corpus = planted(base / "corpus")
    trained(corpus, base / "joint")
    trained(corpus, base / "audio", ("audio",), members=2)
    return corpus, base


def drawn(seed: int = 0, n: int = 60) -> tuple[Predictions, np.ndarray]:
    """Random predictions of every subset, and groups."""
    rng = np.random.default_rng(seed)
    by_subset = {s: rng.dirichlet(np.ones(4), n) for s in subsets_of(FULL, "each")}
    groups = rng.integers(0, 9, n)
    baseline = np.tile(np.eye(4)[1], (n, 1))
    return Predictions(
        pd.DataFrame(), rng.integers(0, 4, n), by_subset, baseline, Task("emotion", SPACES["iemocap-4"]), FULL
    ), groups


def test_shapley_values_are_the_mean_over_all_orders_and_add_up():
    found, groups = drawn()
    score = {frozenset(s): value("accuracy", found.truth, p) for s, p in found.by_subset.items()}
    score[frozenset()] = value("accuracy", found.truth, found.baseline)
    result = shapley_of(found, groups)
    for m in FULL:
        before = [frozenset(order[: order.index(m)]) for order in permutations(FULL)]
        expected = np.mean([score[s | {m}] - score[s] for s in before])
        assert result["shapley"][m]["value"] == pytest.approx(expected, abs=1e-12)
        assert result["shapley"][m]["low"] <= expected <= result["shapley"][m]["high"]
    values = [v["value"] for v in result["shapley"].values()]
    assert sum(values) == pytest.approx(score[frozenset(FULL)] - score[frozenset()], abs=1e-12)
    assert result["imbalance"]["value"] == pytest.approx(max(values) - min(values), abs=1e-12)
    assert result["imbalance"]["metric"] == "accuracy"


def test_the_interval_of_a_constant_is_that_constant():
    assert as_estimate(np.full(6, 0.3), np.ones(5, int)).to_dict() == {"value": 0.3, "low": 0.3, "high": 0.3, "n": 5}
    found, groups = drawn()
    found.by_subset = dict.fromkeys(found.by_subset, found.baseline)
    nothing = {"value": 0, "low": 0, "high": 0, "n": 60}  # but for rounding, which differs between processors
    assert all(v == pytest.approx(nothing, abs=1e-12) for v in shapley_of(found, groups)["shapley"].values())


def test_no_shapley_values_without_every_subset_or_of_one_modality():
    found, groups = drawn()
    found.by_subset.pop(("audio", "text"))
    assert shapley_of(found, groups) == {}
    found, groups = drawn()
    found.full, found.by_subset = ("audio",), {("audio",): found.baseline}
    assert shapley_of(found, groups) == {}


def test_the_modality_that_shows_the_label_gets_nearly_all(made):
    corpus, base = made
    result = evaluate(base / "joint", corpus)
    audio, vision = (result["shapley"][m] for m in ("audio", "vision"))
    gained = result["metrics"]["accuracy"]["value"] - result["rows"][0]["metrics"]["accuracy"]["value"]
    assert audio["value"] + vision["value"] == pytest.approx(gained, abs=1e-12)
    assert audio["value"] > 0.85 * gained > 0.5
    assert abs(vision["value"]) < 0.1
    assert result["imbalance"]["low"] > 0.4
    assert "probes" not in result


def test_probes_are_fitted_on_each_folds_training_rows(made):
    """Against scikit-learn by hand: fold by fold, on what the fold's frozen encoder gives."""
    corpus, base = made
    result = evaluate(base / "joint", corpus, probes={})
    assert set(result["probes"]) == {"audio", "vision"}
    _, recipe, folders = run_folder.open_run(base / "joint")
    right = 0
    for (folder,) in folders:
        model, split = run_folder.run_model(folder), run_folder.split_of(folder, corpus)
        sides = []
        for part in ("train", "test"):
            data = binding.dataset(corpus, recipe, model.tasks, split == part)
            with torch.no_grad():
                encoded = model.encode(data.batch(np.arange(len(data))))
            sides.append((encoded.pooled["audio_vec"].double().numpy(), data.labels("emotion")[0].numpy()))
        (x, y), (new, truth) = sides
        mean, scale = x.mean(0), np.where(x.std(0) > 0, x.std(0), 1)
        model = LogisticRegression(C=0.1, max_iter=1000).fit((x - mean) / scale, y)
        right += (model.predict((new - mean) / scale) == truth).sum()
    assert result["probes"]["audio"]["joint"]["value"] == right / len(corpus)
    assert result["probes"]["audio"]["joint"]["low"] > result["probes"]["vision"]["joint"]["high"]
    assert "C = 0.1" in result["protocol"]["probe"]


def test_the_gap_of_a_run_to_itself_is_nothing(made):
    corpus, base = made
    result = evaluate(base / "audio", corpus, probes={"audio": base / "audio"})
    assert result["probes"]["audio"]["gap"] == {"value": 0, "low": 0, "high": 0, "p": 1, "n": len(corpus)}
    assert "shapley" not in result


def test_an_encoder_that_learned_nothing_beside_the_others_has_a_positive_gap(made, tmp_path):
    corpus, base = made
    for source in (base / "joint").rglob("*"):
        target = tmp_path / "idle" / source.relative_to(base / "joint")
        if source.name == "model.safetensors":
            weights = io.read_tensors(source)
            silenced = {k: v * 0 if k.startswith("encoders.audio_vec") else v for k, v in weights.items()}
            io.write_tensors(target, silenced)
        elif source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    gap = evaluate(tmp_path / "idle", corpus, probes={"audio": base / "audio"})["probes"]["audio"]["gap"]
    assert gap["low"] > 0.3


def test_values_are_scored_by_ccc(tmp_path):
    corpus = planted(tmp_path / "corpus", values=True)
    task = {"tasks": {"sentiment": {"column": "sentiment"}}, "objectives": {"l1": {"task": "sentiment"}}}
    recipe = {**RECIPE, **task, "train": {**RECIPE["train"], "selection": "ccc"}}
    training.train(binding.bind(make_recipe(recipe), corpus), "planted", corpus, tmp_path / "run")
    result = evaluate(tmp_path / "run", corpus, probes={})
    assert result["imbalance"]["metric"] == "ccc"
    gained = result["metrics"]["ccc"]["value"]
    assert sum(v["value"] for v in result["shapley"].values()) == pytest.approx(gained, abs=1e-12)
    assert result["shapley"]["audio"]["value"] > 0.8 * gained > 0.4
    assert result["probes"]["audio"]["joint"]["low"] > result["probes"]["vision"]["joint"]["value"]


def test_a_probe_of_one_class_or_of_constant_vectors_says_what_it_was_shown():
    x, new = np.zeros((4, 3)), np.zeros((2, 3))
    assert fit_linear(x, np.full(4, 2), new, 3).tolist() == [[0, 0, 1]] * 2
    np.testing.assert_allclose(fit_linear(x, np.array([0, 0, 0, 2]), new, 3), [[0.75, 0, 0.25]] * 2, atol=1e-3)


def test_runs_that_do_not_fit_are_one_typed_error(made, tmp_path):
    corpus, base = made
    other = make_vector_corpus(tmp_path / "corpus")
    trained(other, tmp_path / "other", ("audio",), epochs=1)
    trained(corpus, tmp_path / "folds", ("audio",), folds=4, epochs=1)
    for modality, path, error, words in (
        ("smell", base / "audio", UnknownName, "unknown modality 'smell'"),
        ("vision", base / "audio", ProtocolError, "not on vision_vec alone"),
        ("audio", base / "joint", ProtocolError, "not on audio_vec alone"),
        ("audio", tmp_path / "other", ProtocolError, "another corpus, vectors"),
        ("audio", tmp_path / "folds", ProtocolError, "another split_hash"),
        ("audio", tmp_path / "none", BadRun, "not a run folder"),
    ):
        with pytest.raises(error, match=words):
            evaluate(base / "joint", corpus, probes={modality: path})
    with pytest.raises(ProtocolError, match="not the run's corpus"):
        evaluate(base / "joint", other, probes={})
    with pytest.raises(ProtocolError, match="training rows"):
        evaluate(base / "joint", corpus, split="train", probes={})


def test_the_command_line_shows_gaps_and_the_report_the_traces(made, capsys, monkeypatch):
    corpus, base = made
    monkeypatch.setattr(console, "width", 200)
    common = ["evaluate", str(base / "joint"), "--corpus", str(corpus.path), "--quiet"]
    assert main([*common, "--alone", f"audio={base / 'audio'}"]) == 0
    shown = capsys.readouterr().err
    assert "Shapley value (accuracy)" in shown
    assert "probe: gap" in shown
    page = (base / "joint" / "report.html").read_text()
    for words in (
        "<h2>Balance</h2>",
        "Shapley values of the accuracy",
        "Probe gap",
        "Probes of the encoders",
        "Traces of the balancer",
    ):
        assert words in page
    assert page.count('class="trace ') == 2 + 2 * 2  # two streams: in the legend, in the panels of k and score
    assert main([*common, "--alone", "audio"]) == 2
    assert "is not MODALITY=RUN" in capsys.readouterr().err


def test_nothing_is_probed_unless_asked(made, monkeypatch):
    monkeypatch.setattr(diagnosis, "encoded_vectors", None)
    evaluate(made[1] / "joint", made[0], missing="each")
