"""What the mLSTM costs over time: docs/results/xlstm-speed.md.

python benchmarks/xlstm_speed.py [--rounds 5] [--write]     (five minutes on one core; exit 1 beyond a limit)

Forward and backward of 8 sequences with 128 features, 4 heads, float32, one thread. Arms take turns in one process;
what counts is processor time, the least of the rounds, and ratios are medians of the same round. The cores (chunks of
64, step by step, and the chunked one of the transformers library) get the same queries, keys, values and gates; the
blocks are whole blocks of affuse in one direction, that of the mLSTM twice as wide inside. Memory: the growth of the
resident peak of a process of its own, with the cores in chunks.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

sys.path.insert(0, str(Path(__file__).parent))
from decode_memory import peak_mb

from affuse.layers.xlstm import XLSTM, Kind, chunkwise, empty, recurrent

ROOT = Path(__file__).resolve().parents[1]
ROWS, WIDTH, HEADS = 8, 128, 4
STEPS = (64, 125, 250, 500, 1000, 2000, 4000, 8000, 16000)
CORE, LOOP, LSTM, THEIRS = "chunks", "step by step", "nn.LSTM", "transformers' chunks"
BLOCK, SBLOCK = "mLSTM block", "sLSTM block"
ARMS = (CORE, LOOP, LSTM, THEIRS, BLOCK, SBLOCK)
LONGEST = {LOOP: 2000, THEIRS: 8000, BLOCK: 8000, SBLOCK: 2000}  # more takes minutes
AT, FASTER, AS_LSTM, GROWTH = 500, 9.0, 3.0, 1.15


def make(arm: str, steps: int) -> Callable[[], Tensor]:
    """One forward pass of an arm over random input."""
    torch.manual_seed(0)
    x = torch.randn(ROWS, steps, WIDTH, requires_grad=True)
    q, k, v = (torch.randn(ROWS, HEADS, steps, WIDTH // HEADS, requires_grad=True) for _ in range(3))
    i, f = (torch.randn(ROWS, HEADS, steps, requires_grad=True) for _ in range(2))
    if arm == LSTM:
        network = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        return lambda: network(x)[0]
    if arm in (BLOCK, SBLOCK):
        kinds: list[Kind] = ["mlstm" if arm == BLOCK else "slstm"]
        block, mask = XLSTM(WIDTH, kinds=kinds, heads=HEADS, both=False), torch.ones(ROWS, steps, dtype=torch.bool)
        return lambda: block(x, mask)
    if arm == THEIRS:
        from transformers.models.xlstm import modeling_xlstm as theirs

        kernel = theirs.mlstm_chunkwise_native_autograd
        return lambda: theirs.wrap_chunkwise_pad_zeros(
            mlstm_chunkwise_kernel=kernel, query=q, key=k, value=v, fgate=f, igate=i, return_last_states=False
        )
    over = chunkwise if arm == CORE else recurrent
    return lambda: over(q, k * k.shape[-1] ** -0.5, v, i, logsigmoid(f), empty(q))[0]


def arms(steps: int) -> list[str]:
    """Those that are measured at a length."""
    return [arm for arm in ARMS if steps <= LONGEST.get(arm, steps)]


def timed(steps: int, rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds of forward and backward per arm [rounds]."""
    made = {arm: make(arm, steps) for arm in arms(steps)}
    found: dict[str, list[float]] = {arm: [] for arm in made}
    for number in range(rounds + 1):
        for arm, run in made.items():
            started = time.process_time()
            run().sum().backward()
            if number:  # the first one warms up
                found[arm].append((time.process_time() - started) * 1000)
    return {arm: np.array(values) for arm, values in found.items()}


def grown(arm: str, steps: int) -> float:
    """Megabytes by which the resident peak of a process of its own grows in a pass."""
    done = subprocess.run(
        [sys.executable, __file__, "--memory", arm, str(steps)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def memory(arm: str, steps: int) -> float:
    """The same, in this process."""
    run, before = make(arm, steps), peak_mb()
    run().sum().backward()
    return peak_mb() - before


def page(times: dict[int, dict[str, np.ndarray]], peaks: dict[int, float]) -> str:
    """The page."""
    about = " ".join((__doc__ or "").split("\n\n")[2].split())
    lines = ["# What the mLSTM costs over time", "", about, "", f"{platform.machine()}, torch {torch.__version__}."]
    columns = " | ".join(f"{n}, ms" for n in ARMS)
    lines += ["", f"| steps | {columns} | step by step / chunks | chunks / nn.LSTM | MB |"]
    lines.append("|" + "---|" * (len(ARMS) + 4))
    for steps, found in times.items():
        cells = [f"{found[n].min():.0f}" if n in found else "" for n in ARMS]
        loop = f"{np.median(found[LOOP] / found[CORE]):.1f}" if LOOP in found else ""
        ratio = f"{np.median(found[CORE] / found[LSTM]):.2f}"
        lines.append(f"| {steps} | {' | '.join(cells)} | {loop} | {ratio} | {peaks[steps]:.0f} |")
    lines += ["", f"Limits at {AT} steps: {FASTER:g} times as fast as step by step, {AS_LSTM:g} times nn.LSTM; memory"]
    lines[-1] += f" per step at {STEPS[-1]} steps at most {GROWTH:g} times that at {STEPS[-3]}."
    return "\n".join([*lines, ""])


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write docs/results/xlstm-speed.md")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory:
        print(memory(given.memory[0], int(given.memory[1])))
        return 0
    times = {steps: timed(steps, given.rounds) for steps in STEPS}
    peaks = {steps: grown(CORE, steps) for steps in STEPS}
    text = page(times, peaks)
    print(text)
    if given.write:
        (ROOT / "docs" / "results" / "xlstm-speed.md").write_text(text, encoding="utf-8")
    at = times[AT]
    held = [
        np.median(at[LOOP] / at[CORE]) >= FASTER,
        np.median(at[CORE] / at[LSTM]) <= AS_LSTM,
        peaks[STEPS[-1]] / STEPS[-1] <= GROWTH * peaks[STEPS[-3]] / STEPS[-3],
    ]
    return int(not all(held))


if __name__ == "__main__":
    sys.exit(main())
