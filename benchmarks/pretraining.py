"""Pretraining without labels on real clips: docs/results/pretraining-SETTING.md, by affuse bench.

python benchmarks/pretraining.py [--out runs/pretraining] [--workers 1] [--only 'ravdess_*' composite_10/scratch ...]

Makes the corpora of benchmarks/suites/pretraining.yaml below OUT, then runs the suite: RAVDESS (raw sound, facial
features) and the composite clips, pretrained on the training speakers of each fold, then trained on 10, 50 and 100 % of
their labels.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
from results import DATA, affuse, corpus_composite_av
from suite import run_suite


def corpus_ravdess(path: Path) -> None:
    """The 270 audio-visual clips: the recorded sound of the same takes, and 56 facial features."""
    table = pd.read_csv(DATA / "ravdess_av_features" / "combined_actors01-18.csv")
    ids = table["file"].astype(str).str.removesuffix(".mp4").to_numpy().astype(str)
    sound = dict(pd.read_csv(DATA / "ravdess_speech" / "labels.csv")[["clip", "path"]].to_numpy())
    takes = [sound.get(f"03{i[2:]}", "") for i in ids]
    rows = {
        "id": ids,
        "label": table["emotion"],
        "speaker": table["actor"].astype(str),
        "audio": [str(DATA / "ravdess_speech" / take) if take else "" for take in takes],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    csv = path.with_suffix(".csv")
    pd.DataFrame(rows).to_csv(csv, index=False)
    affuse("import", "table", csv, path, "--name", "ravdess-raw")
    middle = list(table.columns).index("file")
    chosen = [c for c in table.columns[middle:] if c not in {"file", "emotion", "intensity", "actor", "gender"}]
    np.savez(path.parent / "face_features.npz", ids=ids, values=table[chosen].to_numpy(float))
    affuse("import", "features", path, "face_features", path.parent / "face_features.npz")


if __name__ == "__main__":
    made = {"ravdess": corpus_ravdess, "composite": corpus_composite_av}
    corpora = {f"{name}_{share}": make for name, make in made.items() for share in (10, 50, 100)}
    sys.exit(run_suite("pretraining", corpora, __doc__, plot="scratch"))
