"""What a training step costs, one source tree against another; and what reading ahead saves.

python benchmarks/training_speed.py steps --before TREE/src [--steps 200] [--only dialogue-rnn ...]
python benchmarks/training_speed.py reading [--epochs 6]

`steps`: two processes, one per tree, take turns step by step on the same batches; processor time per step (reading,
forward, backward, update), the median, and the ratio with a 95 % interval over pairs of processes: two processes of one
tree differ by up to 4 %. `reading`: epochs
of composite-av and ravdess-audio with and without the background reader, in turns within one run; wall time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))
from unchanged import base_corpus, features_of

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ("dialogue-rnn", "ravdess-audio", "composite-av")
WORKER = """
import sys, time
import torch
torch.set_num_threads(1)
from affuse.training import loop
step, last = loop.Trainer._step, [time.process_time()]

def timed(self, *given):
    sys.stdin.readline()
    found = step(self, *given)
    now = time.process_time()
    sys.stderr.write(f"{now - last[0]}\\n")
    sys.stderr.flush()
    last[0] = now
    return found

loop.Trainer._step = timed
from affuse.cli.app import main
sys.exit(main(sys.argv[1:]))
"""


def environment(src: Path) -> dict[str, str]:
    """The environment of a process with the sources of a tree."""
    return os.environ | {"PYTHONPATH": str(src), "OMP_NUM_THREADS": "1"}


def worker(src: Path, recipe: str, corpus: Path, out: Path, steps: int) -> subprocess.Popen[str]:
    """A process that trains one step for every line that it is sent, and writes how long it took."""
    options = [f"train.epochs={steps + 10}", "train.batch_size=8", "--no-score", "--quiet"]
    folders = ["--corpus", str(corpus), "--out", str(out)]
    command = [sys.executable, "-c", WORKER, "train", recipe, *options, *folders]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    return subprocess.Popen(command, env=environment(src), text=True, **pipes)


def one_step(process: subprocess.Popen[str]) -> float:
    """Milliseconds of processor time of the next step."""
    assert process.stdin
    assert process.stderr
    process.stdin.write("go\n")
    process.stdin.flush()
    line = process.stderr.readline()
    try:
        return 1000 * float(line)
    except ValueError:
        raise SystemExit(line + process.stderr.read()) from None


def compare_steps(before: Path, after: Path, steps: int, pairs: int, only: list[str]) -> None:
    """Print a line per recipe."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        base_corpus(base, environment(after))
        for recipe in only or RECIPES:
            for name in "ab":
                copied(base, recipe, name)
            times = np.array([one_pair(base, recipe, before, after, steps, k) for k in range(pairs)])  # [P, T, 2]
            old, new = np.median(times, axis=(0, 1))
            each = np.median(np.log(times[..., 1] / times[..., 0]), axis=1)
            low, high = np.exp(stats.t.interval(0.95, pairs - 1, each.mean(), each.std(ddof=1) / pairs**0.5))
            medians = f"{old:.2f} ms before, {new:.2f} ms after"
            ratio = f"paired ratio {np.exp(each.mean()):.3f} [{low:.3f}, {high:.3f}]"
            print(f"{recipe}: {medians}, {ratio}, {pairs} pairs of processes, {steps} steps each", flush=True)


def one_pair(base: Path, recipe: str, before: Path, after: Path, steps: int, number: int) -> np.ndarray:
    """Milliseconds [T, 2] of the steps before and after, by two processes that take turns; odd pairs begin swapped."""
    order = [("a", before), ("b", after)][:: -1 if number % 2 else 1]
    started = {}
    for name, src in order:
        corpus, out = base / "of" / f"{recipe}-{name}", base / f"{recipe}-{name}-{number}"
        started[name] = worker(src, recipe, corpus, out, steps)
    taken = [{name: one_step(started[name]) for name, _ in order} for _ in range(steps + 5)][5:]
    for process in started.values():
        process.kill()
        process.wait()
    return np.array([[turn["a"], turn["b"]] for turn in taken])


def copied(base: Path, recipe: str, name: str) -> Path:
    """A corpus of its own with the features that the recipe uses."""
    import shutil

    corpus = base / "of" / f"{recipe}-{name}"
    shutil.copytree(base / "corpus", corpus)
    for store in (corpus / "features").glob("*"):
        if store.name not in features_of(recipe):
            shutil.rmtree(store)
    return corpus


def compare_reading(epochs: int) -> None:
    """Print a line per recipe: seconds per epoch with and without the background reader, in turns."""
    from affuse.cli.app import main
    from affuse.core.seed import set_threads
    from affuse.training import loop

    set_threads(1)
    ahead, train = loop.ahead, loop.Trainer._train_epoch
    for recipe in RECIPES[1:]:
        seconds: dict[bool, list[float]] = {True: [], False: []}

        def timed(self: loop.Trainer, seconds: dict[bool, list[float]] = seconds) -> Any:
            background = self.progress.epoch % 2 == 0
            loop.ahead = ahead if background else map  # type: ignore[assignment, misc]
            started = time.perf_counter()
            found = train(self)
            seconds[background].append(time.perf_counter() - started)
            return found

        loop.Trainer._train_epoch = timed  # type: ignore[method-assign]
        with tempfile.TemporaryDirectory() as folder:
            corpus = stores(Path(folder) / "corpus", recipe)
            options = [f"train.epochs={2 * epochs + 2}", "--corpus", corpus, "--out", Path(folder) / "run"]
            assert main(["train", recipe, *map(str, options), "--no-score", "--quiet"]) == 0
        with_reader, without = (np.array(seconds[b][1:]) for b in (True, False))
        saved = 100 * (1 - np.median(with_reader) / np.median(without))
        plain = f"{np.median(without):.2f} s per epoch"
        ahead_of = f"{np.median(with_reader):.2f} s with the background reader ({saved:.1f} % less)"
        print(f"{recipe}: {plain}, {ahead_of}, {epochs} epochs each", flush=True)


def stores(path: Path, recipe: str) -> Path:
    """240 utterances by 12 speakers with random sound of 3.5 s, and with faces or statistics of the voice."""
    from affuse.core.config import load_recipe
    from affuse.core.types import Feature, StreamSpec
    from affuse.corpora.manifest import write_corpus
    from affuse.features.extractor import make_extractor
    from affuse.stores.store import StoreWriter, stated, store_card

    rng, names = np.random.default_rng(0), ("neutral", "happy", "sad", "angry")
    rows = [
        {"id": f"u{i:03d}", "speaker": f"s{i % 12}", "source": f"s{i % 12}", "label": names[i % 4]} for i in range(240)
    ]
    corpus = write_corpus(path, rows, "random", "iemocap-4")
    for name, stream in load_recipe(recipe).streams.items():
        spec: StreamSpec = make_extractor(name, stream.extractor).spec
        card = store_card(spec, name, 1, stated(name, stream.extractor))
        with StoreWriter(corpus.store_path(name), card) as writer:
            for row in rows:
                writer.add(row["id"], Feature(_values(rng, spec.shape)))
        (corpus.store_path(name) / "failures.json").write_text("{}")
    return path


def _values(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random sound for steps of shape (), pictures (H, W, 3), or one vector (D,)."""
    if len(shape) == 3:
        return rng.integers(0, 255, (4, *shape)).astype(np.uint8)
    if shape == ():
        return rng.normal(0, 3000, 56000).astype(np.int16)
    return rng.normal(0, 3000, (1, *shape)).astype(np.float32)


def main() -> int:
    """Run the verb that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["steps", "reading"])
    parser.add_argument("--before", type=Path)
    parser.add_argument("--after", type=Path, default=ROOT / "src")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--only", nargs="*", default=[])
    given = parser.parse_args()
    if given.verb == "steps":
        compare_steps(given.before, given.after, given.steps, given.pairs, given.only)
    else:
        compare_reading(given.epochs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
