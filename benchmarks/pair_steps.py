"""What the terms of pretraining and distillation cost per training step: docs/results/pair-steps.md.

python benchmarks/pair_steps.py [--steps 60] [--write]     (ten minutes; exit 1 beyond a limit)

The model of the recipe mer2023-vat on random clips of the real shapes, 32 per step, one thread. Arms take turns step by
step in one process, in a new order every time; what counts is processor time, and each step is compared with the same
step of the model on its labels alone. Memory: the peak of resident memory of a process of its own, per arm.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from decode_memory import peak_mb

from affuse.core.config import load_recipe
from affuse.core.seed import seed_all
from affuse.core.types import Feature, StreamSpec
from affuse.corpora.manifest import Corpus, write_corpus
from affuse.stores.store import StoreWriter, store_card
from affuse.training import binding
from affuse.training.loop import Trainer, fit_normalisation
from affuse.training.train import make_model

ROOT = Path(__file__).resolve().parents[1]
CLIPS, BATCH = 256, 32
LABELS = ("neutral", "angry", "happy", "sad", "worried", "surprise")
PLAIN = "objectives={emotion: {name: cross_entropy}}"
CONTRAST = f"objectives.contrast={{name: pair_contrastive, dim: 64, queue: {CLIPS}}}"
TEACHER = ["train.ema=0.99", "train.ema_keeps=false"]
ARMS: dict[str, list[str]] = {
    "plain": [],
    "contrast, without teacher or queue": ["objectives.contrast={name: pair_contrastive, dim: 64, teacher: false}"],
    "contrast": [CONTRAST, *TEACHER],
    "contrast and matching": [CONTRAST, "objectives.match={name: pair_matching}", *TEACHER],
    "distillation of the task": ["objectives.soft={name: momentum_distillation}", *TEACHER],
    "distillation of the contrast": [
        CONTRAST,
        "objectives.soft={name: momentum_distillation, streams: [log_mel, face_crops]}",
        *TEACHER,
    ],
    "contrast by class": ["objectives.by_class={name: supervised_contrastive}"],
    "blend": ["objectives.alone={name: unimodal_blend}"],
}


def random_corpus(path: Path) -> Corpus:
    """Clips of 3 to 4 s: spectrograms of 100 Hz, crops of 5 Hz (mean 3.4 s, as MER2023's 85 frames at 25 Hz)."""
    rng = np.random.default_rng(0)
    rows = [{"id": f"c{i:03d}", "speaker": f"s{i % 16}", "label": LABELS[i % 6]} for i in range(CLIPS)]
    corpus = write_corpus(path, rows, "random", "mer2023-6")
    sound = StreamSpec("log_mel", "audio", (64,), 100.0)
    faces = StreamSpec("face_crops", "vision", (48, 48, 3), 5.0, 1 / 255)
    seconds = rng.uniform(2.8, 4.0, CLIPS)
    with StoreWriter(corpus.store_path("log_mel"), store_card(sound, "random", 1, {})) as writer:
        for row, s in zip(rows, seconds, strict=True):
            writer.add(row["id"], Feature(rng.normal(-40, 10, (int(s * 100), 64)).astype(np.float32)))
    with StoreWriter(corpus.store_path("face_crops"), store_card(faces, "random", 1, {})) as writer:
        for row, s in zip(rows, seconds, strict=True):
            writer.add(row["id"], Feature(rng.integers(0, 256, (int(s * 5), 48, 48, 3), dtype=np.uint8)))
    return corpus


def make_trainer(corpus: Corpus, arm: str, folder: Path) -> Trainer:
    """A trainer of an arm; all start from the same model."""
    common = [PLAIN, "control=[]", "split.valid=0", "train.keep=last", f"train.batch_size={BATCH}", "train.ema=0"]
    recipe = binding.bind(load_recipe("mer2023-vat", [*common, *ARMS[arm]]), corpus)
    tasks = binding.tasks_of(recipe, corpus)
    data = binding.dataset(corpus, recipe, tasks, np.ones(CLIPS, dtype=bool))
    seed_all(0)
    model, losses = make_model(recipe, data, tasks)
    fit_normalisation(model, data, torch.device("cpu"))
    model.train()
    return Trainer(model, losses, data, None, recipe, folder, torch.device("cpu"))


def fusion_share(trainer: Trainer, batch: list, steps: int) -> float:
    """The share of a plain step that fusion and head take, forward and backward."""
    model, spent, whole = trainer.model, 0.0, 0.0
    for _ in range(steps):
        started = time.process_time()
        trainer._step(batch, 0)
        whole += time.process_time() - started
        encoded = model.encode(batch[0])
        for part in (encoded.tokens, encoded.pooled):
            part.update({s: v.detach().requires_grad_() for s, v in part.items()})
        started = time.process_time()
        model.fuse(encoded, batch[0]).logits["emotion"].sum().backward()
        spent += time.process_time() - started
    return spent / whole


def timed(corpus: Corpus, folder: Path, steps: int) -> tuple[dict[str, np.ndarray], float]:
    """Milliseconds of every step per arm [steps], and the fusion's share of a plain one."""
    made = {arm: make_trainer(corpus, arm, folder / str(i)) for i, arm in enumerate(ARMS)}
    batches = [made["plain"]._pieces(rows) for rows in made["plain"]._epoch(0)]
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(steps + 4):
        for k in rng.permutation(len(ARMS)):
            arm = list(ARMS)[k]
            started = time.process_time()
            made[arm]._step(batches[number % len(batches)], number)
            if number >= 4:  # queues are full, caches warm
                found[arm].append((time.process_time() - started) * 1000)
    share = fusion_share(made["plain"], batches[0], 10)
    return {arm: np.array(values) for arm, values in found.items()}, share


def memory(arm: str) -> float:
    """Megabytes of resident memory at the peak of a few steps of an arm, in this process."""
    with tempfile.TemporaryDirectory() as tmp:
        trainer = make_trainer(random_corpus(Path(tmp) / "corpus"), arm, Path(tmp) / "run")
        for number, rows in enumerate(trainer._epoch(0)):
            trainer._step(trainer._pieces(rows), number)
    return peak_mb()


def peak(arm: str) -> float:
    """The same in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--memory", arm], capture_output=True, text=True, check=True)
    return float(done.stdout)


def ratio(arm: np.ndarray, plain: np.ndarray) -> tuple[float, float, float]:
    """Median of the paired ratios, with a 95 % interval of that median (binomial)."""
    each = np.sort(arm / plain)
    half = 0.98 * np.sqrt(len(each))
    low, high = int(max(0, len(each) / 2 - half)), int(min(len(each) - 1, len(each) / 2 + half))
    return float(np.median(each)), float(each[low]), float(each[high])


def page(found: dict[str, np.ndarray], share: float, peaks: dict[str, float], limits: dict[str, float]) -> str:
    """The page."""
    about = __doc__ or ""
    lines = ["# What the terms cost per step", "", about.split("\n\n")[2].replace("\n", " ").strip(), ""]
    lines += [f"The fusion takes {share:.2f} of the plain step.", ""]
    lines += ["| arm | ms per step | times the plain step [95 %] | limit | MB at the peak |", "|---|---|---|---|---|"]
    for arm, values in found.items():
        middle, low, high = ratio(values, found["plain"])
        limit = f"{limits[arm]:.2f}" if arm in limits else ""
        times = f"{middle:.2f} [{low:.2f}, {high:.2f}]" if arm != "plain" else "1"
        lines.append(f"| {arm} | {np.median(values):.0f} | {times} | {limit} | {peaks[arm]:.0f} |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--write", action="store_true", help="write docs/results/pair-steps.md")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory:
        print(memory(given.memory))
        return 0
    with tempfile.TemporaryDirectory() as tmp:
        found, share = timed(random_corpus(Path(tmp) / "corpus"), Path(tmp), given.steps)
    limits = {"contrast": 1.5, "contrast and matching": 4 / 3 + 2 * share + 0.15}
    text = page(found, share, {arm: peak(arm) for arm in ARMS}, limits)
    print(text)
    if given.write:
        (ROOT / "docs" / "results" / "pair-steps.md").write_text(text, encoding="utf-8")
    return int(any(ratio(found[arm], found["plain"])[0] > limit for arm, limit in limits.items()))


if __name__ == "__main__":
    sys.exit(main())
