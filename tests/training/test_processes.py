"""Two processes that train together: a GPU each, randomness of their own, and norms that wait for one another."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from affuse.core import io, registry
from affuse.core.config import make_recipe
from affuse.core.errors import BadConfig
from affuse.core.seed import seed_all
from affuse.corpora.manifest import Corpus, write_corpus
from affuse.models import model as models
from affuse.stores.store import import_arrays
from affuse.training import binding, distributed
from affuse.training import train as training
from affuse.training.loop import Trainer, without_content
from affuse.training.sampling import share
from tests.conftest import make_vector_corpus
from tests.training.test_loop import assert_same_weights, make_trainer

ITEMS = 35  # in batches of 8 the last one has 3: two pieces on one process, one on the other
STILL = {"dropout": 0.0, "conv_dropout": 0.0, "stretch": 0.0, "time_mask": 0.0, "freq_mask": 0.0}  # nothing random
CONTEXT = {"name": "transformer", "layers": 1, "dim": 8, "dropout": 0.0}
CASES: dict[str, dict[str, Any]] = {
    "none": {"train": {"batch_size": 8, "accumulate": 2}},
    "mmpareto": {"train": {"batch_size": 8, "accumulate": 2}, "balance": "mmpareto"},  # several backwards per piece
    "umt": {"train": {"batch_size": 8, "accumulate": 2}, "balance": "umt"},  # further encoders with norms
    "dialogue": {"train": {"batch_size": 5}, "context": [CONTEXT]},
}


def apart(work: Callable[..., None], folder: Path, seconds: int = 200) -> None:
    """Run work(rank, folder) in two processes; one that waits for ever is a failure."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    context = mp.spawn(work, args=(folder,), nprocs=2, join=False)
    for _ in range(seconds // 5):
        if context.join(timeout=5):
            return
    for process in context.processes:
        process.kill()
    pytest.fail("one process waits for the other")


def join(rank: int, folder: Path) -> None:
    """Be one of two processes, as under torchrun."""
    torch.set_num_threads(1)
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank)}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)


def make_corpus(path: Path, n: int = ITEMS + 10) -> Corpus:
    """Frames of 16 log-mel bands and a vector for each of n utterances, in conversations of five."""
    rng = np.random.default_rng(0)
    names, labels = ("neutral", "happy", "sad", "angry"), rng.integers(0, 4, n)
    places = [{"speaker": f"s{i % 3}", "conversation": f"d{i // 5}", "position": i % 5} for i in range(n)]
    rows = [
        {"id": f"u{i}", "label": names[c], "text": "word", **place}
        for i, (c, place) in enumerate(zip(labels, places, strict=True))
    ]
    corpus = write_corpus(path, rows, "frames", "iemocap-4")
    ids, lengths = [r["id"] for r in rows], rng.integers(20, 40, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    frames = 10 * rng.normal(size=(offsets[-1], 16)) - 40 + 5 * np.repeat(labels, lengths)[:, None]
    import_arrays(corpus.store_path("mel"), ids, frames, offsets, "audio", 100.0)
    import_arrays(corpus.store_path("text_vec"), ids, rng.normal(size=(n, 4)) + labels[:, None])
    return corpus


def frames_trainer(corpus: Corpus, folder: Path, **options: Any) -> Trainer:
    """A Trainer whose audio encoder has norms over all processes; the first ITEMS rows train."""
    audio = {"name": "log_mel_cnn", "dim": 8, "channels": [4, 4], **STILL}
    values = {
        "streams": {"mel": {"encoder": audio}, "*": {"encoder": {"name": "mlp", "hidden": 8, "dropout": 0.0}}},
        "fusion": {"name": "gated", "dim": 8},
        "objectives": {"cross_entropy": {}},
        "optim": {"name": "sgd", "lr": 0.01},  # Adam makes full steps of what is rounding
        **options,
        "train": {"epochs": 2, "keep": "last", **options["train"]},
    }
    recipe = binding.bind(make_recipe(values), corpus)
    seed_all(0)
    tasks, first = binding.tasks_of(recipe, corpus), np.arange(len(corpus.table)) < ITEMS
    train, valid = (binding.dataset(corpus, recipe, tasks, chosen) for chosen in (first, ~first))
    model, losses = training.make_model(recipe, train, tasks)
    return Trainer(model, losses, train, valid, recipe, folder, torch.device("cpu"))


def train_each(rank: int, folder: Path) -> None:
    join(rank, folder)
    corpus = Corpus.open(folder / "corpus")
    for name, options in CASES.items():
        trainer = frames_trainer(corpus, folder / name, **options)
        trainer.run()
        io.write_tensors(folder / f"{name}{rank}.safetensors", trainer.model.state_dict())
    dist.destroy_process_group()


def test_processes_with_fewer_pieces_keep_norms_in_step(tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    apart(train_each, tmp_path)
    for name, options in CASES.items():
        alone = frames_trainer(corpus, tmp_path / "alone" / name, **options)
        alone.run()
        for rank in (0, 1):
            assert_same_weights(alone.model.state_dict(), io.read_tensors(tmp_path / f"{name}{rank}.safetensors"), 1e-5)


@pytest.mark.parametrize("items", [1, 3, 8, 17])
@pytest.mark.parametrize("conversational", [False, True])
def test_every_process_has_as_many_pieces(items, conversational):
    conversation = np.array([f"d{i // 2}" for i in range(items)]) if conversational else None
    parts = [share(np.arange(items), rank, 3, 2, conversation) for rank in range(3)]
    assert len({len(pieces) for pieces in parts}) == 1
    assert sorted(np.concatenate([p for pieces in parts for p in pieces])) == list(range(items))
    assert all(len(p) for p in share(np.arange(items), 0, 1, 4, conversation))


@pytest.mark.parametrize("fusion", list(registry.cards("fusions")))
def test_a_piece_without_content_reaches_every_encoder(tmp_path, monkeypatch, fusion):
    """Its backward takes part in the sums of every encoder's norms, and its gradient is zero."""
    monkeypatch.setattr(models, "several_processes", lambda: True)
    rate = 5.0 if "grid" in registry.cards("fusions")[fusion]["needs"] else 0.0
    trainer = make_trainer(make_vector_corpus(tmp_path / "corpus", rate=rate), tmp_path, fusion=fusion, double=False)
    trainer.model.train()
    weight = {name: torch.ones(()) for name in trainer.losses}
    loss, _ = trainer._piece(without_content(trainer.train.batch([0])), weight, 0, 0)
    grads = [p.grad for encoder in trainer.model.encoders.values() for p in encoder.parameters()]
    assert loss == 0 and all(g is not None and not g.any() for g in grads)


LIVELY = {"epochs": 4, "dropout": 0.3, "keep": "last", "double": False}


def lively(corpus: Corpus, folder: Path) -> Trainer:
    return make_trainer(corpus, folder, **LIVELY, augment={"modality_dropout": 0.3})


def stop_after_two(row: dict[str, Any]) -> None:
    if "lr" in row and row["epoch"] == 2:
        raise KeyboardInterrupt


def interrupt_and_go_on(rank: int, folder: Path) -> None:
    join(rank, folder)
    corpus = Corpus.open(folder / "corpus")
    straight = lively(corpus, folder / "straight")
    straight.run()
    broken = lively(corpus, folder / "broken")
    broken.report = stop_after_two
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    distributed.wait(2)  # until the checkpoint is written
    resumed = lively(corpus, folder / "broken")
    resumed.run()
    assert_same_weights(straight.model.state_dict(), resumed.model.state_dict(), 0.0)
    mine = torch.rand(8)
    both = [torch.zeros(8), torch.zeros(8)]
    dist.all_gather(both, mine)
    assert not torch.equal(*both)
    dist.destroy_process_group()


def test_two_processes_go_on_exactly(vector_corpus, tmp_path):
    apart(interrupt_and_go_on, tmp_path)
    rows = [io.read_jsonl(tmp_path / d / "metrics.jsonl") for d in ("straight", "broken")]
    assert [(r["epoch"], r["loss"]) for r in rows[0]] == [(r["epoch"], r["loss"]) for r in rows[1]]


def test_another_number_of_processes_draws_apart(vector_corpus, tmp_path):
    lively(vector_corpus, tmp_path / "run").run()
    drawn = [torch.rand(8)]
    for rank in (0, 1):
        trainer = lively(vector_corpus, tmp_path / "run")
        trainer.rank, trainer.world = rank, 2
        trainer._resume()
        assert trainer.progress.epoch == 4
        drawn.append(torch.rand(8))
    assert len({tuple(d.tolist()) for d in drawn}) == 3


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a process of torchrun, the fourth of its machine, asks of torch."""
    asked: list[Any] = []
    for name, value in {"WORLD_SIZE": "8", "RANK": "7", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "set_device", asked.append)
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    monkeypatch.setattr(dist, "init_process_group", asked.append)
    monkeypatch.setattr(dist, "get_rank", lambda: 7)
    monkeypatch.setattr(dist, "get_world_size", lambda: 8)
    return asked


@pytest.mark.parametrize(("device", "asked"), [("cuda", [3, "nccl"]), ("cpu", ["gloo"])])
def test_every_process_takes_a_gpu_of_its_own(started, device, asked):
    assert distributed.start(device) == (7, 8)
    assert started == asked


def test_one_gpu_by_number_is_not_for_several_processes(started, monkeypatch):
    with pytest.raises(BadConfig, match="give --device cuda"):
        distributed.start("cuda:1")
    assert started == []
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert distributed.start("cuda:1") == (0, 1)
