"""Peak memory of decoding must not grow with the length of a clip: 1 minute against 10 minutes.

    python benchmarks/decode_memory.py        # one JSON line; exit status 1 above 10 % growth
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from affuse.media.audio import iter_audio
from affuse.media.video import iter_frames
from affuse.media.write import write_clip

LIMIT = 1.10


def pictures(seconds: int) -> Iterator[np.ndarray]:
    """640 x 360 at 25 fps: a bar that wanders over a plain ground."""
    for k in range(seconds * 25):
        frame = np.full((360, 640, 3), 90, np.uint8)
        frame[:, 4 * k % 600 : 4 * k % 600 + 40] = 200
        yield frame


def peak_mb() -> float:
    """Peak resident memory of this process; on Linux ru_maxrss would still hold the parent's size before exec."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2  # bytes on macOS


def decode(path: str) -> dict[str, float]:
    """Frames at 5 fps and sound in blocks; peak resident memory of this process in MB."""
    began = time.perf_counter()
    frames = sum(1 for _ in iter_frames(path, 5))
    samples = sum(len(block.samples) for block in iter_audio(path))
    took = time.perf_counter() - began
    return {"frames": frames, "samples": samples, "peak_mb": round(peak_mb(), 1), "s": round(took, 2)}


def main() -> int:
    if len(sys.argv) > 1:
        print(json.dumps(decode(sys.argv[1])))
        return 0
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for minutes in (1, 10):
            path = Path(folder) / f"{minutes}.mp4"
            sound = np.random.default_rng(0).random(minutes * 60 * 16000, np.float32) * 0.2 - 0.1
            write_clip(path, pictures(minutes * 60), 25, sound, preset="ultrafast")
            done = subprocess.run([sys.executable, __file__, str(path)], check=True, capture_output=True, text=True)
            results[f"{minutes}_min"] = json.loads(done.stdout)
    ratio = results["10_min"]["peak_mb"] / results["1_min"]["peak_mb"]
    print(json.dumps({**results, "ratio": round(ratio, 4), "limit": LIMIT, "ok": ratio <= LIMIT}))
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
