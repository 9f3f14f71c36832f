from __future__ import annotations

import torch

from affuse.training.optim import make_optimizer
from tests.training.test_loop import make_trainer


def rates(trainer) -> dict[int, tuple[float, str]]:
    """id of a parameter -> (rate, stream) of the group that it is in; every parameter is in one."""
    optimizer = make_optimizer(trainer.model, trainer.state.auxiliary, trainer.recipe)
    found = [(id(p), (g["lr"], g["stream"])) for g in optimizer.param_groups for p in g["params"]]
    assert len(found) == len(dict(found))
    return dict(found)


def test_a_balancers_own_parameters_have_their_own_rate(vector_corpus, tmp_path):
    for name in ("cggm", "bcgm"):
        trainer = make_trainer(vector_corpus, tmp_path / name, balance={"name": name, "guide_rate": 0.25})
        found = rates(trainer)
        assert {found[id(p)] for p in trainer.balancer.parameters()} == {(0.0025, "")}
        assert {found[id(p)][0] for p in [*trainer.model.parameters(), *trainer.losses.parameters()]} == {0.01}


def test_heads_of_other_balancers_learn_at_the_main_rate_and_encoders_at_their_streams(vector_corpus, tmp_path):
    trainer = make_trainer(vector_corpus, tmp_path, balance="mlb")
    trainer.recipe.streams["audio_vec"].lr = 0.1
    found = rates(trainer)
    assert {found[id(p)] for p in trainer.balancer.parameters()} == {(0.01, "")}
    for stream, encoder in trainer.model.encoders.items():
        rate = 0.01 * (0.1 if stream == "audio_vec" else 1.0)
        assert {found[id(p)] for p in encoder.parameters()} == {(rate, stream)}


def test_the_first_group_is_the_models_own(vector_corpus, tmp_path):
    trainer = make_trainer(vector_corpus, tmp_path, balance={"name": "cggm", "guide_rate": 0.25})
    assert trainer.state.schedule.get_last_lr()[0] == max(trainer.state.schedule.get_last_lr())
    assert isinstance(trainer.state.optimizer, torch.optim.AdamW)
