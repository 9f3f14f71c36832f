"""What training and scoring per frame cost on cached features: docs/results/frame-speed.md.

python benchmarks/frame_speed.py [--batches 8] [--rounds 3] [--write]     (about five minutes on one core)

The model: LFAN with the published widths on random features of three streams at 25 Hz, from clips as long as MELD's
(those of the development data where it is there, else log-normal lengths with the same mean and median).

- A training step of ours (batches bucketed by length, padded to their longest clip, masked) against the same clips
  padded to 300 frames with copies of the last one, as published; at 32 clips per step and at 2, in turns on one thread.
  Batches of an epoch are drawn in proportion to their frames, so that the mean of their times per frame, times the
  frames of an epoch, is the time of an epoch; ratios of two arms are paired by batch. Reading is left out.
- The loss of a bucketed batch, and of the same batch padded to 300 frames under a mask.
- The windows of 13,700 clips.
- Scoring a recording of one hour in windows: every labelled frame once, and the memory that it takes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import pad

from affuse.core import io
from affuse.core.config import Recipe, make_recipe
from affuse.core.seed import seed_all
from affuse.core.types import Batch
from affuse.corpora.manifest import Corpus, write_corpus
from affuse.corpora.reading.release import seconds
from affuse.models.predict import predict
from affuse.stores.store import import_arrays
from affuse.stores.windows import windows
from affuse.training import binding
from affuse.training.data import Dataset
from affuse.training.loop import Trainer
from affuse.training.sampling import FRAME_BUCKETS, epoch_batches
from affuse.training.train import make_model

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("AFFUSE_SHARED") or ROOT.parent / "shared") / "data"
PAGE = ROOT / "docs" / "results" / "frame-speed.md"
CPU = torch.device("cpu")
RATE, WINDOW, HOP = 25, 12.0, 8.0
FULL = round(RATE * WINDOW)  # frames of a published window
CLIPS, EPOCH = 512, 9988  # clips with features; clips of the published training split
SMALL = 3  # batches of 2 for each of 32
MINUTES = (15, 60)
LABELS = ("neutral", "happy", "surprise", "fear", "angry", "disgust", "sad")
WIDTHS = {"video": 512, "vggish": 128, "bert": 768}
CHANNELS = {"video": [256, 256, 128, 128], "vggish": [64, 64, 32, 32], "bert": [256, 256, 128, 128]}
MODALITY = {"video": "vision", "vggish": "audio", "bert": "text"}


# ---- corpora, data and the model ----------------------------------------------------------------------------------


def clip_lengths(count: int) -> np.ndarray:
    """Frames of `count` clips, the quantiles of MELD's training clips; lengths of 0 s or over 60 s are broken times."""
    path = DATA / "meld_text" / "MELD" / "train_sent_emo.csv"
    if path.is_file():
        table = pd.read_csv(path)
        start, end = (np.array(seconds(table, name), float) for name in ("StartTime", "EndTime"))
        long = end - start
    else:
        long = np.random.default_rng(0).lognormal(np.log(2.46), np.sqrt(2 * np.log(3.14 / 2.46)), EPOCH)
    long = long[(long > 0) & (long <= 60)]
    return np.maximum(1, np.round(RATE * np.quantile(long, (np.arange(count) + 0.5) / count))).astype(int)


def random_corpus(path: Path, lengths: np.ndarray, widths: dict[str, int]) -> Corpus:
    """A clip per length with a class and random features of these widths."""
    rng, offsets = np.random.default_rng(0), np.concatenate([[0], np.cumsum(lengths)])
    ids = [f"c{i:05d}" for i in range(len(lengths))]
    corpus = write_corpus(path, [{"id": n, "label": LABELS[i % 7]} for i, n in enumerate(ids)], "random", "ekman-7")
    for name, width in widths.items():
        values = rng.standard_normal((offsets[-1], width), np.float32)
        import_arrays(corpus.store_path(name), ids, values, offsets, MODALITY[name], RATE)
    return corpus


def recipe_of(size: int = 32, dropout: float = 0.1) -> Recipe:
    """LFAN with the published widths, trained as the recipe meld-lfan does, on windows of 12 s every 8 s."""
    encoders = {name: {"name": "tcn", "channels": c, "dropout": dropout} for name, c in CHANNELS.items()}
    return make_recipe(
        {
            "tasks": {"emotion": {"column": "label", "resolution": "frame", "rate": RATE}},
            "streams": {name: {"encoder": encoder} for name, encoder in encoders.items()},
            "fusion": {"name": "lfan", "dim": 32, "heads": 2, "dropout": dropout, "leader": "video"},
            "objectives": {"frames": {"name": "cross_entropy"}},
            "optim": {"lr": 5e-4, "weight_decay": 0.01, "schedule": "cosine", "warmup": 0.05, "clip": 1.0},
            "train": {"epochs": 30, "batch_size": size, "window": WINDOW, "hop": HOP},
        }
    )


def dataset_of(corpus: Corpus, recipe: Recipe) -> Dataset:
    """All clips of a corpus, whole."""
    return binding.dataset(corpus, recipe, binding.tasks_of(recipe, corpus), np.ones(len(corpus.table), bool))


def trainer_of(corpus: Corpus, folder: Path, size: int = 32, dropout: float = 0.1) -> Trainer:
    """A trainer on the windows of a corpus, ready to make steps."""
    recipe = binding.bind(recipe_of(size, dropout), corpus)
    data = dataset_of(corpus, recipe).windowed(WINDOW, HOP)
    seed_all(0)
    model, losses = make_model(recipe, data, data.tasks)
    trainer = Trainer(model, losses, data, None, recipe, folder, CPU)
    trainer.model.train()
    return trainer


# ---- a training step ----------------------------------------------------------------------------------------------


PER_FRAME = ("mask", "target", "target_mask")


def longer(batch: Batch, length: int = FULL) -> Batch:
    """The batch padded to `length` frames, under its mask."""
    more = length - next(iter(batch.mask.values())).shape[1]
    x = {s: pad(v, (0, 0, 0, more)) for s, v in batch.x.items()}
    rest = {k: {n: pad(v, (0, more)) for n, v in getattr(batch, k).items()} for k in PER_FRAME}
    return replace(batch, x=x, **rest)


def as_published(batch: Batch, length: int = FULL) -> Batch:
    """The batch with `length` frames in every row: copies of the last frame and its label, which count as any other."""
    frames = next(iter(batch.mask.values())).sum(1, keepdim=True)
    at = torch.minimum(torch.arange(length), frames - 1)  # [N, length]
    rows = torch.arange(len(batch)).unsqueeze(1)
    return replace(batch, **{k: {n: v[rows, at] for n, v in getattr(batch, k).items()} for k in ("x", *PER_FRAME)})


def loss_of(trainer: Trainer, batch: Batch) -> float:
    """The loss of a batch in training mode."""
    weight = trainer.losses.total_weight([batch], CPU, lambda total: total)
    return float(trainer._piece(batch, weight, 0, 0)[0])


def padded_frames(batches: list[np.ndarray], lengths: np.ndarray) -> np.ndarray:
    """Frames of every batch with its padding."""
    return np.array([len(rows) * lengths[rows].max() for rows in batches])


def drawn(lengths: np.ndarray, size: int, count: int) -> list[np.ndarray]:
    """`count` batches of an epoch, in proportion to their frames, from short to long."""
    batches = epoch_batches(lengths, size, seed=0, epoch=0, buckets=FRAME_BUCKETS)
    frames = padded_frames(batches, lengths)
    order = np.argsort(frames, kind="stable")
    ends = np.cumsum(frames[order])
    return [batches[order[i]] for i in np.searchsorted(ends, (np.arange(count) + 0.5) / count * ends[-1])]


def step_time(trainer: Trainer, batch: Batch) -> float:
    """Processor milliseconds per frame, padding included, of one training step."""
    started = time.process_time()
    trainer._step([batch], 0)
    return 1000 * (time.process_time() - started) / batch.target["emotion"].numel()


Arm = tuple[str, int]  # ours or published, clips per step
ARMS: list[Arm] = [("ours", 32), ("published", 32), ("ours", 2), ("published", 2)]


def step_times(trainer: Trainer, batches: int, rounds: int) -> dict[Arm, np.ndarray]:
    """Milliseconds per frame of every arm for each drawn batch: the median of `rounds`. Arms and batches take turns."""
    rng, data = np.random.default_rng(0), trainer.train
    rows = {size: drawn(data.lengths, size, batches * n) for size, n in ((32, 1), (2, SMALL))}
    found: dict[Arm, list[np.ndarray]] = {arm: [] for arm in ARMS}
    step_time(trainer, data.batch(rows[32][0]))
    for _ in range(rounds):
        times: dict[Arm, list[float]] = {arm: [] for arm in ARMS}
        for k in range(batches):
            for i in rng.permutation(len(ARMS)):
                way, size = arm = ARMS[i]
                read = [data.batch(r) for r in rows[size][k::batches]]
                each = [step_time(trainer, as_published(b) if way == "published" else b) for b in read]
                times[arm].append(float(np.mean(each)))
        for arm, values in times.items():
            found[arm].append(np.array(values))
    return {arm: np.median(values, axis=0) for arm, values in found.items()}


def window_lengths(clips: np.ndarray) -> np.ndarray:
    """Frames of every window of clips of these frames."""
    made = windows(clips, FULL, round(HOP * RATE))
    return made.end - made.start


def epoch_frames(lengths: np.ndarray) -> dict[Arm, int]:
    """Frames, padding included, of an epoch of windows of these frames, by arm."""
    batches = {size: epoch_batches(lengths, size, 0, 0, buckets=FRAME_BUCKETS) for size in (32, 2)}
    own = {size: int(padded_frames(drawn, lengths).sum()) for size, drawn in batches.items()}
    return {(way, size): own[size] if way == "ours" else FULL * len(lengths) for way, size in ARMS}


@dataclass(frozen=True)
class Ratio:
    """How many times faster one arm is than another, with the 95 % interval of batches drawn in pairs."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def ratio(times: dict[Arm, np.ndarray], frames: dict[Arm, int], slow: Arm, fast: Arm) -> Ratio:
    """Time of an epoch of one arm over that of another."""
    pair = np.stack([times[arm] * frames[arm] for arm in (slow, fast)], 1)  # [batches, 2]
    draws = np.random.default_rng(0).choice(pair, (5000, len(pair))).mean(1)
    low, high = np.quantile(draws[:, 0] / draws[:, 1], [0.025, 0.975])
    return Ratio(float(pair[:, 0].mean() / pair[:, 1].mean()), float(low), float(high))


def loss_difference(corpus: Corpus, folder: Path) -> float:
    """The largest difference between the loss of a bucketed batch and of the same batch padded to 300 frames."""
    trainer = trainer_of(corpus, folder, dropout=0.0)
    batches = [trainer.train.batch(rows) for rows in drawn(trainer.lengths, 32, 3)]
    return max(abs(loss_of(trainer, b) - loss_of(trainer, longer(b))) for b in batches)


# ---- windows and scoring ------------------------------------------------------------------------------------------


def window_seconds(folder: Path, count: int = 13_700) -> tuple[int, float]:
    """(windows, processor seconds) of cutting `count` clips, whose features are one number per frame."""
    corpus = random_corpus(folder, clip_lengths(count), dict.fromkeys(CHANNELS, 1))
    data = dataset_of(corpus, binding.bind(recipe_of(), corpus))
    started = time.process_time()
    found = data.windowed(WINDOW, HOP)
    return len(found), time.process_time() - started


def score(corpus: Corpus) -> dict[str, float]:
    """Score the one recording of a corpus in windows: how often each label counts, MB more than before, seconds."""
    recipe = binding.bind(recipe_of(), corpus)
    whole = dataset_of(corpus, recipe)
    data = whole.windowed(WINDOW, HOP, scored=True)
    model, _ = make_model(recipe, data, data.tasks)
    before, started = restart_peak(), time.process_time()
    found = predict(model, data, CPU)["emotion"]
    more, took = memory("VmHWM") - before, time.process_time() - started
    known = data.labels("emotion")[1].numpy()
    scored, labelled = data.frame_numbers("emotion")[known], int(whole.frames("emotion").sum())
    once = len(found) == len(known) and np.array_equal(np.sort(scored), np.arange(labelled))
    return {"frames": labelled, "once": once, "more_mb": more, "seconds": took}


def restart_peak() -> float:
    """Resident MB now, from which Linux counts the peak again."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(name: str) -> float:
    """A number of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def scored_minutes(folder: Path, minutes: int) -> dict[str, float]:
    """`score` of a recording of so many minutes, in a process of its own."""
    random_corpus(folder, np.array([60 * RATE * minutes]), WIDTHS)
    command = [sys.executable, __file__, "--score", str(folder)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


# ---- the page -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """All that the page tells."""

    clips: np.ndarray  # frames of every clip of an epoch
    times: dict[Arm, np.ndarray]  # ms per frame of every drawn batch
    frames: dict[Arm, int]  # of an epoch
    difference: float  # of losses
    cut: tuple[int, float]  # windows, seconds
    scored: dict[int, dict[str, float]]  # by minutes


def measure(batches: int, rounds: int) -> Measured:
    """Everything in one run; random features lie in a temporary folder."""
    clips = clip_lengths(EPOCH)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = random_corpus(folder / "clips", clip_lengths(CLIPS), WIDTHS)
        times = step_times(trainer_of(corpus, folder / "run"), batches, rounds)
        difference = loss_difference(corpus, folder / "other")
        cut = window_seconds(folder / "many")
        scored = {minutes: scored_minutes(folder / f"{minutes}", minutes) for minutes in MINUTES}
    return Measured(clips, times, epoch_frames(window_lengths(clips)), difference, cut, scored)


def machine() -> str:
    """Processor and versions."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, one thread, Python {platform.python_version()}, torch {torch.__version__}"


def page(m: Measured, command: str) -> str:
    """Machine, command and numbers."""
    return "\n".join(["# Speed per frame", "", f"`{command}` on {machine()}.", "", *_steps(m), "", *_scoring(m)]) + "\n"


def _steps(m: Measured) -> list[str]:
    clips, batches = m.clips / RATE, len(m.times["ours", 32])
    return [
        f"LFAN with the published widths (5.0 M weights) on random features of {len(m.clips):,} clips: mean "
        f"{clips.mean():.2f} s, median {np.median(clips):.2f} s, {(m.clips > FULL).mean():.1%} over {FULL} frames "
        f"of {RATE} Hz. Ours: batches bucketed by length, padded to their longest clip, masked. Published: every "
        f"window padded to {FULL} frames with copies of the last one. Processor time of {batches} training steps per "
        f"arm (forward, backward, update; at 2 clips {SMALL} in each place), drawn in proportion to their frames; arms "
        "in turns, medians over the rounds.",
        "",
        *_arms(m),
        "",
        *_ratios(m),
        "",
        _limit(m),
        "",
        f"The loss of a bucketed batch and of the same batch padded to {FULL} frames under a mask differ by "
        f"{m.difference:.0e} at most.",
    ]


def _arms(m: Measured) -> list[str]:
    named = {"ours": "bucketed, masked", "published": f"all {FULL} frames"}
    rows = []
    for (way, size), times in m.times.items():
        cost, frames = times.mean(), m.frames[way, size]
        rows.append(f"| {named[way]} | {size} | {cost:.3f} | {frames:,} | {cost * frames / 1000:.0f} |")
    head = "| batches | clips per step | ms per frame | frames per epoch | s per epoch |"
    return [head, "|---|---|---|---|---|", *rows]


def _ratios(m: Measured) -> list[str]:
    pairs: list[tuple[str, Arm, Arm, str]] = [
        ("32 clips per step", ("published", 32), ("ours", 32), "3.2"),
        ("2 clips per step", ("published", 2), ("ours", 2), ""),
        ("ours at 32, published at 2", ("published", 2), ("ours", 32), "4"),
    ]
    rows = [f"| {name} | {ratio(m.times, m.frames, slow, fast)} | {least} |" for name, slow, fast, least in pairs]
    return ["| an epoch of | times faster [95 % interval, paired] | wanted |", "|---|---|---|", *rows]


def _limit(m: Measured) -> str:
    """What padding alone allows, and what a frame costs in short and in long batches."""
    lengths, whole = window_lengths(m.clips), m.frames["published", 32]
    own = whole / m.frames["ours", 32]
    cost = m.times["ours", 32].mean() / m.times["published", 32].mean()
    return (
        f"The limit: without any padding an epoch has {whole / lengths.sum():.2f} times fewer frames; batches of 32 "
        f"sorted by length, {FRAME_BUCKETS} at a time, have {own:.2f} times fewer, and each of their frames takes "
        f"{cost:.2f} times as long as a frame of batches of {FULL} frames."
    )


def _scoring(m: Measured) -> list[str]:
    count, took = m.cut
    rows = [
        f"| {minutes} | {s['frames']:,} | {'yes' if s['once'] else 'no'} | {s['more_mb']:.0f} | {s['seconds']:.0f} |"
        for minutes, s in m.scored.items()
    ]
    few, many = (m.scored[minutes]["more_mb"] for minutes in MINUTES)
    return [
        f"13,700 clips become {count:,} windows in {took:.2f} s (wanted: under 1 s).",
        "",
        f"One recording scored in windows of {WINDOW:.0f} s every {HOP:.0f} s; memory: the peak of resident memory "
        f"over what is resident before, {many / few:.2f} times as much for the longer one (wanted: at most 1.5).",
        "",
        "| minutes | labelled frames | each scored once | MB | s |",
        "|---|---|---|---|---|",
        *rows,
    ]


def main() -> int:
    """Measure everything, print the page, and write it where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=8, help="of every arm")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed")
    parser.add_argument("--write", action="store_true", help="write docs/results/frame-speed.md")
    parser.add_argument("--score", type=Path, help=argparse.SUPPRESS)  # the process of scored_minutes
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.score:
        print(json.dumps(score(Corpus.open(given.score))))
        return 0
    command = f"python benchmarks/frame_speed.py --batches {given.batches} --rounds {given.rounds}"
    text = page(measure(given.batches, given.rounds), command)
    print(text)
    if given.write:
        io.write_text(PAGE, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
