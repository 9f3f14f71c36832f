"""Extraction at scale: processor seconds per hour of video, next to decoding alone, and two workers against one.

python benchmarks/extract.py [--clips 400]     (needs the dev extra and ../shared, and two free cores; about ten
minutes; one JSON line; exit status 1 where all but the face detector takes over twice the limit, or two workers are
less than 1.7 times one)

The clips: 20 s of 640 x 360 at 25 fps, one face that moves, real speech. The limit decodes each clip once: pictures at
5 fps to RGB, sound to 16 kHz. Extraction opens every clip twice, once per extractor (log_mel and face_crops). Two
workers are compared by what they do while both have work: from the second shard to the last but one; the seconds from
start to end, processes started, are printed too, and what two separate runs side by side reach, which is what the
machine has to give.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from affuse.corpora.extraction.extract import extract
from affuse.corpora.manifest import Corpus, write_corpus
from affuse.features.extractor import make_extractor
from affuse.media.audio import read_audio
from affuse.media.clip import Clip
from affuse.media.write import write_clip

sys.path.insert(0, str(Path(__file__).parent))
from analyze_speed import DATA, timed
from tracking import pictures

SECONDS, OTHERS, GAIN = 20, 2.0, 1.7
EXTRACTORS = ("log_mel", "face_crops", "mfcc", "prosody", "functionals", "waveform")
JOB = EXTRACTORS[:2]


def make_clip(path: Path) -> None:
    """20 s of a moving face, with speech."""
    takes = sorted((DATA / "ravdess_speech" / "opus").glob("Actor_01/*"))
    sound = np.concatenate([read_audio(take).samples for take in takes[:12]])[: SECONDS * 16000]
    frames = list(pictures())
    write_clip(path, islice([*frames, *reversed(frames)], SECONDS * 25), 25.0, sound)


def parts(path: Path, repeats: int = 9) -> dict[str, Any]:
    """Processor seconds per hour of every extractor, of the detector in it, and of the limit: medians of `repeats`.

    They take turns, so that a slow moment of the machine falls on all; the detector is timed within the very runs.
    """
    made = {name: make_extractor(name) for name in EXTRACTORS}
    spent: dict[str, float] = {}
    for work in ("detect_batch", "refine"):
        setattr(made["face_crops"]._detector, work, timed(spent, work, getattr(made["face_crops"]._detector, work)))
    works: dict[str, Any] = {name: partial(extractor, Clip(path)) for name, extractor in made.items()}
    works |= {"pictures": lambda: sum(1 for _ in Clip(path).frames(5.0, 640)), "sound": Clip(path).read_audio}
    times: dict[str, list[float]] = {name: [] for name in (*works, "face detector", "others")}
    for turn in range(repeats + 1):
        spent.clear()
        took = {name: _seconds(work) for name, work in works.items()}
        took["face detector"] = sum(spent.values())
        took["others"] = sum(took[name] for name in JOB) - took["face detector"]
        for name, seconds in took.items() if turn else ():  # the first turn warms up
            times[name].append(seconds)
    found = {name: float(np.median(t)) * 3600 / SECONDS for name, t in times.items()}
    limit = {name: found.pop(name) for name in ("pictures", "sound")}
    limit["both"] = sum(limit.values())
    others = found.pop("others")
    return {
        "processor_s_per_hour": {k: round(v, 1) for k, v in found.items()},
        "limit_s_per_hour": {k: round(v, 1) for k, v in limit.items()},
        "all_but_detector_s_per_hour": round(others, 1),
        "times_limit": round(others / limit["both"], 2),
    }


def _seconds(work: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def steady(folder: Path, clip: Path, clips: int, workers: int) -> tuple[float, float]:
    """Wall seconds of the job over many clips, from a new corpus `folder`; clips per second of face_crops meanwhile."""
    rows = [{"id": f"c{i:04d}", "video": str(clip), "label": "happy"} for i in range(clips)]
    write_corpus(folder, rows, "benchmark", "ekman-7")
    began = time.perf_counter()
    for name in JOB:
        seen: list[tuple[float, int]] = []
        done = extract(
            Corpus.open(folder), name, workers=workers,
            progress=lambda n, *_, to=seen: to.append((time.perf_counter(), n)),
        )  # fmt: skip
        assert done.added == clips
    (first, some), (last, most) = seen[1], seen[-2]
    return time.perf_counter() - began, (most - some) / (last - first)


def side_by_side(folder: Path, clip: Path, clips: int) -> float:
    """Clips per second of two separate runs at the same time, together."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        runs = [pool.submit(steady, folder / f"apart{k}", clip, clips // 2, 1) for k in range(2)]
        return sum(run.result()[1] for run in runs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=400)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        make_clip(clip)
        result = parts(clip)
        runs = {workers: steady(Path(folder) / f"corpus{workers}", clip, given.clips, workers) for workers in (1, 2)}
        apart = side_by_side(Path(folder), clip, given.clips)
    gain = runs[2][1] / runs[1][1]
    hours = given.clips * SECONDS / 3600
    result |= {
        "hours": round(hours, 2),
        "wall_s": {str(k): round(v[0]) for k, v in runs.items()},
        "two_workers": round(gain, 2),
    }
    result["two_runs_side_by_side"] = round(apart / runs[1][1], 2)
    print(json.dumps(result | {"wall_s_per_hour": round(runs[1][0] / hours)}))
    return int(result["times_limit"] > OTHERS or gain < GAIN)


if __name__ == "__main__":
    sys.exit(main())
