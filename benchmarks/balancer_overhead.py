"""What balancers cost: milliseconds per training step more than plain training, docs/results/balancer-overhead.md.

python benchmarks/balancer_overhead.py [--steps 200] [--arms ogm mlb ...] [--page FILE]     (a quarter of an hour; one
JSON line, exit 1 where ogm, mlb, mslr or opm cost more than 10 %)

The model of the recipe composite-av (log-mel CRNN and RepVGG from scratch, late fusion, batch 16) on random clips of
the real shapes. All balancers take turns batch by batch in one process on one thread, in a new order every time; what
counts is processor time, and each batch is compared with the same batch of plain training. What a method does once per
epoch is timed by itself and shared out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from affuse.balance.balancer import Epoch
from affuse.core import io, registry
from affuse.core.config import load_recipe
from affuse.core.seed import seed_all
from affuse.core.types import Feature, StreamSpec
from affuse.corpora.manifest import Corpus, make_splits, write_corpus
from affuse.stores.store import StoreWriter, store_card
from affuse.training import binding
from affuse.training.loop import Trainer, fit_normalisation
from affuse.training.train import make_model

ROOT = Path(__file__).resolve().parents[1]
LIMITED, LIMIT = ("ogm", "mlb", "mslr", "opm"), 0.10
CLIPS, BATCH, LABELS = 234, 16, ("neutral", "happy", "sad", "angry", "fear", "disgust", "surprise")


def random_corpus(path: Path) -> Corpus:
    """As many clips as composite-av has, 3.1 to 5 s of 16 kHz noise and 4 or 5 pictures of 48 x 48, by 18 speakers."""
    rng = np.random.default_rng(0)
    rows = [{"id": f"c{i:03d}", "speaker": f"s{i % 18}", "label": LABELS[i % 7]} for i in range(CLIPS)]
    corpus = write_corpus(path, rows, "random", "ekman-7")
    sound = StreamSpec("waveform", "audio", (), 16000.0, 2.0**-15)
    faces = StreamSpec("face_crops", "vision", (48, 48, 3), 1.0, 1 / 255)
    with StoreWriter(corpus.store_path("waveform"), store_card(sound, "random", 1, {})) as writer:
        for row in rows:
            writer.add(row["id"], Feature(rng.integers(-9000, 9000, rng.integers(49_000, 80_000), dtype=np.int16)))
    with StoreWriter(corpus.store_path("face_crops"), store_card(faces, "random", 1, {})) as writer:
        for row in rows:
            writer.add(row["id"], Feature(rng.integers(0, 256, (rng.integers(4, 6), 48, 48, 3), dtype=np.uint8)))
    return corpus


def trainers(corpus: Corpus, names: list[str], folder: Path) -> dict[str, Trainer]:
    """A trainer per balancer, half way through its epochs, all from the same model."""
    made: dict[str, Trainer] = {}
    for name in names:
        overrides = [f"balance={name}", "split.valid=0.15", "train.epochs=1000", f"train.batch_size={BATCH}"]
        recipe = binding.bind(load_recipe("composite-av", overrides), corpus)
        tasks = binding.tasks_of(recipe, corpus)
        split = make_splits(corpus.table, "source", recipe.split.valid, recipe.split.test, None, 0)[0]
        train, valid = (binding.dataset(corpus, recipe, tasks, split == part) for part in ("train", "valid"))
        seed_all(0)
        model, losses = make_model(recipe, train, tasks)
        fit_normalisation(model, train, torch.device("cpu"))
        made[name] = Trainer(model, losses, train, valid, recipe, folder / name, torch.device("cpu"))
        made[name].progress.epoch = 500
    return made


def end_of_epoch(trainer: Trainer) -> float:
    """Milliseconds of processor time that the balancer takes after an epoch, mean of five (some act every fifth)."""
    started = time.process_time()
    for number in range(500, 505):
        trainer.balancer.epoch_end(Epoch(number, 1000, dict(trainer.model.encoders.items()), trainer._encoded_split))
    return 1000 * (time.process_time() - started) / 5


def measure(made: dict[str, Trainer], steps: int) -> dict[str, np.ndarray]:
    """Milliseconds of processor time per batch and balancer [steps], the same batches for all, after three others."""
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {name: [] for name in made}
    for trainer in made.values():
        trainer.model.train()
    for k in range(steps + 3):
        rows = rng.choice(len(next(iter(made.values())).train), BATCH, replace=False)
        for name in rng.permutation(list(made)):
            torch.manual_seed(k)  # the same augmentation for all
            started = time.process_time()
            for turn in range(made[name].balancer.turns):
                made[name]._step(made[name]._pieces(rows), 0, turn)
            found[name].append(1000 * (time.process_time() - started))
    return {name: np.array(values[3:]) for name, values in found.items()}


def summary(batches: dict[str, np.ndarray], ends: dict[str, float], per_epoch: int) -> dict[str, dict[str, float]]:
    """Per balancer: ms per batch, ms at the end of an epoch, and what both add to plain training."""
    plain = batches["none"]
    found = {}
    for name, values in batches.items():
        step = float(np.median(values / plain)) - 1
        after = ends[name] / (per_epoch * float(np.median(plain)))
        found[name] = {"ms": float(np.median(values)), "end_ms": ends[name]}
        found[name] |= {"step": step, "epoch": after, "overhead": step + after}
    return found


def page(found: dict[str, dict[str, float]], steps: int, per_epoch: int) -> str:
    """The table, cheapest first."""
    lines = [
        "# What balancers cost",
        "",
        "`python benchmarks/balancer_overhead.py`: the model of the recipe `composite-av`, both encoders trained, "
        f"batches of {BATCH} random clips of the real "
        f"shapes, one thread, {steps} batches per balancer taken in turns; medians of processor time. A step's "
        "overhead is the median ratio to the same "
        f"batch of `none`; what is done once per epoch (looks at the held-out clips) is shared out over {per_epoch} "
        "batches. Options are the defaults.",
        "",
        "| balancer | ms per batch | ms per end of epoch | overhead of a batch | + of the epoch's end | in all |",
        "|---|---|---|---|---|---|",
    ]
    for name, f in sorted(found.items(), key=lambda item: item[1]["overhead"]):
        lines.append(
            f"| {name} | {f['ms']:.1f} | {f['end_ms']:.1f} | {f['step']:+.1%} | {f['epoch']:+.1%} | "
            f"{f['overhead']:+.1%} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--arms", nargs="*", default=list(registry.cards("balancers")))
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "results" / "balancer-overhead.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        names = list(dict.fromkeys(["none", *given.arms]))
        made = trainers(random_corpus(Path(folder) / "corpus"), names, Path(folder))
        per_epoch = len(made["none"]._epoch(0))
        ends = {name: end_of_epoch(trainer) for name, trainer in made.items()}
        found = summary(measure(made, given.steps), ends, per_epoch)
    io.write_text(given.page, page(found, given.steps, per_epoch))
    print(json.dumps({name: {k: round(v, 4) for k, v in f.items()} for name, f in found.items()}))
    return int(any(found[name]["overhead"] > LIMIT for name in LIMITED if name in found))


if __name__ == "__main__":
    sys.exit(main())
