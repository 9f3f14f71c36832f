"""Contrast, matching and distillation in training: several processes equal one, and a resumed run an uninterrupted."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from affuse.core import io
from affuse.core.config import make_recipe
from affuse.core.seed import seed_all
from affuse.corpora.manifest import Corpus
from affuse.training import binding
from affuse.training import train as training
from affuse.training.loop import Trainer
from tests.contracts.corpora import make_corpus

VALUES = {
    "streams": {"*": {"encoder": {"name": "mlp", "hidden": 8, "dropout": 0.0}}},
    "fusion": {"name": "cross_modal", "dim": 8, "heads": 2, "layers": 1, "dropout": 0.0},
    "objectives": {
        "cross_entropy": {},
        "contrast": {"name": "pair_contrastive", "dim": 6, "queue": 13, "weight": 0.5},
        "match": {"name": "pair_matching", "hidden": 8, "weight": 0.5},
        "soft_pairs": {"name": "momentum_distillation", "streams": ["audio_steps", "vision_steps"]},
        "soft_labels": {"name": "momentum_distillation", "confidence": 0.3},
        "classes": {"name": "supervised_contrastive", "of": "streams", "weight": 0.3},
        "alone": {"name": "unimodal_blend", "weights": {"vision_steps": 0.3}},
    },
    "optim": {"lr": 0.01},
    "train": {"epochs": 3, "batch_size": 8, "ema": 0.9, "ema_keeps": False, "keep": "last"},
}


def make_trainer(corpus: Corpus, folder: Path) -> Trainer:
    recipe = binding.bind(make_recipe(VALUES), corpus)
    seed_all(0)
    tasks = binding.tasks_of(recipe, corpus)
    chosen = np.arange(len(corpus.table)) < 30
    data, valid = (binding.dataset(corpus, recipe, tasks, part) for part in (chosen, ~chosen))
    model, losses = training.make_model(recipe, data, tasks)
    for name, part in losses.items():
        part.to(torch.float32 if name == "cross_entropy" else torch.float64)
    return Trainer(model.double(), losses, data, valid, recipe, folder, torch.device("cpu"))


def states(trainer: Trainer) -> dict[str, torch.Tensor]:
    assert trainer.teacher is not None
    parts = {"model": trainer.model, "losses": trainer.losses, "teacher": trainer.teacher.model}
    return {f"{part}.{k}": v for part, module in parts.items() for k, v in module.state_dict().items()}


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    straight = make_trainer(corpus, tmp_path / "straight")
    straight.run()
    stopped = make_trainer(corpus, tmp_path / "run")

    def stop(row):
        if row.get("epoch") == 1 and "loss" in row:
            raise KeyboardInterrupt

    stopped.report = stop
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = make_trainer(corpus, tmp_path / "run")
    resumed.run()
    found = states(resumed)
    assert all(torch.equal(value, found[name]) for name, value in states(straight).items())
    rows = io.read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert set(rows[-1]["terms"]) == set(VALUES["objectives"])
    assert rows[-1]["counts"]["contrast.without_pair"] > 0  # every fifth utterance has no vision


def train_one(rank: int, folder: str) -> None:
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    trainer = make_trainer(Corpus.open(Path(folder) / "corpus"), Path(folder) / "two")
    trainer.run()
    io.write_tensors(Path(folder) / f"{rank}.safetensors", states(trainer))
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    alone = make_trainer(corpus, tmp_path / "one")
    alone.run()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    context = mp.spawn(train_one, args=(str(tmp_path),), nprocs=2, join=False)
    for _ in range(30):
        if context.join(timeout=5):
            break
    else:
        for process in context.processes:
            process.kill()
        pytest.fail("one process waits for the other")
    for rank in (0, 1):
        found = io.read_tensors(tmp_path / f"{rank}.safetensors")
        for name, value in states(alone).items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5, msg=name)
    one, two = (io.read_jsonl(tmp_path / run / "metrics.jsonl")[-1]["counts"] for run in ("one", "two"))
    assert one == two
