"""The measured results of docs/results, each from run folders.

python benchmarks/results.py ravdess-audio|ravdess-av|composite-av|...-by-speaker [--out runs] [--seeds 3] [--table]

Imports the development data of ../shared/data, trains every run that is not complete yet (two at a time), and writes
docs/results/NAME.md and NAME.parquet from the run folders. `--table` only writes these; `affuse bench --table
docs/results/NAME.parquet` writes the page again from the sums alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from affuse.core import io
from affuse.evaluation.compare import Scored, Sums
from affuse.reporting.bench_pages import facts, write

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("AFFUSE_SHARED") or ROOT.parent / "shared") / "data"
METRICS = ("uar", "accuracy", "macro_f1")


def affuse(*arguments: object) -> None:
    """One affuse command on one thread; its progress is not shown, its errors are."""
    done = subprocess.run([sys.executable, "-m", "affuse", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"affuse {' '.join(map(str, arguments))}\n{done.stderr}")


def corpus_ravdess_audio(path: Path) -> None:
    """1,080 real takes by 18 actors."""
    affuse("import", "ravdess", DATA / "ravdess_speech" / "opus", path, "--partial")


def corpus_ravdess_av(path: Path) -> None:
    """270 real audio-visual clips as 69 audio and 56 face features."""
    table = pd.read_csv(DATA / "ravdess_av_features" / "combined_actors01-18.csv")
    middle = list(table.columns).index("file")
    ids = table["file"].astype(str).str.removesuffix(".mp4").to_numpy().astype(str)
    rest = {"file", "emotion", "intensity", "actor", "gender"}
    path.parent.mkdir(parents=True, exist_ok=True)
    csv = path.with_suffix(".csv")
    rows = {
        "id": ids,
        "label": table["emotion"],
        "speaker": table["actor"].astype(str),
        "intensity": table["intensity"],
    }
    pd.DataFrame(rows).to_csv(csv, index=False)
    affuse("import", "table", csv, path, "--name", "ravdess-av")
    columns = {
        "audio_features": list(table.columns[:middle]),
        "face_features": [c for c in table.columns[middle:] if c not in rest],
    }
    for name, chosen in columns.items():
        np.savez(path.parent / f"{name}.npz", ids=ids, values=table[chosen].to_numpy(float))
        affuse("import", "features", path, name, path.parent / f"{name}.npz")


def corpus_composite_av(path: Path) -> None:
    """234 mp4 clips: a real voice with a real face of the same emotion (artificial pairing)."""
    table = pd.read_csv(DATA / "composite_av" / "labels.csv")
    chosen = pd.DataFrame(
        {
            "id": [Path(p).stem for p in table["path"]],
            "video": table["path"],
            "label": table["emotion"],
            "speaker": [f"actor{a:02d}" for a in table["actor"]],
            "text": table["transcript"],
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    csv = path.with_suffix(".csv")
    chosen.to_csv(csv, index=False)
    affuse("import", "table", csv, path, "--name", "composite-av", "--root", DATA / "composite_av")


def write_composite_faces(path: Path, data: Path = DATA) -> Path:
    """The names of the FER2013 faces that the composite clips show, a line each: not to be trained on."""
    io.write_text(path, "\n".join(pd.read_csv(data / "composite_av" / "labels.csv")["fer_image"].str.split(":").str[1]))
    return path


def faces_run(base: Path) -> list[str]:
    """Overrides that start the face encoder from FER2013 without the composite clips' faces; trains that run once."""
    run, corpus = base / "faces" / "run", base / "faces" / "corpus"
    if not (corpus / "corpus.json").is_file():
        without = write_composite_faces(base / "faces" / "without.txt")
        affuse("import", "fer2013", DATA / "fer2013", corpus, f"without={without}", "--partial")
    if not (run / "model.safetensors").is_file():
        affuse("train", "fer2013-faces", "--corpus", corpus, "--out", run, "--threads", 1, "--quiet", "--no-score")
    return [f"streams.face_crops.init={run}", "streams.face_crops.frozen=true"]


PLANS = {
    "ravdess-audio": {
        "corpus": corpus_ravdess_audio,
        "folds": 5,
        "streams": ["waveform", "functionals"],
        "runs": {"audio": []},
    },
    # The audio expert of affuse-base, but on RAVDESS alone and in its eight classes: three seeds are its three members.
    "ravdess-audio-expert": {
        "recipe": "audio-expert",
        "overrides": ["tasks.emotion.space=ravdess-8", "train.members=1"],
        "corpus": corpus_ravdess_audio,
        "folds": 5,
        "streams": ["waveform", "functionals relative=true"],
        "runs": {"audio": []},
    },
    "ravdess-av": {
        "corpus": corpus_ravdess_av,
        "folds": 6,
        "streams": [],
        "runs": {"fused": [], "audio": ["--only", "audio"], "vision": ["--only", "vision"]},
    },
    "ravdess-audio-by-speaker": {
        "recipe": "ravdess-audio",
        "overrides": ["streams.functionals.standardise_by=speaker"],
        "corpus": corpus_ravdess_audio,
        "folds": 5,
        "streams": ["waveform", "functionals"],
        "runs": {"audio": []},
    },
    "ravdess-av-by-speaker": {
        "recipe": "ravdess-av",
        "overrides": ["streams.audio_features.standardise_by=speaker", "streams.face_features.standardise_by=speaker"],
        "corpus": corpus_ravdess_av,
        "folds": 6,
        "streams": [],
        "runs": {"fused": [], "audio": ["--only", "audio"], "vision": ["--only", "vision"]},
    },
    "composite-av": {
        "corpus": corpus_composite_av,
        "folds": 5,
        "streams": ["waveform", "face_crops fps=1.0 margin=0.0"],
        "before": faces_run,
        "runs": {"fused": [], "audio": ["--only", "audio"], "vision": ["--only", "vision"]},
    },
}


def train_all(name: str, out: Path, seeds: int) -> None:
    """Make the corpus and every run that is missing, two processes at a time."""
    plan, corpus = PLANS[name], out / name / "corpus"
    if not (corpus / "corpus.json").is_file():
        plan["corpus"](corpus)
    for stream in plan["streams"]:
        affuse("extract", corpus, *stream.split(), "--quiet")
    shared = plan["before"](out / name) if "before" in plan else []
    jobs = []
    for variant, changes in plan["runs"].items():
        for seed in range(seeds):
            start = [s for s in shared if "audio" not in changes]
            overrides = [f"train.seed={seed}", *plan.get("overrides", []), *start, *changes]
            folder = out / name / variant / f"seed{seed}"
            options = ("--corpus", corpus, "--folds", plan["folds"], "--out", folder, "--threads", 1)
            recipe = plan.get("recipe", name)
            jobs.append(("train", recipe, *overrides, *options, "--quiet", "--no-score"))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda job: affuse(*job), jobs))
    for variant in plan["runs"]:
        for seed in range(seeds):
            folder = out / name / variant / f"seed{seed}"
            if not (folder / "evaluation.json").is_file():
                affuse("evaluate", folder, "--corpus", corpus, "--missing", "each", "--quiet")


def collect(name: str, out: Path) -> Sums:
    """What the page of one plan is made of, from its run folders: every variant, and its seeds as one model."""
    base, plan = out / name, PLANS[name]
    variants = {v: Scored([p.parent for p in sorted((base / v).glob("seed*/evaluation.json"))]) for v in plan["runs"]}
    arms = variants | {f"{v}, seeds averaged": runs.averaged() for v, runs in variants.items() if len(runs.runs) > 1}
    own = {
        "head": _head(name, base, next(iter(variants.values()))),
        "baselines": [],
        "pairs": _pairs(list(variants)),
        "tail": [],
        "more": "",
    }
    return Sums.of(arms, METRICS, own | facts(variants))


def _head(name: str, base: Path, runs: Scored) -> list[str]:
    """Title and protocol."""
    plan, protocol = PLANS[name], runs.evaluation["protocol"]
    counts = io.read_json(base / "corpus" / "corpus.json")["counts"]["all"]
    by = protocol.get("standardised_by")
    by_group, kept = protocol.get("split_by", protocol["group_by"]), protocol["selection"]
    needs = f"Values are standardised by speaker ({by}): these scores presuppose several clips of each scored speaker."
    return [
        f"# {name}",
        "",
        *([needs, ""] if by else []),
        f"`python benchmarks/results.py {name}`: recipe `{plan.get('recipe', name)}`, {counts['utterances']} "
        f"utterances, {counts['speakers']} speakers, "
        f"{len(runs.evaluation['labels'])} classes, {plan['folds']} folds by "
        f"{by_group}, {len(runs.runs)} seeds. Selection: {kept}.",
        "",
    ]


def _pairs(variants: list[str]) -> list[tuple[str, str, str, str, str]]:
    """Paired differences: fusion less each modality alone, and with a modality missing less the other's own model."""
    fused, *alone = variants
    pairs = [(f"{fused} - {v} trained alone", fused, "", v, "") for v in alone]
    return pairs + [(f"{fused} with {v} only - {v} trained alone", fused, v, v, "") for v in alone]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=PLANS)
    parser.add_argument("--out", type=Path, default=ROOT / "runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if not given.table:
        train_all(given.name, given.out, given.seeds)
    print(write(collect(given.name, given.out), ROOT / "docs" / "results" / given.name))
