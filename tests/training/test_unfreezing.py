"""Gradual unfreezing: what is frozen until an epoch is bit-identical until then, statistics included."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from affuse.core.errors import BadConfig
from affuse.models.model import Model
from affuse.training.unfreezing import Unfreezing
from tests.training.test_loop import Interrupt, assert_same_weights, make_trainer

AUDIO = "encoders.audio_vec.*"


def weights_per_epoch(corpus, folder, **options) -> list[dict[str, torch.Tensor]]:
    """The model's state before training and after every epoch."""
    trainer = make_trainer(corpus, folder, keep="last", dropout=0.3, **options)
    states = []

    def keep(row):
        if "step" not in row:
            states.append({k: v.clone() for k, v in trainer.model.state_dict().items()})

    trainer.report = keep
    states.append({k: v.clone() for k, v in trainer.model.state_dict().items()})
    trainer.run()
    return states


def moved(before, after) -> set[str]:
    return {k for k in before if not torch.equal(before[k], after[k])}


def test_parameters_move_from_their_epoch_on_and_not_before(vector_corpus, tmp_path):
    first, *states = weights_per_epoch(vector_corpus, tmp_path / "run", epochs=4, unfreeze={AUDIO: 3})
    trained = {k for k in moved(states[2], states[3]) if k.startswith("encoders.audio_vec.")}
    assert trained
    for before, after in zip([first, *states], states[:2], strict=False):
        assert not moved(before, after) & trained
        assert any(k.startswith("encoders.text_vec.") for k in moved(before, after))


def test_a_frozen_batch_norm_keeps_its_statistics():
    """6.1 of the LFAN specification: weights were frozen, but dropout was on and running statistics drifted."""

    class Net(Model):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.frozen = set()
            self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.body(x))

    net = Net()
    unfreezing = Unfreezing(net, {"body.*": 2}, 3)
    for epoch in (1, 2):
        unfreezing.start(epoch)
        net.train()
        before = {k: v.clone() for k, v in net.body.state_dict().items()}
        x = torch.randn(8, 4)
        same = torch.equal(net(x), net(x))
        net(x).sum().backward()
        assert same == (epoch == 1)  # no dropout while it is frozen
        assert (not moved(before, net.body.state_dict())) == (epoch == 1)
        assert (net.body[0].weight.grad is None) == (epoch == 1)
        assert net.head.weight.grad is not None
        net.zero_grad()


def test_the_earliest_epoch_of_overlapping_patterns_counts_and_frozen_for_good_stays():
    net = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    net["b"].bias.requires_grad_(False)
    unfreezing = Unfreezing(net, {"*": 4, "a.*": 2}, 5)
    trained = {}
    for epoch in (1, 2, 4):
        unfreezing.start(epoch)
        trained[epoch] = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained == {1: set(), 2: {"a.weight", "a.bias"}, 4: {"a.weight", "a.bias", "b.weight"}}


def test_a_resumed_run_unfreezes_at_the_same_epoch(vector_corpus, tmp_path):
    options = {"epochs": 5, "keep": "last", "dropout": 0.3, "unfreeze": {AUDIO: 3}, "double": False}
    straight = make_trainer(vector_corpus, tmp_path / "straight", **options)
    straight.run()
    broken = make_trainer(vector_corpus, tmp_path / "broken", **options)

    def stop(row):
        if row["epoch"] == 4 and row.get("step") == 2:
            raise Interrupt

    broken.report = stop
    with pytest.raises(Interrupt):
        broken.run()
    resumed = make_trainer(vector_corpus, tmp_path / "broken", **options)
    resumed.run()
    assert_same_weights(straight.model.state_dict(), resumed.model.state_dict(), 0.0)


@pytest.mark.parametrize(
    ("stages", "said"),
    [({"encoders.vidoe.*": 2}, "no trained parameter is called"), ({"*": 9}, "epoch 9"), ({"*": 1}, "epoch 1")],
)
def test_stages_that_cannot_be_are_named(vector_corpus, tmp_path, stages, said):
    with pytest.raises(BadConfig, match=said):
        make_trainer(vector_corpus, tmp_path / "run", unfreeze=stages)
