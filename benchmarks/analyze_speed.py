"""`analyze` with affuse-base, end to end, one thread: times real time, where the time goes, and memory of a long clip.

python benchmarks/analyze_speed.py [--minutes 30]    (needs the dev extra and ../shared; a few minutes on an idle
machine; one JSON line; exit status 1 below 5x real time, or where the long clip needs over 10 % more memory than its
first minute)

The clip: 640 x 360 at 25 fps, one face that moves, real speech. The long clip is the same minute over and over.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import av
import numpy as np
import torch

from affuse.cli.app import main as app
from affuse.inference import recognizer as inference
from affuse.media.audio import read_audio
from affuse.media.clip import Clip
from affuse.media.write import write_clip

sys.path.insert(0, str(Path(__file__).parent))
from decode_memory import peak_mb
from tracking import SECONDS, pictures

DATA = Path(os.environ.get("AFFUSE_SHARED") or Path(__file__).resolve().parents[2] / "shared") / "data"
MINUTE, TIMES, GROWTH = 60, 5.0, 1.10
GAP = Fraction(1, 5)  # s between repetitions: the sound begins a little before its clip


def make_clip(path: Path) -> None:
    """One minute of a moving face, with speech."""
    takes = sorted((DATA / "ravdess_speech" / "opus").glob("Actor_01/*"))
    sound = np.concatenate([read_audio(take).samples for take in takes[:24]])[: MINUTE * 16000]
    frames = list(pictures())
    there_and_back = [*frames, *reversed(frames)]
    assert len(there_and_back) == 2 * SECONDS * 25
    write_clip(path, islice(cycle(there_and_back), MINUTE * 25), 25.0, sound)


def repeat(source: Path, path: Path, times: int) -> None:
    """The packets of a clip over and over, without encoding again."""
    with av.open(str(source)) as given, av.open(str(path), "w") as made:
        streams = {s.index: made.add_stream_from_template(s) for s in given.streams}
        packets = [(p.stream.index, p) for p in given.demux() if p.dts is not None]
        length = {s.index: round((MINUTE + GAP) / Fraction(s.time_base or 1)) for s in given.streams}
        for k in range(times):
            for index, packet in packets:
                packet.stream = streams[index]
                if k:
                    packet.pts, packet.dts = packet.pts + length[index], packet.dts + length[index]
                made.mux(packet)


def timed(spent: dict[str, float], name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """`work`, its processor time added to `spent`."""

    def run(*args: Any, **options: Any) -> Any:
        began = time.process_time()
        try:
            return work(*args, **options)
        finally:
            spent[name] = spent.get(name, 0.0) + time.process_time() - began

    if hasattr(work, "spec"):  # an extractor
        run.spec = work.spec  # type: ignore[attr-defined]
    return run


def measure(path: Path) -> dict[str, Any]:
    """Processor seconds of one analysis, in all and by part."""
    recognizer = inference.load("affuse-base")
    recognizer(path)  # warm: networks loaded, kernels chosen
    spent: dict[str, float] = {}
    inference.find_speech = timed(spent, "voice activity", inference.find_speech)
    inference.encode = timed(spent, "model", inference.encode)
    inference.predict = timed(spent, "model", inference.predict)
    faces = recognizer.extractors["face_crops"]
    faces.follow = timed(spent, "decode, detect, track, align", faces.follow)
    for name in ("waveform", "functionals"):
        recognizer.extractors[name] = timed(spent, name, recognizer.extractors[name])
    recognizer.extractors.pop("text", None)
    began = time.process_time()
    timeline = recognizer(path)
    total = time.process_time() - began
    clip, began = Clip(path), time.process_time()
    frames = sum(1 for _ in clip.frames(10.0, 640))
    clip.read_audio()
    limit = time.process_time() - began
    spent["rest"] = total - sum(spent.values())
    return {
        "seconds": timeline.duration,
        "processor_s": round(total, 2),
        "times_real_time": round(timeline.duration / total, 1),
        "parts_s": {name: round(s, 2) for name, s in spent.items()},
        "decode_only_s": round(limit, 2),
        "frames": frames,
        "segments": len(timeline),
        "faces": len(timeline.faces),
    }


def memory(path: Path) -> float:
    """Peak memory in MB of a fresh process that analyses the clip."""
    out = subprocess.run([sys.executable, __file__, "--one", str(path)], capture_output=True, text=True, check=True)
    return float(out.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.one:
        code = app(["analyze", str(given.one), "--threads", "1", "--format", "csv", "--quiet"])
        print(peak_mb())
        return code
    with tempfile.TemporaryDirectory() as folder:
        minute, hours = Path(folder) / "minute.mp4", Path(folder) / "long.mp4"
        make_clip(minute)
        repeat(minute, hours, given.minutes)
        result = measure(minute)
        short, long = memory(minute), memory(hours)
    growth = long / short
    peak = {"1 min": round(short), f"{given.minutes} min": round(long)}
    print(json.dumps(result | {"peak_mb": peak, "growth": round(growth, 3)}))
    return int(result["times_real_time"] < TIMES or growth > GROWTH)


if __name__ == "__main__":
    sys.exit(main())
