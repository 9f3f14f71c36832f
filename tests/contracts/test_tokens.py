"""What holds of every part holds of its sequences and of answers per frame too."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from affuse.core import io, registry
from affuse.core.config import make_recipe
from affuse.core.labels import SPACES
from affuse.core.parts import Part
from affuse.core.seed import seed_all
from affuse.core.tasks import Task
from affuse.core.types import Batch, Encoded, Fused, Output, StreamSpec
from affuse.corpora.manifest import Corpus
from affuse.layers.grid import on_grid
from affuse.models.build import Architecture
from affuse.models.live import LiveSession
from affuse.models.model import Model
from affuse.models.predict import at_labels, pooled_predictions
from affuse.models.saved import describe, load_model
from affuse.training import binding
from affuse.training import train as training
from affuse.training.distributed import gather_rows
from affuse.training.loop import Trainer
from tests.contracts.corpora import make_corpus

FUSIONS = {"framewise": {"of": {"name": "attention", "dim": 8, "heads": 2}}, "toy_attention": {}}
SPECS = (StreamSpec("audio_steps", "audio", (6,), 10.0), StreamSpec("vision_steps", "vision", (5,), 10.0))
SPACE = SPACES["iemocap-4"]
TASKS = {"frames": Task("frames", SPACE, "frame"), "whole": Task("whole", SPACE)}


def make_model(fusion: str, specs=SPECS) -> Model:
    torch.manual_seed(0)
    encoder = Part("mlp", registry.resolve("encoders", "mlp", {"hidden": 8, "dropout": 0.0}, "mlp"))
    part = Part(fusion, registry.resolve("fusions", fusion, FUSIONS[fusion], "fusion"))
    return Model(Architecture({s.name: encoder for s in specs}, part), specs, TASKS).eval()


def make_batch(n: int = 5, longer: int = 0, specs=SPECS) -> Batch:
    """n utterances of 3 to 9 steps, each stream a step shorter than the other; labels at 10 Hz."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.linspace(3, 9, n).long()
    x, mask, t0 = {}, {}, {}
    for k, spec in enumerate(specs):
        own = lengths - k
        there = torch.arange(9 + longer) < own[:, None]
        values = torch.rand(n, 9, *spec.shape, generator=generator)
        x[spec.name] = torch.cat([values, torch.zeros(n, longer, *spec.shape)], 1) * there.unsqueeze(-1)
        mask[spec.name], t0[spec.name] = there, torch.zeros(n, dtype=torch.float64)
    present = torch.stack([m.any(1) for m in mask.values()], 1)
    known = torch.arange(9) < lengths[:, None]
    target = {"frames": torch.arange(n * 9).view(n, 9) % 4, "whole": torch.arange(n) % 4}
    masks = {"frames": known, "whole": torch.ones(n, dtype=torch.bool)}
    return Batch(specs, x, mask, present, t0, target, masks, {"frames": 10.0})


def answers(model: Model, batch: Batch) -> dict[str, torch.Tensor]:
    """Logits of the utterances, and of the labelled frames [N, L, C] with 0 elsewhere."""
    output = at_labels(model(batch), batch)
    return {
        "whole": output.logits["whole"],
        "frames": output.logits["frames"] * batch.target_mask["frames"].unsqueeze(-1),
    }


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for task, value in expected.items():
        torch.testing.assert_close(found[task], value, rtol=1e-4, atol=1e-5)


def rows_of(batch: Batch, rows: slice) -> Batch:
    parts = {
        k: {n: v[rows] for n, v in getattr(batch, k).items()} for k in ("x", "mask", "t0", "target", "target_mask")
    }
    return replace(batch, present=batch.present[rows], **parts)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_padding_changes_no_frame(fusion):
    model = make_model(fusion)
    same(answers(model, make_batch(longer=4)), answers(model, make_batch()))
    fused = model(make_batch(longer=4)).fused
    assert not fused.tokens[~fused.mask].any()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_other_rows_change_no_frame(fusion):
    model, batch = make_model(fusion), make_batch()
    batch.present[1, 0] = batch.present[2, 1] = False
    whole = answers(model, batch)
    for i in range(5):
        rows = slice(i, i + 1)
        same(answers(model, rows_of(batch, rows)), {task: value[rows] for task, value in whole.items()})


@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_absent_stream_is_as_if_never_recorded(fusion):
    model, batch = make_model(fusion), make_batch()
    for i, spec in enumerate(SPECS):
        gone = batch.without({spec.name})
        expected = answers(model, gone)
        wild = replace(gone, x=gone.x | {spec.name: torch.randn_like(gone.x[spec.name])})
        same(answers(model, wild), expected)
        keep = torch.tensor([k != i for k in range(2)]).expand(5, -1)
        dropped = at_labels(model.fuse(model.encode(batch).keep(keep), batch), batch).logits["whole"]
        torch.testing.assert_close(dropped, expected["whole"])
    nothing = answers(model, batch.without({s.name for s in SPECS}))
    assert all(torch.isfinite(v).all() for v in nothing.values())


def test_the_order_of_the_streams_changes_no_frame():
    model, batch = make_model("framewise"), make_batch()
    batch.present[1, 0] = False
    turned = tuple(reversed(SPECS))
    other = make_model("framewise", turned)
    other.load_state_dict(model.state_dict())
    moved = replace(batch, streams=turned, present=batch.present.flip(1), x=dict(reversed(batch.x.items())))
    same(answers(other, moved), answers(model, batch))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_parameter_is_trained(fusion):
    model = make_model(fusion).train()
    found = answers(model, make_batch())
    sum(v.square().sum() for v in found.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("fusion", FUSIONS)
def test_save_and_load_give_the_same_frames(fusion, tmp_path):
    model = make_model(fusion)
    io.write_json(tmp_path / "model.json", describe(model))
    again = load_model(io.read_json(tmp_path / "model.json"), model.state_dict())
    assert all(torch.equal(v, answers(model, make_batch())[k]) for k, v in answers(again, make_batch()).items())


def test_a_frame_sees_no_other_frame_through_a_fusion_of_steps():
    """So that nothing of the future reaches an answer, where the encoders are causal."""
    model, batch = make_model("framewise"), make_batch()
    x = {name: value.requires_grad_() for name, value in batch.x.items()}
    logits = model(replace(batch, x=x)).logits["frames"]
    for t in range(9):
        grads = torch.autograd.grad(logits[:, t].sum(), list(x.values()), retain_graph=True)
        for g in grads:
            assert not g[:, t + 1 :].any() and not g[:, :t].any()
    assert torch.autograd.grad(logits[:2, 0].sum(), list(x.values()))[0][:2, 0].any()


def test_a_stream_that_starts_later_stands_at_its_own_time():
    n, d = 2, 3
    tokens = {"a": torch.ones(n, 4, d), "b": torch.ones(n, 3, d)}
    mask = {"a": torch.ones(n, 4, dtype=torch.bool), "b": torch.ones(n, 3, dtype=torch.bool)}
    t0 = {"a": torch.tensor([0.0, 0.4], dtype=torch.float64), "b": torch.tensor([0.2, 0.0], dtype=torch.float64)}
    present = torch.ones(n, 2, dtype=torch.bool)
    grid = on_grid(Encoded(("a", "b"), tokens, mask, {}, present, {"a": 5.0, "b": 5.0}, t0))
    assert grid.mask["a"].tolist() == [[True] * 4 + [False] * 2, [False, False] + [True] * 4]
    assert grid.mask["b"].tolist() == [[False] + [True] * 3 + [False] * 2, [True] * 3 + [False] * 3]
    assert grid.t0["a"].tolist() == grid.t0["b"].tolist() == [0.0, 0.0]
    assert not grid.tokens["b"][0, 0].any() and grid.tokens["a"].shape == grid.tokens["b"].shape


def test_a_label_has_the_step_that_lasts_then():
    logits = torch.arange(4.0).view(1, 4, 1)  # steps of half a second
    output = Output(
        {"t": logits}, Fused(torch.zeros(1, 1), logits, torch.ones(1, 4, dtype=torch.bool), 2.0, torch.zeros(1))
    )
    batch = Batch((), {}, {}, torch.ones(1, 1), target_mask={"t": torch.ones(1, 12)}, grid={"t": 5.0})
    assert at_labels(output, batch).logits["t"].flatten().tolist() == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_stream_of_other_utterances_is_as_if_recorded_there(fusion):
    model, batch, rows = make_model(fusion), make_batch(), torch.tensor([3, 0, 4, 1, 2])
    batch.present[0, 1] = False
    name = SPECS[1].name
    moved = {k: getattr(batch, k) | {name: getattr(batch, k)[name][rows]} for k in ("x", "mask", "t0")}
    present = torch.stack([batch.present[:, 0], batch.present[rows, 1]], 1)
    expected = model(replace(batch, present=present, **moved)).logits["whole"]
    torch.testing.assert_close(model.fuse(model.encode(batch).repaired(name, rows), batch).logits["whole"], expected)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_parts_of_a_batch_joined_again_keep_their_sequences(fusion):
    model, batch = make_model(fusion), make_batch()
    whole = model.encode(batch)
    short = [model.encode(rows_of(batch, slice(0, 2))), model.encode(rows_of(batch, slice(2, 5)))]
    for s in short[0].tokens:  # the shorter one without its padding
        short[0].tokens[s], short[0].mask[s] = short[0].tokens[s][:, :6], short[0].mask[s][:, :6]
    for again in (Encoded.join(short), whole.take(torch.arange(5))):
        torch.testing.assert_close(
            model.fuse(again, batch).logits["frames"][:, :9], model.fuse(whole, batch).logits["frames"]
        )


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_live_session_reads_sequences_too(fusion):
    torch.manual_seed(0)
    model = make_model(fusion)
    context = Part("recurrent", registry.resolve("contexts", "recurrent", {"mode": "causal", "dim": 8}, "context"))
    tasks = {"whole": TASKS["whole"]}
    model = Model(replace(model.parts, context=(context,)), SPECS, tasks).eval()
    batch = replace(make_batch(), conversation=["c"] * 5, position=list(range(5)), speaker=["a", "b"] * 2 + ["a"])
    whole, session, encoded = model(batch).logits["whole"], LiveSession(model), model.encode(batch)
    found = [session.step(encoded.take(slice(i, i + 1)), batch.speaker[i]).logits["whole"] for i in range(5)]
    torch.testing.assert_close(torch.cat(found), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reduce", ["mean_logits", "mean_probabilities", "vote"])
def test_frames_become_the_answer_of_their_utterance(reduce):
    torch.manual_seed(0)
    task = replace(TASKS["frames"], reduce=reduce)
    logits, mask = torch.randn(3, 5, 4), torch.arange(5) < torch.tensor([[5], [2], [0]])
    fused = Fused(torch.zeros(3, 1), logits, mask, 5.0, torch.zeros(3))
    found = pooled_predictions({"frames": task}, Output({"frames": logits}, fused))["frames"]
    frames = logits[mask].softmax(-1).numpy()
    again = task.from_frames(frames, np.repeat([0, 1], [5, 2]))
    np.testing.assert_allclose(found[:2].numpy(), again, atol=1e-6)
    torch.testing.assert_close(found.sum(1), torch.ones(3))
    torch.testing.assert_close(found[2], torch.full((4,), 0.25))


# ---- training: resume, processes --------------------------------------------------------------------------------

VALUES = {
    "streams": {"*": {"encoder": {"name": "mlp", "hidden": 8, "dropout": 0.0}}},
    "fusion": {"name": "framewise", "of": "gated"},
    "tasks": {"frames": {"resolution": "frame", "track": "expression"}, "whole": {}},
    "objectives": {
        "frames": {"name": "cross_entropy", "task": "frames", "class_weights": "balanced"},
        "whole": {"name": "cross_entropy", "task": "whole"},
        "pair": {"name": "toy_contrast", "task": "whole", "weight": 0.1, "size": 100},
    },
    "optim": {"lr": 0.01},
    "train": {"epochs": 3, "batch_size": 8, "ema": 0.9, "ema_keeps": False, "keep": "last"},
}


def make_trainer(corpus: Corpus, folder: Path, **train: object) -> Trainer:
    recipe = binding.bind(make_recipe(VALUES | {"train": VALUES["train"] | train}), corpus)
    seed_all(0)
    tasks = binding.tasks_of(recipe, corpus)
    chosen = np.arange(len(corpus.table)) < 30
    data, valid = (binding.dataset(corpus, recipe, tasks, part) for part in (chosen, ~chosen))
    model, losses = training.make_model(recipe, data, tasks)
    losses["pair"].double()
    return Trainer(model.double(), losses, data, valid, recipe, folder, torch.device("cpu"))


def test_teacher_queue_and_frames_resume_exactly(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", same_rate=True)
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
    for one, other in (
        (straight.model, resumed.model),
        (straight.losses, resumed.losses),
        (straight.teacher.model, resumed.teacher.model),
    ):
        found = other.state_dict()
        assert all(torch.equal(value, found[name]) for name, value in one.state_dict().items())
    assert straight.teacher.steps == resumed.teacher.steps > 0


def train_one(rank: int, folder: str) -> None:
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    trainer = make_trainer(Corpus.open(Path(folder) / "corpus"), Path(folder) / "two")
    trainer.run()
    io.write_tensors(Path(folder) / f"{rank}.safetensors", trainer.model.state_dict())
    dist.destroy_process_group()


def test_two_processes_with_teacher_queue_and_frames_equal_one(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", same_rate=True)
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
        for name, value in alone.model.state_dict().items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)


ROWS = torch.linspace(-1, 1, 15, dtype=torch.float64).view(5, 3)


def contrast(own: torch.Tensor, everyone: torch.Tensor) -> torch.Tensor:
    return torch.logsumexp(own @ everyone.T, 1).sum()


def gather_one(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    own = ROWS[[[0, 1, 2], [3, 4]][rank]].clone().requires_grad_()
    contrast(own, gather_rows(own, 2)).backward()
    io.write_tensors(Path(folder) / f"{rank}.safetensors", {"grad": own.grad})
    dist.destroy_process_group()


def test_rows_of_all_processes_give_the_gradients_that_one_process_has(tmp_path):
    rows = ROWS.clone().requires_grad_()
    contrast(rows, rows).backward()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    mp.spawn(gather_one, args=(str(tmp_path),), nprocs=2)
    found = torch.cat([io.read_tensors(tmp_path / f"{rank}.safetensors")["grad"] for rank in (0, 1)])
    torch.testing.assert_close(found, rows.grad)


def test_what_is_taken_away_leaves_neither_vectors_nor_steps():
    encoded = make_model("toy_attention").encode(make_batch())
    keep = torch.ones(5, 2, dtype=torch.bool)
    keep[1, 0] = False
    found, name = encoded.keep(keep), SPECS[0].name
    assert not found.present[1, 0] and not found.mask[name][1].any()
    assert not found.tokens[name][1].any() and not found.pooled[name][1].any()
    assert torch.equal(found.tokens[name][2], encoded.tokens[name][2])
    assert torch.equal(found.tokens[SPECS[1].name], encoded.tokens[SPECS[1].name])
