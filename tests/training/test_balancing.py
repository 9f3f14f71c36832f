"""Every registered balancer in affuse's own trainer: accumulation, resuming and processes change nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from affuse.core import io, registry
from affuse.core.config import make_recipe
from affuse.core.errors import BadConfig
from affuse.training import loop
from affuse.training.sampling import share
from tests.training.test_loop import RECIPE, assert_same_weights, make_trainer

CARDS = registry.cards("balancers")
NAMES = list(CARDS)
SURE = [n for n, card in CARDS.items() if not card.get("random")]  # nothing drawn by chance

# So that every part of a method has had its turn within two epochs, and has one after them.
EAGER = {
    "bcgm": {"warmup": 1},
    "g_blending": {"every": 1},
    "mses": {"patience": 1},
    "opm": {"warmup": 1},
    "pmr": {"early": 3},
    "reconboost": {"stage": 1, "rectify": 0},
    "relearning": {"every": 1},
}


def eager(name: str) -> dict[str, object]:
    """What a trainer needs to show all of a method in a few epochs, and to keep what the last one made."""
    return {"balance": {"name": name, **EAGER.get(name, {})}, "keep": "last"}


@pytest.mark.parametrize("name", SURE)
def test_accumulation_equals_the_single_big_batch(vector_corpus, tmp_path, name):
    whole, parts = (make_trainer(vector_corpus, tmp_path / str(n), **eager(name), accumulate=n) for n in (1, 3))
    whole.run()
    parts.run()
    assert_same_weights(whole.model.state_dict(), parts.model.state_dict(), 1e-5)
    rows = [io.read_jsonl(tmp_path / d / "metrics.jsonl") for d in ("1", "3")]
    assert [row["terms"] for row in rows[1]] == [pytest.approx(row["terms"], rel=1e-4, abs=1e-7) for row in rows[0]]


@pytest.mark.parametrize("name", SURE)
def test_a_piece_without_content_changes_nothing(vector_corpus, tmp_path, monkeypatch, name):
    plain = make_trainer(vector_corpus, tmp_path / "plain", double=False, **eager(name))
    plain.run()
    monkeypatch.setattr(loop, "share", lambda *given: [*share(*given), np.array([], dtype=int)])
    padded = make_trainer(vector_corpus, tmp_path / "padded", double=False, **eager(name))
    padded.run()
    assert_same_weights(plain.model.state_dict(), padded.model.state_dict(), 1e-6)


def stop_after(epoch: int):
    """A report that interrupts the run once this epoch is written down."""

    def report(row):
        if "lr" in row and row["epoch"] == epoch:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_run_goes_on_exactly(vector_corpus, tmp_path, name):
    whole = make_trainer(vector_corpus, tmp_path / "whole", epochs=4, **eager(name))
    whole.run()
    part = make_trainer(vector_corpus, tmp_path / "part", epochs=4, **eager(name))
    part.report = stop_after(2)  # and not a shorter run: some methods look at how many epochs there will be
    with pytest.raises(KeyboardInterrupt):
        part.run()
    rest = make_trainer(vector_corpus, tmp_path / "part", epochs=4, **eager(name))
    rest.run()
    assert_same_weights(whole.model.state_dict(), rest.model.state_dict(), 0.0)
    rows = [io.read_jsonl(tmp_path / d / "metrics.jsonl") for d in ("whole", "part")]
    one, two = ([(row.get("balance"), row["terms"]) for row in run] for run in rows)
    assert one == two
    for row in rows[0]:
        assert sum(row["terms"].values()) == pytest.approx(row["loss"], rel=1e-5)


def test_two_processes_equal_one(vector_corpus, tmp_path):
    for name in SURE:
        make_trainer(vector_corpus, tmp_path / "alone" / name, **eager(name)).run()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    done = subprocess.run(
        [*command, "-m", "tests.training.two_processes", str(vector_corpus.path), str(tmp_path), *SURE],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for name in SURE:
        trainer = make_trainer(vector_corpus, tmp_path / "alone" / name, **eager(name))
        trainer.run()  # complete: only the kept weights are loaded
        assert_same_weights(trainer.model.state_dict(), io.read_tensors(tmp_path / name / "weights.safetensors"), 1e-5)
        one, two = (io.read_jsonl(tmp_path / d / "metrics.jsonl") for d in (f"alone/{name}", f"{name}/run"))
        assert [row["terms"] for row in two] == [pytest.approx(row["terms"], rel=1e-4, abs=1e-7) for row in one]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_multipliers_of_one_reproduce_plain_training_bit_for_bit(vector_corpus, tmp_path, optimizer):
    recipe = {"name": "ogm", "alpha": 0.0}
    for apply in ("grad", "lr"):
        weights = []
        for balance in ("none", {**recipe, "apply": apply}):
            trainer = make_trainer(vector_corpus, tmp_path / f"{apply}{len(weights)}", balance=balance, dropout=0.3)
            trainer.run()
            weights.append(trainer.model.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))


def test_the_trace_stands_in_the_metrics(vector_corpus, tmp_path):
    make_trainer(vector_corpus, tmp_path, balance="ogm").run()
    row = io.read_jsonl(tmp_path / "metrics.jsonl")[-1]["balance"]
    assert {f"{what}.{m}_vec" for what in ("k", "score") for m in ("audio", "text", "vision")} <= set(row)


def test_every_term_of_the_loss_stands_in_the_metrics_by_its_name(vector_corpus, tmp_path):
    make_trainer(vector_corpus, tmp_path, balance={"name": "cggm", "lam": 0.5}).run()
    row = io.read_jsonl(tmp_path / "metrics.jsonl")[-1]
    assert set(row["terms"]) == {"focal", "balance.guides", "balance.direction"}
    assert row["terms"]["balance.guides"] > row["terms"]["focal"] > 0  # why the loss of a guided run says little
    assert sum(row["terms"].values()) == pytest.approx(row["loss"], rel=1e-5)


def test_a_step_without_a_term_has_nothing_of_it(vector_corpus, tmp_path, monkeypatch):
    trainer = make_trainer(vector_corpus, tmp_path)
    steps = iter([(3.0, {"focal": 1.0, "balance.heads": 2.0}, {}), (1.0, {"focal": 1.0}, {})] * len(trainer._epoch(0)))
    monkeypatch.setattr(trainer, "_step", lambda pieces, number, turn: next(steps))
    monkeypatch.setattr(trainer, "_epoch", lambda epoch: [np.arange(2)] * 4)
    assert trainer._train_epoch() == (2.0, {"focal": 1.0, "balance.heads": 1.0}, {})


def test_terms_are_weighted_as_they_are_in_the_loss(vector_corpus, tmp_path, monkeypatch):
    found = []
    weights = [
        {"focal": 1.0, "cross_entropy": 1.0, "balance.heads": 1.0},
        {"focal": 0.5, "cross_entropy": 2.0, "balance.heads": 3.0},
    ]
    for i, weight in enumerate(weights):
        objectives = {name: {"weight": weight[name]} for name in ("focal", "cross_entropy")}
        monkeypatch.setitem(RECIPE, "objectives", objectives)
        balance = {"name": "uniform", "weight": weight["balance.heads"]}
        trainer = make_trainer(vector_corpus, tmp_path / str(i), balance=balance)
        found.append(trainer._step(trainer._pieces(trainer._epoch(0)[0]), 0)[1])
    assert found[1] == pytest.approx({name: found[0][name] * w for name, w in weights[1].items()})


def test_multipliers_that_nothing_would_bound_are_refused_before_training(vector_corpus, tmp_path):
    with pytest.raises(BadConfig, match=r"set balance\.apply=grad"):
        make_trainer(vector_corpus, tmp_path, balance={"name": "bcgm", "faithful": True, "apply": "lr"})
    assert make_trainer(vector_corpus, tmp_path, balance={"name": "bcgm", "faithful": True})._control(0).apply == "grad"
    assert make_trainer(vector_corpus, tmp_path, balance={"name": "bcgm", "apply": "lr"})._control(0).apply == "lr"


def test_a_single_stream_cannot_be_balanced(vector_corpus, tmp_path):
    from affuse.training import binding
    from affuse.training import train as training

    recipe = binding.bind(make_recipe({**RECIPE, "balance": "ogm"}), vector_corpus, only=["audio"])
    with pytest.raises(BadConfig, match="one stream"):
        training.train(recipe, "x", vector_corpus, tmp_path / "run")


def test_an_unknown_balancer_names_the_closest():
    with pytest.raises(Exception, match="ogm"):
        make_recipe({**RECIPE, "balance": "ogmm"})


def test_guides_do_not_shorten_the_step_of_a_clipped_model(vector_corpus, tmp_path):
    plain, guided = (
        make_trainer(vector_corpus, tmp_path / n, epochs=1, balance=b)
        for n, b in (("plain", "none"), ("guided", {"name": "cggm", "rho": 1.0, "lam": 0.0, "tol": 1e9}))
    )
    for trainer in (plain, guided):
        trainer.recipe.optim.clip = 1e-3
        trainer.run()
    assert_same_weights(plain.model.state_dict(), guided.model.state_dict(), 0.0)


@pytest.mark.parametrize("name", ["g_blending", "relearning"])
def test_what_needs_held_out_data_is_refused_before_training(vector_corpus, tmp_path, name):
    from affuse.training import binding
    from affuse.training import train as training

    values = {**RECIPE, "balance": name, "split": {"valid": 0.0}, "train": {"keep": "last"}}
    with pytest.raises(BadConfig, match=f"{name}.*split.valid = 0"):
        training.train(binding.bind(make_recipe(values), vector_corpus), "x", vector_corpus, tmp_path / "run")
