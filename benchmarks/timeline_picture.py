"""The README's picture: a conversation of the synthetic corpus, analysed by affuse-base.

python benchmarks/timeline_picture.py     (needs the dev extra; writes docs/timeline.png)
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import affuse
from affuse.corpora.synthetic import make_synthetic
from affuse.media.clip import Clip
from affuse.media.write import write_clip

FPS, PAUSE, SEED = 25.0, 0.6, 4
CLEAR: dict[str, Any] = {
    "strength_vision": 1.0,
    "strength_text": 1.0,
    "noise_vision": 0.0,
    "noise_text": 0.0,
    "inertia": 0.0,
    "contagion": 0.0,
}
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "timeline.png"


def conversation(folder: Path) -> Path:
    """One clip of the utterances of one conversation with short pauses, and a file with its captions."""
    size: dict[str, Any] = {"conversations": 1, "utterances": 9, "speakers": 2, "seconds": 2.6}
    corpus = make_synthetic(folder / "corpus", labels="ekman-7", seed=SEED, **size, **CLEAR)
    clips = [Clip(corpus.path / v) for v in corpus.table["video"]]
    rest = round(PAUSE * FPS)

    def pictures() -> Iterator[np.ndarray]:
        for clip in clips:
            last = None
            for frame in clip.frames(FPS):
                last = frame.image
                yield last
            yield from [last] * rest if last is not None else []

    sound: list[np.ndarray] = []
    captions: list[str] = []
    at = 0.0
    for clip, row in zip(clips, corpus.table.itertuples(), strict=True):
        seconds = clip.steps(FPS) / FPS
        samples = np.zeros(round((seconds + PAUSE) * 16000), np.float32)
        audio = clip.read_audio()
        if audio is not None:
            samples[: len(audio.samples)] = audio.samples[: len(samples)]
        sound.append(samples)
        if row.text:
            times = f"{stamp(at)} --> {stamp(at + seconds)}"
            captions.append(f"{len(captions) + 1}\n{times}\n<v {row.speaker}>{row.text}\n")
        at += seconds + PAUSE
    path = folder / "conversation.mp4"
    write_clip(path, pictures(), FPS, np.concatenate(sound))
    path.with_suffix(".vtt").write_text("WEBVTT\n\n" + "\n".join(captions))
    return path


def stamp(seconds: float) -> str:
    """Seconds as hours:minutes:seconds.milliseconds."""
    return f"00:{int(seconds // 60):02d}:{seconds % 60:06.3f}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        timeline = affuse.load()(conversation(Path(folder)))
        timeline.plot(PICTURE)
        print(PICTURE, [(s.speaker, label) for s, label in timeline])
