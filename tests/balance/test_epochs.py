"""Methods that look at an epoch's end, in affuse's own trainer."""

from __future__ import annotations

import pytest
import torch

from affuse.balance.balancer import Balancer, Epoch
from affuse.core.errors import BadConfig
from tests.training.test_loop import Interrupt, assert_same_weights, make_trainer

LOOKING = [
    {"name": "agm"},
    {"name": "lfm"},
    {"name": "mslr", "window": 2},
    {"name": "mses", "patience": 1},
    {"name": "g_blending", "every": 1},
    {"name": "relearning", "every": 1},
]
NAMED = pytest.mark.parametrize("balance", LOOKING, ids=lambda b: b["name"])


@NAMED
def test_a_resumed_run_ends_as_one_without_a_stop(vector_corpus, tmp_path, balance):
    whole = make_trainer(vector_corpus, tmp_path / "whole", epochs=4, balance=balance)
    whole.run()
    broken = make_trainer(vector_corpus, tmp_path / "parts", epochs=4, balance=balance)

    def stop(row: dict) -> None:
        if row["epoch"] == 3 and row.get("step") == 2:
            raise Interrupt

    broken.report = stop
    with pytest.raises(Interrupt):
        broken.run()
    resumed = make_trainer(vector_corpus, tmp_path / "parts", epochs=4, balance=balance)
    resumed.run()
    assert_same_weights(whole.beside.state_dict(), resumed.beside.state_dict(), 0.0)
    assert_same_weights(whole.model.state_dict(), resumed.model.state_dict(), 0.0)


@NAMED
def test_accumulation_equals_the_single_big_batch(vector_corpus, tmp_path, balance):
    whole = make_trainer(vector_corpus, tmp_path / "whole", balance=balance)
    parts = make_trainer(vector_corpus, tmp_path / "parts", accumulate=3, balance=balance)
    whole.run()
    parts.run()
    assert_same_weights(whole.model.state_dict(), parts.model.state_dict(), 1e-6)


class Moving(Balancer):
    """Moves every encoder at an epoch's end."""

    @torch.no_grad()
    def epoch_end(self, epoch: Epoch) -> None:
        for parameter in (p for encoder in epoch.encoders.values() for p in encoder.parameters()):
            parameter.add_(1.0)


def test_the_kept_weights_are_those_that_were_scored(vector_corpus, tmp_path):
    """A balancer that changes encoders at an epoch's end does so after the epoch's weights were put aside."""
    trainer = make_trainer(vector_corpus, tmp_path, keep="last")
    trainer.balancer = Moving()
    scored = {}
    validate = trainer._validate

    def remember() -> dict[str, float]:
        scored.update({k: v.clone() for k, v in trainer.model.state_dict().items()})
        return validate()

    trainer._validate = remember  # type: ignore[method-assign]
    trainer.run()
    assert all(torch.equal(scored[k], v) for k, v in trainer.model.state_dict().items())


@pytest.mark.parametrize("name", ["g_blending", "relearning"])
def test_a_recipe_without_a_valid_split_is_refused_by_what_compares(vector_corpus, tmp_path, name):
    trainer = make_trainer(vector_corpus, tmp_path, balance={"name": name, "every": 1})
    trainer.valid = None
    with pytest.raises(BadConfig, match="no valid"):
        trainer.run()
