"""Following a face against searching every frame: a 640 x 360 clip at 25 fps with one real face that moves, one thread.

python benchmarks/tracking.py     (needs the dev extra; half a minute on an idle machine; one JSON line of processor
seconds, all threads, per second of video; exit status 1 where decoding, tracking and crops together take more than a
tenth of real time at the default fps)
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from affuse.features.face_crops import FaceCrops
from affuse.media.clip import Clip
from affuse.media.faces import FaceDetector
from affuse.media.speaking import speaking
from affuse.media.tracks import FaceTracker
from affuse.media.write import write_clip

SECONDS, LIMIT = 10, 0.1


def pictures() -> Iterator[np.ndarray]:
    """The astronaut wanders through a plain room; grain that does not repeat, as of a camera."""
    from skimage.data import astronaut

    rng = np.random.default_rng(0)
    room = (90 + 60 * np.sin(np.arange(640) / 90)[None, :, None] * np.ones((360, 1, 3))).astype(np.int16)
    face = astronaut()[:300, 100:360].astype(np.int16)
    for k in range(SECONDS * 25):
        x, y = round(190 + 150 * np.sin(k / 40)), round(30 + 20 * np.sin(k / 17))
        frame = room.copy()
        frame[y : y + 300, x : x + 260] = face
        yield np.clip(frame + rng.integers(-4, 5, frame.shape, dtype=np.int16), 0, 255).astype(np.uint8)


def fastest(work, repeats: int = 2) -> float:
    """Least processor time of `repeats` runs, in seconds per second of video."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return round(min(times) / SECONDS, 4)


def searched(detector: FaceDetector, frames: Iterator) -> None:
    """Full detection on every frame, in batches of 32."""
    while batch := [frame.image for frame in islice(frames, 32)]:
        detector.detect_batch(batch)


def tracked(detector: FaceDetector, clip: Clip, fps: float) -> FaceTracker:
    tracker = FaceTracker(detector, fps)
    for frame in clip.frames(fps, 640):
        tracker.step(frame)
    tracker.take()
    return tracker


def measured(clip: Clip, detector: FaceDetector, fps: float) -> dict[str, float]:
    crops = FaceCrops(fps=fps)
    tracker = tracked(detector, clip, fps)
    tracks = crops.follow(clip)
    voice = np.ones(round(SECONDS / 0.032))
    return {
        "decode": fastest(lambda: sum(1 for _ in clip.frames(fps, 640))),
        "decode_track": fastest(lambda: tracked(detector, clip, fps)),
        "decode_track_crops": fastest(lambda: crops.follow(clip)),
        "decode_search_all": fastest(lambda: searched(detector, clip.frames(fps, 640)), 1),
        "speaking": fastest(lambda: speaking(tracks, voice, fps)),
        "full_searches": tracker.searches,
        "refinements": tracker.refinements,
        "tracks": len(tracks),
        "coverage": round(crops.feature(clip, tracks).coverage, 3),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "face.mp4"
        write_clip(path, pictures(), 25.0)
        clip, detector = Clip(path), FaceDetector()
        default = FaceCrops().fps
        result = {f"fps_{fps:g}": measured(clip, detector, fps) for fps in (5.0, 10.0, 25.0)}
    print(json.dumps({"clip": f"640x360, 25 fps, {SECONDS} s", "default_fps": default, **result}))
    sys.exit(result[f"fps_{default:g}"]["decode_track_crops"] > LIMIT)
