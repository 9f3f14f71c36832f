"""Log-mel of 10 s of sound in one thread: affuse against warm librosa; prints one JSON line.

    python benchmarks/log_mel_speed.py

Exits with 1 where affuse is less than 8 times as fast. `limit` is how many times the Fourier transform of the same
frames, and nothing else, would be: what no log-mel of these settings can pass on one thread.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from statistics import median

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import librosa  # after the thread settings, which are read at import
import numpy as np
import torch

from affuse.layers.log_mel import LogMel

REQUIRED = 8


def milliseconds(run: Callable[[], object], repeats: int = 30) -> float:
    """Median time of a call after three to warm up."""
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * median(times[3:])


def main() -> int:
    """Measure both on the same noise."""
    torch.set_num_threads(1)
    x = np.random.default_rng(0).standard_normal(160000).astype(np.float32) * 0.1
    layer, tensor = LogMel(), torch.from_numpy(x).unsqueeze(0)

    def by_librosa() -> np.ndarray:
        mel = librosa.feature.melspectrogram(y=x, sr=16000, n_fft=400, hop_length=160, n_mels=64, pad_mode="constant")
        return librosa.power_to_db(mel, top_db=None)

    with torch.inference_mode():
        ours = milliseconds(lambda: layer(tensor))
        frames = tensor[0].unfold(-1, layer.window, layer.hop) * layer.hann
        fourier = milliseconds(lambda: torch.fft.rfft(frames))
    theirs = milliseconds(by_librosa)
    ratio = theirs / ours
    times = {"affuse_ms": round(ours, 3), "librosa_ms": round(theirs, 3)}
    print(json.dumps({**times, "ratio": round(ratio, 2), "limit": round(theirs / fourier, 2)}))
    return 0 if ratio >= REQUIRED else 1


if __name__ == "__main__":
    sys.exit(main())
