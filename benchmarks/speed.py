"""Speed in one run, one thread: log-mel against librosa, random reads of a store, the command line, decoding memory.

python benchmarks/speed.py     (needs the dev extra; about a minute; one JSON line, exit 1 where a target is missed)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np


def best(function, repeats: int) -> float:
    """Shortest of `repeats` timings, in milliseconds."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


def random_reads(items: int = 2000) -> float:
    """Milliseconds to read `items` features (20 to 119 steps of 64 floats) in random order."""
    from affuse.core.types import Feature, StreamSpec
    from affuse.stores.store import FeatureStore, StoreWriter, store_card

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        spec = StreamSpec("vectors", "audio", (64,), 50.0)
        with StoreWriter(Path(folder) / "s", store_card(spec, "benchmark", 1, {})) as writer:
            for i in range(items):
                writer.add(f"u{i}", Feature(rng.random((rng.integers(20, 120), 64), dtype=np.float32)))
        store = FeatureStore(Path(folder) / "s")
        order = [f"u{i}" for i in rng.permutation(items)]
        return best(lambda: [store[i].values for i in order], 5)


def command_line() -> float:
    """Seconds of `affuse --help` in a new process, best of five."""
    return (
        best(
            lambda: subprocess.run([sys.executable, "-m", "affuse", "--help"], stdout=subprocess.DEVNULL, check=True), 5
        )
        / 1000
    )


def torch_is_imported() -> bool:
    """Whether `import affuse` pulls torch in."""
    return (
        subprocess.run([sys.executable, "-c", "import affuse, sys; sys.exit('torch' in sys.modules)"]).returncode != 0
    )


def script(name: str) -> dict[str, float]:
    """The JSON line of another benchmark of this folder."""
    done = subprocess.run([sys.executable, str(Path(__file__).with_name(name))], capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    log_mel, memory = script("log_mel_speed.py"), script("decode_memory.py")
    result = {
        "log_mel": log_mel,
        "random_reads_2000_ms": round(random_reads(), 2),
        "help_s": round(command_line(), 3),
        "import_affuse_imports_torch": torch_is_imported(),
        "decode_memory": memory,
    }
    print(json.dumps(result))
    fine = result["random_reads_2000_ms"] < 20 and result["help_s"] < 0.7 and not result["import_affuse_imports_torch"]
    sys.exit(not (fine and memory["ratio"] <= 1.10 and log_mel["ratio"] >= 8))
