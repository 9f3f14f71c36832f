"""Cross-attention between sequences against fusions of vectors: docs/results/cross-attention-*.md, by affuse bench.

python benchmarks/cross_attention.py [--values] [--out runs/...] [--workers 1] [--only composite youtube/late ...]
    [--table]

Two suites: classes (the composite clips, from raw files; YouTube) and, with --values, POM's ratings.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from results import DATA, corpus_composite_av
from suite import run_suite

from affuse.core.labels import LabelSpace
from affuse.corpora.manifest import write_corpus
from affuse.stores.store import import_arrays

CLASSES = ("first", "second", "third")  # the release does not name its three columns
RATINGS = LabelSpace("pom-17", tuple(f"rating{k:02d}" for k in range(1, 18)), "values", 1.0, 7.0)


def corpus_words(path: Path, release: str) -> None:
    """YouTube or POM: sound and face at 20 words each; its valid part is the test part here."""
    with np.load(DATA / "mfn_sequences" / "pom_mmmo_youtube_seq20_train_valid.npz") as arrays:
        keys, of = ("audio", "video", "y"), ("train", "valid")
        parts = {key: [arrays[f"{release}__{key}__{part}"] for part in of] for key in keys}
    labels = np.concatenate(parts["y"])
    split = np.repeat(["train", "test"], [len(part) for part in parts["y"]])
    ids = np.array([f"{part}{k:03d}" for k, part in enumerate(split)])
    named = [{"ratings": y.tolist()} if release == "pom" else {"label": CLASSES[y.argmax()]} for y in labels]
    rows = [{"id": i, "split": s, **label} for i, s, label in zip(ids, split, named, strict=True)]
    corpus = write_corpus(path, rows, release, RATINGS if release == "pom" else "")
    for key, stream in (("audio", "audio"), ("video", "vision")):
        values = np.concatenate(parts[key])
        steps = values.shape[1] * np.arange(len(values) + 1)
        import_arrays(corpus.store_path(stream), ids, values.reshape(-1, values.shape[2]), steps, stream, 0.0)


if __name__ == "__main__":
    if "--values" in sys.argv:
        sys.argv.remove("--values")
        sys.exit(run_suite("cross-attention-values", {"pom": lambda path: corpus_words(path, "pom")}, __doc__))
    made = {"composite": corpus_composite_av, "youtube": lambda path: corpus_words(path, "youtube")}
    sys.exit(run_suite("cross-attention", made, __doc__))
