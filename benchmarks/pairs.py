"""What contrast, matching, a teacher and pseudo-labels add: docs/results/pairs-SETTING.md, by affuse bench.

python benchmarks/pairs.py [--out runs/pairs] [--workers 1] [--only 'weak_*' strong_4/scratch ...] [--table]

Makes the corpora of benchmarks/suites/pairs.yaml below OUT, then runs the suite: a synthetic world in which both
streams tell who speaks, weakly or strongly, with 4, 20 and 100 % of its labels.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
from suite import run_suite

from affuse.corpora.manifest import write_corpus
from affuse.stores.store import import_arrays

CLASSES = ("neutral", "happy", "sad", "angry", "fear", "surprise")
SPLITS = {"train": (150, 20), "valid": (30, 10), "test": (100, 10)}  # speakers, clips of each
EMOTION, SPEAKER, CONTENT, STEPS, WIDTH = 8, 8, 4, 6, 16
SHARES = (4, 20, 100)
NOISE, WRONG = 0.5, 0.2  # of a step; the share of training labels that are another class


def corpus_synthetic(path: Path, cue: float) -> None:
    """3,000 training clips of 150 speakers, test clips of 100 others: classes, and who speaks (`cue`), in both streams.

    Each stream is a fixed random tanh layer of [emotion, cue * speaker, content], then noise per step; a fifth of the
    training labels is wrong.
    """
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(len(CLASSES), EMOTION))
    mixing = {s: rng.normal(size=(EMOTION + SPEAKER + CONTENT, WIDTH)) / 2 for s in ("audio_steps", "vision_steps")}
    rows, latent = [], []
    for split, (speakers, each) in SPLITS.items():
        n = speakers * each
        label, who = rng.integers(0, len(CLASSES), n), np.repeat(np.arange(speakers), each)
        voices = rng.normal(size=(speakers, SPEAKER)) * cue
        parts = [centres[label] + 0.5 * rng.normal(size=(n, EMOTION)), voices[who], rng.normal(size=(n, CONTENT))]
        latent.append(np.concatenate(parts, 1))
        wrong = (rng.random(n) < WRONG) & (split == "train")
        told = np.where(wrong, rng.integers(0, len(CLASSES), n), label)
        named = zip(told, who, strict=True)
        rows += [
            {"id": f"{split}{k:05d}", "speaker": f"{split}{w}", "split": split, "label": CLASSES[c]}
            for k, (c, w) in enumerate(named)
        ]
    table = pd.DataFrame(rows).assign(source=lambda t: t["speaker"])
    corpus = write_corpus(path, table, f"cues-{cue:g}", synthetic=True)
    for stream, weights in mixing.items():
        clean = np.tanh(np.concatenate(latent) @ weights)
        steps = clean[:, None] + NOISE * rng.normal(size=(len(table), STEPS, WIDTH))
        offsets = np.arange(len(table) + 1) * STEPS
        ids, modality = table["id"].to_numpy(), stream.removesuffix("_steps")
        import_arrays(corpus.store_path(stream), ids, steps.reshape(-1, WIDTH), offsets, modality, 4.0)


if __name__ == "__main__":
    cues = {"weak": 0.3, "strong": 1.5}
    corpora = {f"{name}_{share}": partial(corpus_synthetic, cue=cue) for name, cue in cues.items() for share in SHARES}
    sys.exit(run_suite("pairs", corpora, __doc__, plot="scratch"))
