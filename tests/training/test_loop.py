from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from affuse.core import io
from affuse.core.config import load_recipe, make_recipe
from affuse.core.errors import AffuseError, BadConfig, BadCorpus, BadFeatures
from affuse.core.seed import seed_all
from affuse.corpora.manifest import make_splits
from affuse.training import binding
from affuse.training import train as training
from affuse.training.loop import Trainer
from affuse.training.sampling import epoch_batches, share

RECIPE = {
    "streams": {"*": {"encoder": {"name": "mlp", "hidden": 8, "dropout": 0.0}}},
    "fusion": {"name": "gated", "dim": 8},
    "optim": {"lr": 0.01},
    "objectives": {"focal": {"unimodal": 0.5, "class_weights": "balanced"}},
    "train": {"epochs": 3, "batch_size": 12},
}


def make_trainer(corpus, folder: Path, epochs: int = 3, double: bool = True, **train) -> Trainer:
    """A Trainer on the vectors of a corpus, in float64 unless told otherwise."""
    dropout = train.pop("dropout", 0.0)
    rest = {"augment": {}, "balance": "none", "fusion": RECIPE["fusion"]}
    parts = {name: train.pop(name, value) for name, value in rest.items()}
    values = {**RECIPE, **parts, "train": {**RECIPE["train"], "epochs": epochs, **train}}
    values["streams"] = {"*": {"encoder": {"name": "mlp", "hidden": 8, "dropout": dropout}}}
    recipe = binding.bind(make_recipe(values), corpus)
    seed_all(0)
    split = make_splits(corpus.table, "source", 0.2, 0.2, None, 0)[0]
    tasks = binding.tasks_of(recipe, corpus)
    train_set, valid_set = (binding.dataset(corpus, recipe, tasks, split == s) for s in ("train", "valid"))
    model, losses = training.make_model(recipe, train_set, tasks)
    model = model.double() if double else model
    return Trainer(model, losses, train_set, valid_set, recipe, folder, torch.device("cpu"))


def assert_same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], atol: float) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=atol)


@pytest.mark.parametrize("pieces", [2, 5])
def test_accumulation_equals_the_single_big_batch(vector_corpus, tmp_path, pieces):
    whole = make_trainer(vector_corpus, tmp_path / "whole", accumulate=1)
    parts = make_trainer(vector_corpus, tmp_path / "parts", accumulate=pieces)
    whole.run()
    parts.run()
    assert_same_weights(whole.model.state_dict(), parts.model.state_dict(), 1e-6)


def test_two_processes_equal_one(vector_corpus, tmp_path):
    alone = make_trainer(vector_corpus, tmp_path / "alone", keep="last")
    alone.run()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    script = Path(__file__).with_name("two_processes.py")
    done = subprocess.run(
        [*command, "-m", "tests.training.two_processes", str(vector_corpus.path), str(tmp_path)],
        cwd=script.parents[2], capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert_same_weights(alone.model.state_dict(), io.read_tensors(tmp_path / "none" / "weights.safetensors"), 1e-6)
    rows = io.read_jsonl(tmp_path / "none" / "run" / "metrics.jsonl")
    assert [r["epoch"] for r in rows] == [1, 2, 3]


def test_torchrun_trains_and_scores_once(vector_corpus, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "affuse"]
    where = ["--corpus", vector_corpus.path, "--out", tmp_path / "run"]
    options = ["train", "vectors", "train.epochs=2", "--folds", 2, "--quiet", *where]
    done = subprocess.run([*command, *map(str, options)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [str(tmp_path / "run")]
    assert io.read_json(tmp_path / "run" / "evaluation.json")["n"] == 48


class Interrupt(Exception):
    """Stands for Ctrl-C in the middle of an epoch."""


def test_resume_is_exact(vector_corpus, tmp_path):
    """Dropout, mixup, modality dropout and EMA on: interrupted in epoch 3, resumed, equal to the last bit."""
    options = {"double": False, "epochs": 5, "dropout": 0.3, "ema": 0.9}

    def trainer(folder):
        return make_trainer(vector_corpus, folder, augment={"mixup": 0.4, "modality_dropout": 0.3}, **options)

    straight = trainer(tmp_path / "straight")
    straight.run()
    broken = trainer(tmp_path / "broken")

    def stop(row):
        if row["epoch"] == 3 and row.get("step") == 2:
            raise Interrupt

    broken.report = stop
    with pytest.raises(Interrupt):
        broken.run()
    torch.rand(100)  # whatever another process did with its generators
    np.random.rand(7)
    resumed = trainer(tmp_path / "broken")
    progress = resumed.run()
    assert progress.epoch == 5
    assert_same_weights(straight.model.state_dict(), resumed.model.state_dict(), 0.0)
    rows = [io.read_jsonl(tmp_path / d / "metrics.jsonl") for d in ("straight", "broken")]
    one, two = ([(row["epoch"], row["loss"], row["valid"]) for row in run] for run in rows)
    assert one == two


def test_same_seed_same_result(vector_corpus, tmp_path):
    a, b = (make_trainer(vector_corpus, tmp_path / name, dropout=0.3) for name in "ab")
    a.run()
    seed_all(0)
    b = make_trainer(vector_corpus, tmp_path / "b", dropout=0.3)
    b.run()
    assert_same_weights(a.model.state_dict(), b.model.state_dict(), 0.0)


def test_training_lowers_the_loss_and_keeps_the_best_epoch(vector_corpus, tmp_path):
    trainer = make_trainer(vector_corpus, tmp_path / "run", epochs=12)
    progress = trainer.run()
    rows = io.read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    best = max(rows, key=lambda r: r["valid"]["uar"])
    assert progress.best_score == best["valid"]["uar"]
    assert trainer._validate().scores == best["valid"]


def test_early_stopping(vector_corpus, tmp_path):
    trainer = make_trainer(vector_corpus, tmp_path / "run", epochs=200, patience=3)
    progress = trainer.run()
    assert progress.epoch == progress.best_epoch + 3 < 200


def test_nan_features_are_named_not_learned(vector_corpus, tmp_path):
    trainer = make_trainer(vector_corpus, tmp_path / "run")
    for p in trainer.model.parameters():
        p.data.fill_(float("nan"))
    with pytest.raises(BadFeatures, match="the loss is nan in epoch 1"):
        trainer.run()


def test_selection_metric_must_fit_the_task(vector_corpus, tmp_path):
    trainer = make_trainer(vector_corpus, tmp_path / "run", selection="ccc")
    with pytest.raises(BadConfig, match="choose one of"):
        trainer.run()


def test_batches_cover_every_item_once_and_depend_on_seed_and_epoch_alone():
    lengths = np.random.default_rng(0).integers(1, 100, 103)
    batches = epoch_batches(lengths, 16, seed=1, epoch=4)
    assert sorted(np.concatenate(batches)) == list(range(103))
    again = epoch_batches(lengths, 16, seed=1, epoch=4)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))
    other = np.concatenate(epoch_batches(lengths, 16, seed=1, epoch=5))
    assert not (np.concatenate(batches) == other).all()
    spread = np.mean([np.ptp(lengths[b]) for b in batches])
    assert spread < 0.5 * np.ptp(lengths)


def test_balanced_sampling_draws_every_class_equally():
    labels = np.array([0] * 80 + [1] * 15 + [2] * 5)
    drawn = labels[np.concatenate(epoch_batches(np.ones(100), 10, 0, 0, labels))]
    assert len(drawn) == 100
    assert np.bincount(drawn).tolist() in ([34, 33, 33], [33, 34, 33], [33, 33, 34])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_a_batch_without_loss(world):
    batch = np.arange(17)
    parts = [np.concatenate(share(batch, rank, world, 3)) for rank in range(world)]
    assert sorted(np.concatenate(parts)) == list(range(17))


def test_a_frozen_encoder_starts_from_a_run_and_stays_as_it_is(tmp_path):
    """Frozen means frozen: eval mode, no gradient, statistics and buffers untouched."""
    from affuse.cli.app import main
    from affuse.training.run_folder import open_run, run_model
    from tests.conftest import make_vector_corpus

    corpus = make_vector_corpus(tmp_path / "corpus")
    common = ["--corpus", str(corpus.path), "--quiet", "--no-score"]
    donor = ["train", "vectors", "train.epochs=2", "--only", "audio", "--out", str(tmp_path / "donor")]
    assert main([*donor, *common]) == 0
    encoder = "{name: mlp, hidden: 256, members: 8, dropout: 0.5, input_dropout: 0.2, noise: 0.5, clip: 3.0}"
    changes = [f"encoder={encoder}", f"init={tmp_path / 'donor'}", "frozen=true"]
    streams = [f"streams.audio_vec.{change}" for change in changes]
    assert main(["train", "vectors", "train.epochs=3", *streams, "--out", str(tmp_path / "run"), *common]) == 0
    info, _, ((folder,),) = open_run(tmp_path / "run")
    assert set(info["init_hashes"]) == {"audio_vec"}
    donor, model = (run_model(f).encoders["audio_vec"].state_dict() for f in (tmp_path / "donor", folder))
    assert_same_weights(donor, model, 0.0)
    assert run_model(folder).encoders["text_vec"].net[1].weight.abs().sum() > 0
    wrong = ["streams.audio_vec.encoder={name: mlp, hidden: 8}", f"streams.audio_vec.init={tmp_path / 'donor'}"]
    assert main(["train", "vectors", "train.epochs=1", *wrong, "--out", str(tmp_path / "wrong"), *common]) == 2


def test_members_are_trained_apart_and_averaged(tmp_path):
    from affuse.cli.app import main
    from affuse.training.run_folder import open_run, run_model
    from tests.conftest import make_vector_corpus

    corpus = make_vector_corpus(tmp_path / "corpus")
    common = ["--corpus", str(corpus.path), "--quiet", "train.epochs=2"]
    assert main(["train", "vectors", "train.members=2", "--out", str(tmp_path / "two"), *common]) == 0
    for seed in (0, 1000):
        assert main(["train", "vectors", f"train.seed={seed}", "--out", str(tmp_path / str(seed)), *common]) == 0
    _, _, ((a, b),) = open_run(tmp_path / "two")
    assert_same_weights(run_model(a).state_dict(), run_model(tmp_path / "0").state_dict(), 0.0)
    assert_same_weights(run_model(b).state_dict(), run_model(tmp_path / "1000").state_dict(), 0.0)
    two, one, other = (io.read_table(tmp_path / d / "predictions.parquet") for d in ("two", "0", "1000"))
    np.testing.assert_allclose(two["p:happy"], (one["p:happy"] + other["p:happy"]) / 2, atol=1e-6)


def test_a_specialist_goes_on_from_the_first_member_and_has_a_say(tmp_path):
    from affuse.cli.app import main
    from affuse.training.run_folder import open_run, run_model
    from tests.conftest import make_vector_corpus

    corpus = make_vector_corpus(tmp_path / "corpus")
    common = ["--corpus", str(corpus.path), "--quiet", "train.epochs=2"]
    still = ["train.specialists=1", "train.specialist_lr=0"]
    assert main(["train", "vectors", *still, "--out", str(tmp_path / "same"), *common]) == 0
    _, _, ((first, second),) = open_run(tmp_path / "same")
    assert_same_weights(run_model(first).state_dict(), run_model(second).state_dict(), 0.0)
    assert main(["train", "vectors", "train.specialists=1", "--out", str(tmp_path / "two"), *common]) == 0
    assert main(["train", "vectors", "--out", str(tmp_path / "one"), *common]) == 0
    _, _, ((first, second),) = open_run(tmp_path / "two")
    assert_same_weights(run_model(first).state_dict(), run_model(tmp_path / "one").state_dict(), 0.0)
    weights, further = run_model(first).state_dict(), run_model(second).state_dict()
    assert any(not torch.equal(weights[k], further[k]) for k in weights)
    two, one = (io.read_table(tmp_path / d / "predictions.parquet") for d in ("two", "one"))
    assert np.abs(two["p:happy"] - one["p:happy"]).max() > 1e-4


def test_processes_wait_until_a_model_is_written_that_a_specialist_starts_from(vector_corpus, tmp_path, monkeypatch):
    written = []

    def count(world):
        written.append(len(list(tmp_path.rglob("model.safetensors"))))

    monkeypatch.setattr(training.distributed, "wait", count)
    recipe = binding.bind(load_recipe("vectors", ["train.epochs=1", "train.specialists=1"]), vector_corpus)
    training.train(recipe, "vectors", vector_corpus, tmp_path / "run")
    assert written == [1, 2]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["tasks.emotion.space=sentiment", "train.sampling=balanced"], "task 'emotion' has none"),
        (["tasks.emotion.space=sentiment", "train.specialists=1"], "task 'emotion' has none"),
        (["train.members=0"], "members = 0"),
        (["train.batch_size=0"], "batch_size = 0"),
        (["tasks.emotion.space=ekman7"], "ekman7"),
        (["tasks.emotion.column=nope"], "nope"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_it(vector_corpus, tmp_path, options, named):
    recipe = binding.bind(load_recipe("vectors", options), vector_corpus)
    with pytest.raises(AffuseError, match=named):
        training.train(recipe, "vectors", vector_corpus, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_that_are_not_there_are_named(vector_corpus, tmp_path):
    nameless = replace(vector_corpus, table=vector_corpus.table.assign(label=""))
    recipe = binding.bind(load_recipe("vectors", ["train.epochs=1"]), nameless)
    with pytest.raises(BadCorpus, match="no training utterance is labelled for 'emotion'"):
        training.train(recipe, "vectors", nameless, tmp_path / "run")


def test_views_train_on_what_they_agree_on(tmp_path):
    """Two runs with the same seed: views differ, and those of the run that is asked to agree end nearer together."""
    from affuse.cli.app import main
    from tests.conftest import make_vector_corpus

    corpus, apart = make_vector_corpus(tmp_path / "corpus"), []
    for weight in (1e-6, 100.0):
        run = tmp_path / str(weight)
        views = [f"objectives.consistency.{o}" for o in ("views=3", "temperature=1.0", f"weight={weight}")]
        options = ["train.epochs=8", "split.group_by=source", *views]
        where = ["--corpus", str(corpus.path), "--out", str(run), "--quiet", "--no-score"]
        assert main(["train", "dialogue-gated-gfpush", *options, *where]) == 0
        apart.append([row["terms"]["consistency"] / weight for row in io.read_jsonl(run / "metrics.jsonl")])
    assert all(a > 0 for a in apart[0])
    assert apart[1][-1] < 0.8 * apart[0][-1]
