"""Cross-attention between sequences against fusions of vectors: docs/results/cross-attention-*.md, by affuse bench.

python benchmarks/cross_attention.py [--values] [--out runs/...] [--workers 1] [--only composite/late ...] [--table]

Two suites: classes (the composite clips, from raw files) and, with --values, POM's ratings. The YouTube sequences are
left out: 125 of 173 training segments have neither sound nor face, 44 have both.
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

RATINGS = LabelSpace("pom-17", tuple(f"rating{k:02d}" for k in range(1, 18)), "values", 1.0, 7.0)


def corpus_pom(path: Path) -> None:
    """POM: sound and face at up to 20 words each; its valid part is the test part here."""
    with np.load(DATA / "mfn_sequences" / "pom_mmmo_youtube_seq20_train_valid.npz") as arrays:
        keys, of = ("audio", "video", "y"), ("train", "valid")
        parts = {key: [arrays[f"pom__{key}__{part}"] for part in of] for key in keys}
    labels = np.concatenate(parts["y"])
    split = np.repeat(["train", "test"], [len(part) for part in parts["y"]])
    ids = np.array([f"{part}{k:03d}" for k, part in enumerate(split)])
    rows = [{"id": i, "split": s, "ratings": y.tolist()} for i, s, y in zip(ids, split, labels, strict=True)]
    corpus = write_corpus(path, rows, "pom", RATINGS)
    for key, stream in (("audio", "audio"), ("video", "vision")):
        values = np.concatenate(parts[key]).astype(np.float32)
        values[(values == 0).all(-1)] = np.nan  # filled up with zeros; no face
        steps = values.shape[1] * np.arange(len(values) + 1)
        import_arrays(corpus.store_path(stream), ids, values.reshape(-1, values.shape[2]), steps, stream, 0.0)


if __name__ == "__main__":
    if "--values" in sys.argv:
        sys.argv.remove("--values")
        sys.exit(run_suite("cross-attention-values", {"pom": corpus_pom}, __doc__))
    sys.exit(run_suite("cross-attention", {"composite": corpus_composite_av}, __doc__))
