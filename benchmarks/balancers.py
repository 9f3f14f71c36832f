"""Every balancer beside plain and uniform multi-loss training: docs/results/balancers-SETTING.md, by affuse bench.

python benchmarks/balancers.py [--out runs/balancers] [--workers 1] [--only ravdess-av/ogm ...] [--table]

Makes the corpora of benchmarks/suites/balancers.yaml below OUT, then runs the suite: RAVDESS features of voice and face, IEMOCAP
features of voice and words, two synthetic corpora of vectors, where the voice dominates by design and where nothing does, and, for
six methods, the composite clips from raw mp4.
"""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from conversations import corpus_iemocap
from results import PLANS, affuse, corpus_composite_av, corpus_ravdess_av, faces_run
from suite import run_suite

from affuse.corpora.synthetic import make_synthetic


def planted(path: Path, audio: float, vision: float) -> None:
    """720 vectors of voice and face by 40 speakers, which carry the label at these strengths; no words."""
    corpus = make_synthetic(
        path, conversations=120, speakers=40, media=False, seed=6,
        strength_audio=audio, strength_vision=vision, strength_text=0.0, noise_audio=0.5, noise_vision=0.5,
    )  # fmt: skip
    shutil.rmtree(corpus.store_path("text_vec"))


def clips(path: Path) -> None:
    """The composite clips with their streams, and beside them the run of FER2013 that the face encoder starts from."""
    corpus_composite_av(path)
    for stream in PLANS["composite-av"]["streams"]:
        affuse("extract", path, *stream.split(), "--quiet")
    faces_run(path.parent)


CORPORA = {
    "ravdess-av": corpus_ravdess_av,
    "iemocap": corpus_iemocap,
    "dominant": partial(planted, audio=0.9, vision=0.35),
    "equal": partial(planted, audio=0.6, vision=0.6),
    "composite": clips,
}


if __name__ == "__main__":
    sys.exit(run_suite("balancers", CORPORA, __doc__))
