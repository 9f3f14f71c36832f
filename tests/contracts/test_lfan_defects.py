"""A test per known defect of the published frame-level system: each fails where affuse has that defect.

The numbers are those of the list of defects that came with the system's description.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor, nn

from affuse.core import io, registry, run_files
from affuse.core.config import make_recipe
from affuse.core.labels import SPACES, LabelSpace
from affuse.core.parts import Computed, Part
from affuse.core.seed import seed_all
from affuse.core.tasks import Task
from affuse.core.types import Batch, Encoded, StreamSpec
from affuse.corpora.extraction.clips import clips_of
from affuse.corpora.manifest import Corpus, write_corpus
from affuse.evaluation.predictions import Predictions
from affuse.evaluation.protocol import score_all
from affuse.features import vggish
from affuse.features.face_crops import FaceCrops
from affuse.media.clip import Clip
from affuse.media.tracks import Track
from affuse.media.video import frame_times
from affuse.media.write import write_clip
from affuse.metrics import metric, value
from affuse.models.build import Architecture
from affuse.models.encoders.tcn import convolution
from affuse.models.model import Model
from affuse.models.predict import at_labels, pooled_predictions
from affuse.models.saved import describe, load_model
from affuse.reporting.submissions.challenges import CHALLENGES
from affuse.stores.label_track import LabelTrack
from affuse.stores.store import FeatureStore, StoreWriter, import_arrays, store_card
from affuse.training import binding
from affuse.training import train as training
from affuse.training.data import Dataset
from affuse.training.loop import Trainer
from affuse.training.optim import make_optimizer
from tests.contracts.corpora import make_corpus

FUSIONS = {"lfan": {"dim": 4, "dropout": 0.0}, "can": {"dim": 4}, "joint_cross_attention": {"dim": 4, "hidden": 8}}
STREAMS = ("audio_steps", "vision_steps")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """Forty utterances with two streams of 10 Hz and a label track of 5 Hz."""
    return make_corpus(tmp_path_factory.mktemp("lfan") / "corpus", same_rate=True)


def make_trainer(corpus: Corpus, folder: Path, fusion: str = "lfan", **changes: Any) -> Trainer:
    """A Trainer of a small frame-level model: utterances 0 to 23 train, 24 to 31 select; `changes` per section."""
    encoder = {"name": "tcn", "channels": [8, 8], "kernel": 3, "dropout": 0.0} | changes.pop("encoder", {})
    streams = {s: {"encoder": encoder} for s in STREAMS}
    for name, options in changes.pop("streams", {}).items():
        streams[name] = streams[name] | options
    values: dict[str, Any] = {
        "streams": streams,
        "fusion": {"name": fusion, **FUSIONS[fusion]},
        "tasks": {"emotion": {"resolution": "frame", "track": "expression"}},
        "optim": {"lr": 0.02, **changes.pop("optim", {})},
        "train": {"epochs": 2, "batch_size": 8, **changes.pop("train", {})},
    }
    recipe = binding.bind(make_recipe(values), corpus)
    seed_all(0)
    tasks, at = binding.tasks_of(recipe, corpus), np.arange(len(corpus))
    train, valid = (binding.dataset(corpus, recipe, tasks, (at >= a) & (at < b)) for a, b in ((0, 24), (24, 32)))
    model, losses = training.make_model(recipe, train, tasks)
    return Trainer(model, losses, train, valid, recipe, folder, torch.device("cpu"))


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two states are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---- 1, 2, 12, 16: training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_defect_01_the_learning_rate_is_really_applied(corpus, tmp_path, name):
    """The published optimisers were made without `lr`. A gradient of 1 moves a parameter by its rate."""
    optim = {"name": name, "lr": 0.037, "weight_decay": 0.0}
    trainer = make_trainer(corpus, tmp_path, streams={"audio_steps": {"lr": 0.25}}, optim=optim)
    optimizer = make_optimizer(trainer.model, trainer.state.auxiliary, trainer.recipe)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    for p in trainer.model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert {g["lr"] for g in optimizer.param_groups} == {0.037, 0.037 * 0.25}
    assert {g["initial_lr"] for g in trainer.state.optimizer.param_groups} == {0.037, 0.037 * 0.25}
    for n, p in trainer.model.named_parameters():
        rate = 0.037 * (0.25 if n.startswith("encoders.audio_steps.") else 1.0)
        torch.testing.assert_close(before[n] - p.detach(), torch.full_like(p, rate), rtol=1e-3, atol=1e-6)


def test_defect_02_frozen_modules_keep_their_buffers_and_have_no_dropout(corpus, tmp_path):
    """The published backbone had frozen weights, but ran in training mode."""
    trainer = make_trainer(corpus, tmp_path, encoder={"dropout": 0.5}, streams={"vision_steps": {"frozen": True}})
    frozen, trained = (trainer.model.encoders[s] for s in ("vision_steps", "audio_steps"))
    before, other = copied(frozen), copied(trained)
    trainer.run()
    assert same(before, copied(frozen))
    assert not torch.equal(other["norm.running_mean"], trained.norm.running_mean)
    trainer.model.train()
    x, mask = torch.randn(3, 9, 6), torch.ones(3, 9, dtype=torch.bool)
    assert torch.equal(frozen(x, mask).tokens, frozen(x, mask).tokens)
    assert not torch.equal(trained(x, mask).tokens, trained(x, mask).tokens)


def test_defect_12_weight_norm_keeps_its_initialisation():
    """The published Xavier weights were overwritten by the first forward pass."""
    torch.manual_seed(0)
    conv = convolution(48, 24, 5, 1)
    plain, first = (6 / (5 * (48 + 24))) ** 0.5, conv.weight.detach().clone()  # the bound of Xavier-uniform numbers
    assert 0.95 * plain < first.abs().max() <= plain
    assert first.std() == pytest.approx(plain / 3**0.5, rel=0.05)
    optimizer = torch.optim.SGD(conv.parameters(), lr=1e-4)
    conv(torch.randn(2, 48, 9)).square().mean().backward()
    torch.testing.assert_close(conv.weight, first)
    optimizer.step()
    conv(torch.randn(2, 48, 9))
    moved = (conv.weight - first).abs().max()
    assert 0 < moved < 1e-3


def test_defect_16_best_weights_are_on_disk_when_a_run_is_interrupted_and_it_resumes(corpus, tmp_path):
    """The published best weights were in memory until the last epoch, and resuming did nothing."""
    options = {"train": {"epochs": 5, "unfreeze": {"encoders.audio_steps.*": 4}}}
    straight, stopped = (make_trainer(corpus, tmp_path / name, **options) for name in ("straight", "stopped"))
    straight.run()
    scored: list[dict[str, Tensor]] = []

    def stop(row: dict[str, Any]) -> None:
        if "step" not in row:
            scored.append(copied(stopped.model))
        if row["epoch"] == 3 and row.get("step") == 2:
            raise KeyboardInterrupt

    stopped.report = stop
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    saved = io.read_tensors(tmp_path / "stopped" / run_files.CHECKPOINT)
    best = {name.removeprefix("best."): v for name, v in saved.items() if name.startswith("best.")}
    rows = io.read_jsonl(tmp_path / "stopped" / run_files.METRICS)
    uar = [row["valid"]["uar"] for row in rows]
    assert len(rows) == 2
    assert same(best, scored[int(np.argmax(uar))])
    resumed = make_trainer(corpus, tmp_path / "stopped", **options)
    epochs: list[int] = []
    resumed.report = lambda row: None if "step" in row else epochs.append(row["epoch"])
    resumed.run()
    assert epochs == [3, 4, 5]
    assert same(copied(straight.model), copied(resumed.model))


def test_defect_16_early_stopping_and_unfreezing_act(corpus, tmp_path):
    """Both were options of the published system that nothing read."""
    still = {"optim": {"lr": 0.0}, "encoder": {"norm": "none"}, "train": {"epochs": 9, "patience": 2}}
    trainer = make_trainer(corpus, tmp_path / "a", **still)
    assert trainer.run().epoch == 3  # nothing gets better: the first epoch is the best one
    name = "encoders.audio_steps."
    trainer = make_trainer(corpus, tmp_path / "b", train={"epochs": 3, "unfreeze": {name + "*": 3}})
    states: list[dict[str, Tensor]] = []

    def keep(row: dict[str, Any]) -> None:
        if "step" not in row:
            states.append({k: v for k, v in copied(trainer.model).items() if k.startswith(name + "levels")})

    trainer.report = keep
    trainer.run()
    assert same(states[0], states[1]) and not same(states[1], states[2])


# ---- 3, 6, 10, 15: models ---------------------------------------------------------------------------------------


def test_defect_03_joint_attention_never_mixes_samples_and_all_six_pairs_have_gradient():
    """The published attention ran over all samples, and five of six cross-attentions had no effect."""
    torch.manual_seed(0)
    dims = {"video": 8, "sound": 4}
    options = registry.resolve("fusions", "joint_cross_attention", {"dim": 4, "hidden": 8}, "fusion")
    fusion = registry.build("fusions", "joint_cross_attention", dims, **options)
    tokens = {s: torch.randn(3, 5, d, requires_grad=True) for s, d in dims.items()}
    mask = dict.fromkeys(dims, torch.ones(3, 5, dtype=torch.bool))
    t0 = dict.fromkeys(dims, torch.zeros(3, dtype=torch.float64))
    given = Encoded(tuple(dims), tokens, mask, {}, torch.ones(3, 2, dtype=torch.bool), dict.fromkeys(dims, 5.0), t0)
    fused = fusion(given)
    for grad in torch.autograd.grad(fused.tokens[0].square().sum(), list(tokens.values()), retain_graph=True):
        assert grad[0].any() and not grad[1:].any()
    fused.tokens.square().sum().backward()
    assert len(fusion.cross) == 6
    pairs = fusion.cross.values()
    assert all(p.grad.any() for layer in pairs for n, p in layer.named_parameters() if n.endswith("weight"))


def padded(batch: Batch, more: int) -> Batch:
    """The batch with `more` steps of padding in every stream, and as many labels that are unknown."""

    def longer(x: Tensor) -> Tensor:
        return torch.cat([x, x.new_zeros(x.shape[0], more, *x.shape[2:])], 1)

    parts = ("x", "mask", "target", "target_mask")
    return replace(batch, **{k: {n: longer(v) for n, v in getattr(batch, k).items()} for k in parts})


@torch.no_grad()
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_defect_06_padding_changes_neither_loss_nor_scores_nor_the_answer(corpus, tmp_path, fusion, mode):
    """The published system padded to 300 frames by copies of the last one, which counted everywhere."""
    trainer = make_trainer(corpus, tmp_path, fusion, encoder={"causal": False})
    for p in trainer.model.parameters():
        p.data += 0.3 * torch.randn_like(p)  # biases too: padding must not become their values
    trainer.model.train(mode)
    found: list[tuple[Tensor, ...]] = []
    batch = trainer.train.batch([0, 1, 2, 3, 4])
    for given in (batch, padded(batch, 23)):
        encoded = trainer.model.encode(given)
        output = trainer.model.fuse(encoded, given)
        weight = trainer.losses.total_weight([given], torch.device("cpu"), lambda x: x)
        scores = at_labels(output, given)
        terms = trainer.losses.terms(scores, given, Computed(trainer.model, encoded), weight)
        known = given.target_mask["emotion"]
        pooled = pooled_predictions(trainer.model.tasks, output)["emotion"]
        found.append((torch.stack(list(terms.values())), scores.logits["emotion"][known], pooled))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def frame_model(streams: tuple[StreamSpec, ...], tasks: dict[str, Task]) -> Model:
    torch.manual_seed(0)
    options = registry.resolve("encoders", "tcn", {"channels": [4, 4], "kernel": 3, "dropout": 0.0}, "encoder")
    fusion = Part("lfan", registry.resolve("fusions", "lfan", {"dim": 4}, "fusion"))
    return Model(Architecture({s.name: Part("tcn", options) for s in streams}, fusion), streams, tasks).eval()


A, B = StreamSpec("a", "audio", (3,), 5.0), StreamSpec("b", "vision", (5,), 5.0)
TWO = {"frames": Task("frames", SPACES["iemocap-4"], "frame"), "affect": Task("affect", SPACES["va"], "frame")}


@pytest.mark.parametrize("steps", [1, 2, 7, 301])
@pytest.mark.parametrize("streams", [(A, B), (B, A)], ids=["a b", "b a"])
@pytest.mark.parametrize("order", [("frames", "affect"), ("affect", "frames")], ids=["classes first", "values first"])
def test_defect_10_any_length_and_order_works_and_the_batch_stays(steps, streams, order):
    """The published model wrote into its input, needed 300 frames, and the labels as the last stream."""
    model = frame_model(streams, {name: TWO[name] for name in order})
    x = {s.name: torch.randn(2, steps, *s.shape) for s in streams}
    mask = {s.name: torch.ones(2, steps, dtype=torch.bool) for s in streams}
    unknown = {name: torch.zeros(2, steps, dtype=torch.bool) for name in TWO}
    batch = Batch(streams, x, mask, torch.ones(2, 2, dtype=torch.bool), target_mask=unknown, grid={"frames": 5.0})
    before = deepcopy(batch)
    output = at_labels(model(batch), batch)
    assert output.logits["frames"].shape == (2, steps, 4)
    assert output.logits["affect"].shape == (2, steps, 2)
    for part in ("x", "mask", "target_mask"):
        now, then = getattr(batch, part), getattr(before, part)
        assert list(now) == list(then) and all(torch.equal(now[n], then[n]) for n in then)
    assert torch.equal(batch.present, before.present) and batch.grid == before.grid


@pytest.mark.parametrize("place", [0, 3, 7])
def test_defect_15_other_may_stand_anywhere(tmp_path, place):
    """`Other` was class 7 of 8 in the published code, whatever the corpus said."""
    labels = [*SPACES["compound-7"].labels]
    labels.insert(place, "other")
    rows = [{"id": f"u{k}", "source": f"s{k}", "label": label} for k, label in enumerate(labels)]
    own = write_corpus(tmp_path / "c", rows, "mine", LabelSpace("mine", tuple(labels)), tracks={"expression": labels})
    import_arrays(own.store_path("v"), [r["id"] for r in rows], np.random.rand(16, 3), np.arange(0, 17, 2), "vision", 5)
    steps = np.arange(8.0).repeat(2)[:, None]
    import_arrays(own.annotation_path("expression"), [r["id"] for r in rows], steps, np.arange(0, 17, 2), "vision", 5)
    recipe = {
        "streams": {"v": {"encoder": {"name": "mlp", "hidden": 4}}},
        "fusion": "framewise",
        "tasks": {"emotion": {"resolution": "frame", "track": "expression"}},
    }
    bound = binding.bind(make_recipe(recipe), own)
    tasks = binding.tasks_of(bound, own)
    data = binding.dataset(own, bound, tasks, np.ones(8, bool))
    model, _ = training.make_model(bound, data, tasks)
    task = model.tasks["emotion"]
    assert model.heads["emotion"].out_features == len(task) == 8
    assert task.space.labels == tuple(labels) and task.space.labels[place] == "other"
    named = [task.space.labels[k] for k in data.labels("emotion")[0]]
    assert named == [label for label in labels for _ in range(2)]
    turned = LabelTrack(FeatureStore(own.annotation_path("expression")), labels[::-1]).frames("u0", task)
    assert task.space.labels[turned[0][0]] == labels[-1]
    challenge, likely = CHALLENGES["abaw-compound"], np.eye(8)[[labels.index("sadly angry")]] * 0.4
    likely[0, place] = 0.6  # no class of the challenge
    assert challenge.rows(task, likely) == [(6.0,)]


# ---- 5, 8: scores -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["mean_probabilities", "mean_logits", "vote"])
def test_defect_05_half_precision_logits_above_12_have_finite_probabilities(how):
    """exp of a half-precision 12 is infinite: one confident frame decided the published mean."""
    task = Task("emotion", SPACES["iemocap-4"], "frame", how)
    logits = torch.tensor([[0.0, 20.0, 1.0, 0.0], *[[3.0, 0.0, 0.0, 0.0]] * 4, [60.0, -60.0, 0.0, 13.0]])
    half = logits.half()
    exact = logits.double().softmax(-1)
    assert torch.isfinite(task.predict(half)).all()
    torch.testing.assert_close(task.predict(half).double(), exact, rtol=1e-3, atol=1e-6)
    frames = task.pooled(half[None], torch.ones(1, 6, dtype=torch.bool))[0].double()
    expected = task.from_frames(exact.numpy(), np.zeros(6, int))[0]
    np.testing.assert_allclose(frames, expected, rtol=1e-3, atol=1e-5)
    stored = task.from_frames(exact.half().numpy(), np.zeros(6, int))[0]
    assert np.isfinite(stored).all() and stored.argmax() == expected.argmax() == 0
    if how == "mean_probabilities":
        np.testing.assert_allclose(stored, exact.mean(0), atol=1e-3)


def test_defect_08_an_absent_class_shifts_no_name():
    """Published scores had as many classes as occurred, so that later names stood beside other numbers."""
    task = Task("emotion", LabelSpace("mine", ("a", "b", "c", "d", "e")))  # nothing is, or is called, b or e
    truth = np.array([0, 0, 2, 2, 3, 3, 3])
    predicted = np.eye(5)[[0, 2, 2, 2, 3, 3, 0]]
    rows = [{"id": f"u{k}", "speaker": f"s{k}", "source": f"s{k}", "fold": 0} for k in range(7)]
    found = Predictions(pd.DataFrame(rows), truth, {("audio",): predicted}, np.eye(5)[[3] * 7], task, ("audio",))
    counts = metric("macro_f1").statistics(truth, predicted).sum(0).reshape(5, 5)
    each = f1_score(truth, predicted.argmax(1), labels=range(5), average=None, zero_division=0)
    assert counts[2, 2] == 2 and counts[3, 3] == 2 and not counts[[1, 4]].any() and not counts[:, [1, 4]].any()
    details = score_all(found, "source")["per_class"]
    assert [row["label"] for row in details] == list("abcde")
    np.testing.assert_allclose([row["f1"] for row in details], each)
    assert [row["support"] for row in details] == [2, 0, 2, 3, 0]
    for name, average in (("macro_f1", "macro"), ("weighted_f1", "weighted")):
        expected = f1_score(truth, predicted.argmax(1), average=average, zero_division=0)
        assert value(name, truth, predicted) == pytest.approx(expected)


# ---- 7, 11, 17: data --------------------------------------------------------------------------------------------


def test_defect_07_statistics_are_of_the_training_split_and_go_with_the_model(corpus, tmp_path):
    """Published statistics were over train and validation, and were made again on the data that were scored."""
    trainer = make_trainer(corpus, tmp_path, train={"epochs": 1})
    trainer.run()
    again = load_model(describe(trainer.model), trainer.model.state_dict())
    for stream in STREAMS:
        store = FeatureStore(corpus.store_path(stream))
        rows = [store.get(i).values for i in corpus.table["id"] if i in store and i < "u024"]
        every = [store.get(i).values for i in corpus.table["id"] if i in store and i < "u032"]
        expected, leaked = (torch.from_numpy(np.concatenate(v)).double() for v in (rows, every))
        fitted = again.encoders[stream].standardise
        torch.testing.assert_close(fitted.mean.double(), expected.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fitted.std.double(), expected.std(0, correction=0), rtol=1e-4, atol=1e-5)
        assert (fitted.mean.double() - leaked.mean(0)).abs().max() > 1e-3


@pytest.mark.parametrize("frames", [6, 1])
def test_defect_11_labels_stay_when_their_number_is_the_batch_size(tmp_path, frames):
    """Published labels became zeros where a clip had as many of them as the batch had clips."""
    rows = [{"id": f"u{k}", "source": f"s{k}", "label": "sad"} for k in range(6)]
    own = write_corpus(tmp_path / "c", rows, "six", "iemocap-4")
    ids, offsets = [r["id"] for r in rows], np.arange(7) * frames
    rng = np.random.default_rng(0)
    classes = rng.integers(1, 4, (6 * frames, 1))  # never class 0
    for stream in STREAMS:
        import_arrays(own.store_path(stream), ids, rng.normal(size=(6 * frames, 6)), offsets, "audio", 10)
    import_arrays(own.annotation_path("expression"), ids, classes.astype(float), offsets, "vision", 10)
    recipe = make_recipe(
        {
            "streams": {s: {"encoder": {"name": "mlp", "hidden": 4}} for s in STREAMS},
            "fusion": "framewise",
            "tasks": {"emotion": {"resolution": "frame", "track": "expression"}},
            "train": {"epochs": 1, "batch_size": 6},
        }
    )
    bound = binding.bind(recipe, own)
    data = binding.dataset(own, bound, binding.tasks_of(bound, own), np.ones(6, bool))
    model, losses = training.make_model(bound, data, data.tasks)
    seen: list[tuple[list[str], Tensor, Tensor]] = []

    def note(module: nn.Module, given: tuple[Any, ...]) -> None:
        seen.append((given[1].id, given[1].target["emotion"], given[1].target_mask["emotion"]))

    next(iter(losses.values())).register_forward_pre_hook(note)
    Trainer(model, losses, data, None, bound, tmp_path / "run", torch.device("cpu")).run()
    expected = dict(zip(ids, classes.reshape(6, frames).tolist(), strict=True))
    (batch,) = seen
    assert sorted(batch[0]) == ids and batch[2].all()
    assert batch[1].tolist() == [expected[name] for name in batch[0]]


@pytest.mark.parametrize("rate", [0.0, 10.0])
def test_defect_17_corpora_of_other_frame_rates_have_the_same_windows_in_seconds(tmp_path, rate):
    """300 frames were 12.5 s of one corpus and 10 s of another."""
    lengths: dict[float, list[tuple[float, float]]] = {}
    for fps in (24.0, 30.0):
        n = round(5 * fps)
        store = import_arrays(tmp_path / f"{fps}" / "v", ["u"], np.random.rand(n, 3), np.array([0, n]), "vision", fps)
        rows = write_corpus(tmp_path / f"c{fps}", [{"id": "u"}], "c", "iemocap-4").table
        data = Dataset(rows, {"v": store.at(rate)}, {}, {}).windowed(2.0, 1.0)
        batch = data.batch(range(len(data)))
        assert batch.mask["v"].sum(1).tolist() == [2.0 * (rate or fps)] * 4
        assert data.cuts is not None
        lengths[fps] = list(zip(data.cuts.start.tolist(), data.cuts.end.tolist(), strict=True))
    assert lengths[24.0] == lengths[30.0] == [(0, 2), (1, 3), (2, 4), (3, 5)]


# ---- 4, 9, 13, 14: sound and pictures ---------------------------------------------------------------------------


def test_defect_04_no_example_of_vggish_is_lost_or_repeated(tmp_path, monkeypatch):
    """Published vectors were read back without the first one, and with the last one twice."""
    soundfile = pytest.importorskip("soundfile")
    rng = np.random.default_rng(0)
    sound = (np.linspace(0.05, 0.5, 48000) * rng.uniform(-1, 1, 48000)).astype(np.float32)  # it gets louder
    soundfile.write(tmp_path / "a.wav", sound, 16000, subtype="FLOAT")
    monkeypatch.setattr(vggish, "embed", lambda made, x: x.mean((1, 2))[:, None].expand(-1, 128))
    extractor = vggish.VGGish(hop=0.2)
    extractor.__dict__["_network"] = None
    found = extractor(Clip(audio=tmp_path / "a.wav"))
    with StoreWriter(tmp_path / "s", store_card(extractor.spec, "imported", 1, {})) as writer:
        writer.add("a", found)
    stored = FeatureStore(tmp_path / "s").get("a")
    whole = 1 + int((3.0 - 0.96) / 0.2)  # examples that lie in the sound
    expected = [vggish.log_mel(sound[k * 3200 : k * 3200 + 15600]).mean() for k in range(whole)]
    np.testing.assert_allclose(stored.values[:whole, 0], expected, atol=1e-4)
    assert len(stored.values) == 1 + int((3.0 - 0.48) / 0.2)
    assert stored.t0 == pytest.approx(0.48)  # the middle of the example that begins at 0 s
    assert len(np.unique(stored.values[:, 0])) == len(stored.values)


def test_defect_09_bright_pixels_survive(tmp_path):
    """Published crops went through int8: pixels above 127 became negative."""
    crops = FaceCrops(size=16)
    points = np.float32([[[38, 40], [62, 40], [50, 52], [40, 64], [60, 64]]]).repeat(3, 0)
    pictures = [np.full((96, 96, 3), level, np.uint8) for level in (100, 200, 255)]
    views = crops._look(pictures, points, np.arange(3))
    track = Track(0, np.arange(3), np.float32([[30, 30, 70, 70]] * 3), points, np.ones(3), views)
    write_clip(tmp_path / "v.mp4", pictures, 5.0)
    made = crops.feature(Clip(tmp_path / "v.mp4"), [track])
    with StoreWriter(tmp_path / "face_crops", store_card(crops.spec, "face_crops", 2, {})) as writer:
        writer.add("u", made)
    store = FeatureStore(tmp_path / "face_crops")
    assert store.get("u").values.dtype == np.uint8
    rows = write_corpus(tmp_path / "c", [{"id": "u"}], "c", "iemocap-4").table
    seen = Dataset(rows, {"face_crops": store}, {}, {}).batch([0]).x["face_crops"][0, :, 8, 8]
    torch.testing.assert_close(seen, torch.tensor([100, 200, 255]).view(3, 1).expand(3, 3) / 255)


def numbered(n: int, side: int = 64) -> list[np.ndarray]:
    """Pictures of eight columns, black or white: each says in binary which one it is."""
    bits = [np.array([230 if k >> b & 1 else 20 for b in range(8)], np.uint8).repeat(side // 8) for k in range(n)]
    return [np.broadcast_to(row[None, :, None], (side, side, 3)) for row in bits]


def number_of(image: np.ndarray) -> int:
    columns = image.reshape(image.shape[0], 8, -1, 3).mean(axis=(0, 2, 3)) > 125
    return int((columns << np.arange(8)).sum())


def write_one_key_frame(path: Path, pictures: list[np.ndarray]) -> None:
    """An MP4 of 25 pictures per second, of which only the first is a key frame."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.options = {"crf": "10", "g": "500", "sc_threshold": "0"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))


def test_defect_13_a_clip_is_cut_by_time_and_not_at_key_frames(tmp_path):
    """Published clips were copied from key frame to key frame, and their length was what the container said."""
    write_one_key_frame(tmp_path / "v.mp4", numbered(100))
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert sum(p.is_keyframe for p in container.demux(video=0) if p.size) == 1
    rows = [
        {"id": f"u{k}", "source": "v", "video": str(tmp_path / "v.mp4"), "start": a, "end": b}
        for k, (a, b) in enumerate([(0.0, 0.4), (1.2, 2.4), (3.6, 4.0), (0.0, float("nan"))])
    ]
    clips = [clip for _, clip in clips_of(write_corpus(tmp_path / "c", rows, "c", "iemocap-4"))]
    shown = [[number_of(frame.image) for frame in clip.frames(25.0)] for clip in clips]
    assert shown == [list(range(10)), list(range(30, 60)), list(range(90, 100)), list(range(100))]
    assert [clip.steps(25.0) for clip in clips] == [10, 30, 10, len(frame_times(tmp_path / "v.mp4"))]


def test_defect_14_a_step_without_a_face_is_not_valid_and_not_a_stale_crop(shared_data, tmp_path):
    """Published crops of a missing face were those of the step before, or the whole picture, with no mark."""
    crops = FaceCrops(fps=4.0)
    leaves, empty = (crops(Clip(shared_data / "av_clips" / f"pyfeat__{n}")) for n in ("face_noface.mov", "no_face.mp4"))
    assert leaves.valid is not None and 0 < leaves.valid.sum() < len(leaves.valid)
    assert leaves.values[leaves.valid].any() and not leaves.values[~leaves.valid].any()
    assert len(empty.values) and empty.coverage == 0
    with StoreWriter(tmp_path / "face_crops", store_card(crops.spec, "face_crops", 2, {})) as writer:
        writer.add("leaves", leaves)
        writer.add("empty", empty)
    rows = write_corpus(tmp_path / "c", [{"id": "leaves"}, {"id": "empty"}], "c", "iemocap-4").table
    batch = Dataset(rows, {"face_crops": FeatureStore(tmp_path / "face_crops")}, {}, {}).batch([0, 1])
    steps = len(leaves.valid)
    assert batch.mask["face_crops"][0, :steps].tolist() == leaves.valid.tolist()
    assert batch.present[:, 0].tolist() == [True, False]
    assert not batch.x["face_crops"][~batch.mask["face_crops"]].any()
