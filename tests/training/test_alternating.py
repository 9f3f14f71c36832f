"""Balancers that take turns, stages or teachers, where affuse's own trainer reaches them all."""

from __future__ import annotations

import pytest
import torch

from tests.training.test_balancing import stop_after
from tests.training.test_loop import RECIPE, assert_same_weights, make_trainer

SHARED = {"name": "late", "how": "entropy", "shared": True}
STAGES = {"name": "reconboost", "stage": 1, "rectify": 0}
CASES = [({"name": "mla"}, SHARED), (STAGES, {"name": "late"}), ({"name": "umt", "warm": 0.3}, RECIPE["fusion"])]


@pytest.mark.parametrize(("balance", "fusion"), CASES, ids=lambda part: part["name"])
def test_pieces_and_interruptions_change_nothing(vector_corpus, tmp_path, monkeypatch, balance, fusion):
    monkeypatch.setitem(RECIPE, "fusion", fusion)
    monkeypatch.setitem(RECIPE, "objectives", {"cross_entropy": {}})
    options = {"epochs": 5, "balance": balance, "keep": "last"}
    runs = (("w", 1), ("p", 3), ("r", 1))
    whole, parts, rest = (make_trainer(vector_corpus, tmp_path / d, **options, accumulate=a) for d, a in runs)
    whole.run()
    parts.run()
    assert_same_weights(whole.model.state_dict(), parts.model.state_dict(), 1e-5)
    rest.report = stop_after(4)
    with pytest.raises(KeyboardInterrupt):
        rest.run()
    rest = make_trainer(vector_corpus, tmp_path / "r", **options)
    rest.run()
    assert_same_weights(whole.model.state_dict(), rest.model.state_dict(), 0.0)


def test_streams_that_do_not_learn_stand_still_with_their_heads(vector_corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPE, "fusion", {"name": "late"})
    monkeypatch.setitem(RECIPE, "objectives", {"cross_entropy": {}})
    trainer = make_trainer(vector_corpus, tmp_path, epochs=1, balance=STAGES, keep="last")
    old = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.run()
    moved = {n.split(".")[1] for n, p in trainer.model.named_parameters() if not torch.equal(p, old[n])}
    assert moved == {trainer.model.streams[0].name}


OPTIMIZERS = [
    {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.1},
    {"name": "adamw", "lr": 0.01, "weight_decay": 0.5},
]


@pytest.mark.parametrize("optim", OPTIMIZERS, ids=lambda o: o["name"])
@pytest.mark.parametrize("alpha", [1e-9, 1e9])
def test_mla_published_projection_never_ran_and_ours_holds_on_the_one_head_of_all_streams(
    vector_corpus, tmp_path, monkeypatch, alpha, optim
):
    """In pieces, with momentum and weight decay, after resuming: a turn does not change the others' mean logits."""
    monkeypatch.setitem(RECIPE, "fusion", SHARED)
    monkeypatch.setitem(RECIPE, "objectives", {"cross_entropy": {}})
    monkeypatch.setitem(RECIPE, "optim", optim)
    options = {"balance": {"name": "mla", "alpha": alpha}, "accumulate": 2}
    part, trainer = (make_trainer(vector_corpus, tmp_path, **options) for _ in range(2))
    part.report = stop_after(1)
    with pytest.raises(KeyboardInterrupt):
        part.run()
    trainer._resume()
    (weight,), balancer = trainer._control(0).shared, trainer.balancer
    pieces = trainer._pieces(trainer._epoch(1)[0])
    for turn in range(3):
        before = weight.detach().clone()
        trainer._step(pieces, 0, turn)
        change, others = weight.detach() - before, balancer.means[[s for s in range(3) if s != turn]]
        assert balancer.means.any(1).all() and change.norm() > 1e-4
        assert ((change @ others.T).norm() < 1e-6 * change.norm() * others.norm()) == (alpha < 1)
