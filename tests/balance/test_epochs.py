"""What methods do at an epoch's end, and with how many epochs there will be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from affuse.balance import LFM
from affuse.balance.attach import Attached
from affuse.balance.balancer import Balancer, Epoch
from affuse.cli.app import main
from affuse.core import io, registry
from affuse.core.errors import BadConfig
from affuse.training.validation import Validation
from tests.training.test_loop import Interrupt, assert_same_weights, make_trainer

from .conftest import Planted, network, optimizer_of

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
    assert_same_weights(whole.state.auxiliary.state_dict(), resumed.state.auxiliary.state_dict(), 0.0)
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

    def remember() -> Validation:
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


def test_a_fusion_that_counts_steps_works_with_a_balancer_that_acts_after_an_epoch(vector_corpus, tmp_path):
    """Experts weigh by the number of usable steps, which a whole split must still hold then."""
    options = ["fusion=experts", "balance=mslr", "train.epochs=2"]
    options += ["--corpus", str(vector_corpus.path), "--out", str(tmp_path / "run"), "--quiet"]
    assert main(["train", "balance-vectors", *options]) == 0
    (metrics,) = (tmp_path / "run").rglob("metrics.jsonl")
    assert {"accuracy_valid.audio_vec", "accuracy_valid.vision_vec"} <= set(io.read_jsonl(metrics)[-1]["balance"])


def test_masks_of_batches_of_unequal_length_are_joined(vector_corpus, tmp_path, monkeypatch):
    trainer = make_trainer(vector_corpus, tmp_path, double=False)
    encode, fuse, widths, seen = trainer.model.encode, trainer.model.fuse, [], []

    def longer(batch):
        """Encoded with one more unused step from batch to batch."""
        encoded = encode(batch)
        widths.append(len(widths) + 1)
        longer = {s: torch.cat([m, m.new_zeros(len(m), len(widths) - 1)], 1) for s, m in encoded.mask.items()}
        return replace(encoded, mask=longer)

    batches = type(trainer.train).batches
    monkeypatch.setattr(type(trainer.train), "batches", lambda data, size: batches(data, 10))
    monkeypatch.setattr(trainer.model, "encode", longer)
    monkeypatch.setattr(trainer.model, "fuse", lambda encoded, batch: seen.append(encoded) or fuse(encoded, batch))
    trainer._encoded_split("train").fused()
    assert len(widths) > 1
    for i, stream in enumerate(seen[0].streams):
        mask = seen[0].mask[stream]
        assert mask.shape == (len(trainer.train), widths[-1])
        assert torch.equal(mask.sum(1), seen[0].present[:, i].long())


def test_lfm_rises_to_its_end_and_stays():
    shares = [LFM(first=0.2).share(epoch, 4) for epoch in range(9)]
    assert shares == sorted(shares)
    assert shares[3:] == [1.0] * 6
    assert LFM().share(5, 1) == 1.0


@pytest.mark.parametrize("name", ["lfm", "umt", "relearning"])
def test_what_paces_itself_by_epochs_must_know_how_many_there_will_be(name):
    data, (encoders, head) = Planted([2.0, 1.0]), network(2)
    attached = Attached(registry.build("balancers", name), encoders, head, optimizer_of(encoders, head))

    def step() -> None:
        attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y, data.x)

    step()
    attached.epoch_end()
    with pytest.raises(BadConfig, match=r"epoch 2 of 1(.|\n)*epochs=N"):
        step()
    attached.epochs = 2
    step()
