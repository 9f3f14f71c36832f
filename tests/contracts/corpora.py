"""Small corpora with sequences of two rates, labels of every kind, and a label track."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from affuse.corpora.manifest import Corpus, write_corpus
from affuse.stores.store import import_arrays

NAMES = ("neutral", "happy", "sad", "angry")
LABELS = ("happy", "sad", "angry", "surprise", "disgust", "fear")
RATES = {"audio_steps": 10.0, "vision_steps": 4.0}


def make_corpus(path: Path, n: int = 40, seed: int = 0, same_rate: bool = False) -> Corpus:
    """n utterances of about 2 s by 8 speakers: streams of 10 and 4 Hz, a class, six numbers, a track of classes at 5
    Hz.

    The class of a frame changes in the middle of every utterance, so that only an answer per frame can follow it; every
    fifth utterance has no vision, every seventh no annotated frame.
    """
    rng = np.random.default_rng(seed)
    code, later = rng.permutation(np.arange(n) % 4), rng.integers(0, 4, n)
    seconds = rng.uniform(1.5, 3.0, n)
    rows = []
    for i in range(n):
        values = {label: float(rng.random() < 0.3 + 0.5 * (code[i] == k)) for k, label in enumerate(LABELS)}
        about = {"id": f"u{i:03d}", "speaker": f"s{i % 8}", "source": f"s{i % 8}", "label": NAMES[code[i]]}
        rows.append(about | values | {"sentiment": float(code[i]) - 1.5 + rng.normal(0, 0.1)})
    corpus = write_corpus(path, rows, "steps", "iemocap-4", tracks={"expression": list(NAMES)})
    ids = np.array([row["id"] for row in rows])
    for k, (stream, rate) in enumerate(RATES.items()):
        rate = 10.0 if same_rate else rate
        kept = [i for i in range(n) if not (k and i % 5 == 0)]
        lengths = [int(seconds[i] * rate) for i in kept]
        centres = rng.normal(size=(4, 6)) * 1.5
        values = [
            centres[_at(code[i], later[i], t, rate)] + rng.normal(size=(t, 6))
            for i, t in zip(kept, lengths, strict=True)
        ]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        import_arrays(
            corpus.store_path(stream), ids[kept], np.concatenate(values), offsets, ("audio", "vision")[k], rate
        )
    kept = [i for i in range(n) if i % 7]
    frames = [_at(code[i], later[i], int(seconds[i] * 5), 5.0).astype(np.float32) for i in kept]
    for f in frames:
        f[:1] = np.nan  # the first frame is not annotated
    offsets = np.concatenate([[0], np.cumsum([len(f) for f in frames])])
    import_arrays(
        corpus.annotation_path("expression"), ids[kept], np.concatenate(frames)[:, None], offsets, "vision", 5.0
    )
    return corpus


def _at(first: int, second: int, steps: int, rate: float) -> np.ndarray:
    """The class at every step: one up to 1 s, another after it."""
    return np.where(np.arange(steps) / rate < 1.0, first, second)
