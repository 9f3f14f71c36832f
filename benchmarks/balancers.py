"""Every balancer against plain and uniform multi-loss training: docs/results/balancers-SETTING.md, by affuse bench.

python benchmarks/balancers.py [--out runs/balancers] [--workers 1] [--only ravdess-av/ogm ...] [--table]

Makes the corpora of benchmarks/suites/balancers.yaml below OUT, then runs the suite: RAVDESS features of voice and
face, IEMOCAP features of voice and words, two synthetic corpora of vectors, where the voice dominates by design and
where nothing does, and, for six methods, the composite clips from raw mp4.
"""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from conversations import corpus_iemocap
from results import PLANS, affuse, corpus_composite_av, corpus_ravdess_av, faces_run
from suite import run_suite

from affuse.core import io
from affuse.corpora.manifest import Corpus
from affuse.corpora.synthetic import make_synthetic
from affuse.evaluation.compare import Scored
from affuse.evaluation.diagnosis import Probed, probe
from affuse.evaluation.intervals import paired_difference
from affuse.evaluation.suite import Suite
from affuse.reporting.bench_pages import signed
from affuse.training.run_folder import open_run


def planted(path: Path, audio: float, vision: float) -> None:
    """720 vectors of voice and face by 40 speakers, which carry the label at these strengths; no words."""
    corpus = make_synthetic(
        path, conversations=120, speakers=40, media=False, seed=6,
        strength_audio=audio, strength_vision=vision, strength_text=0.0, noise_audio=0.5, noise_vision=0.5,
    )  # fmt: skip
    shutil.rmtree(corpus.store_path("text_vec"))


def clips(path: Path) -> None:
    """The composite clips with their streams, and the run of FER2013 that the face encoder starts from."""
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


def probes(runs: list[Path], corpus: Corpus) -> dict[str, list[Probed]]:
    """Modality -> what a linear probe of its encoder predicts, per run."""
    found = [probe(*open_run(run), corpus, "test", torch.device("cpu")) for run in runs]
    return {m: [p[m] for p in found] for m in found[0]}


def why(suite: Suite, setting: str, out: Path) -> str:
    """What there was to gain: what each encoder learned in joint training, and alone; and how far the methods went.

    Empty where plain training, uniform training or a modality alone is not there yet.
    """
    scored = {arm: sorted((out / setting / arm).glob("seed*/predictions.parquet")) for arm in suite.arms_of(setting)}
    runs = {arm: [path.parent for path in paths] for arm, paths in scored.items()}
    alone = {suite.arms[arm].only[0]: arm for arm in runs if suite.arms[arm].only}
    if not all(runs[arm] for arm in ("none", "uniform", *alone.values())):
        return ""
    corpus = Corpus.open(suite.settings[setting].corpus)
    learned = {arm: probes(runs[arm], corpus) for arm in ("none", "uniform", *alone.values())}
    lines = [
        "## Why",
        "",
        "What the encoders learned: accuracy of a linear probe of each modality's frozen encoder (see "
        "docs/balance.md), where it was trained alone and where "
        "it was trained with the other; all seeds. What balancing can give back is the difference.",
        "",
        "| modality | trained alone | in none | alone less none | in uniform | alone less uniform |",
        "|---|---|---|---|---|---|",
    ]
    behind = []
    for m, arm in alone.items():
        single = learned[arm][m]
        cells = [f"{np.mean([score(p) for p in single]):.3f}"]
        for joint in ("none", "uniform"):
            probed, own = learned[joint][m], single[0]
            a, b = ([p.predicted for p in each] for each in (single, probed))
            gap = paired_difference("accuracy", own.truth, a, b, own.groups)
            cells += [f"{np.mean([score(p) for p in probed]):.3f}", signed(gap)]
            if joint == "none" and gap.low > 0:
                behind.append(m)
        lines.append(f"| {m} | {' | '.join(cells)} |")
    found = "In plain training both encoders learn what they learn alone"
    if behind:
        found = f"In plain training the encoder of {' and '.join(behind)} learns less than alone"
    lines += ["", f"{found}, as far as the intervals show.", ""]
    pairs = (("uniform_slow", "uniform"), ("none_fast", "none"), ("ogm_ge", "none_steady"))
    steps = [(a, b) for a, b in pairs if runs.get(a) and runs.get(b)]
    if steps:
        main = suite.metrics[0]
        gaps = "; ".join(f"{a} less {b} {signed(Scored(runs[a]).less(Scored(runs[b]), main))}" for a, b in steps)
        lines += [
            "The size of the step: a loss per stream adds to the gradient of every encoder, which at the same rate "
            f"is a larger step, and a k is a rate. {gaps} ({main}).",
            "",
        ]
    acted = {arm: traces(of) for arm, of in runs.items()}
    if any(acted.values()):
        lines += [
            "How far the methods went: mean k of each stream over epochs, folds and seeds (1: plain training), and "
            "the lowest and highest of an epoch.",
            "",
        ]
        names = sorted({stream for of in acted.values() for stream in of})
        lines += [f"| arm | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
        for arm, of in acted.items():
            cells = {s: f"{k.mean():.2f} ({k.min():.2f} to {k.max():.2f})" for s, k in of.items()}
            if cells:
                lines.append(f"| {arm} | {' | '.join(cells.get(s, '') for s in names)} |")
        lines.append("")
    return "\n".join(lines)


def score(p: Probed) -> float:
    """Accuracy of a probe."""
    return float((p.predicted.argmax(1) == p.truth).mean())


def traces(runs: list[Path]) -> dict[str, np.ndarray]:
    """Stream -> its k in every epoch of every fold of these runs; {} for a method that keeps none."""
    paths = [path for run in runs for path in sorted(run.rglob("metrics.jsonl"))]
    rows = [row.get("balance", {}) for path in paths for row in io.read_jsonl(path)]
    names = {name for row in rows for name in row if name.startswith("k.")}
    return {name[2:]: np.array([row[name] for row in rows if name in row]) for name in names}


if __name__ == "__main__":
    sys.exit(run_suite("balancers", CORPORA, __doc__, why))
