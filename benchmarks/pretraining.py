"""Pretraining without labels on real clips: docs/results/pretraining-SETTING.md, by affuse bench.

python benchmarks/pretraining.py [--out runs/pretraining] [--workers 1] [--only 'ravdess_*' composite_10/scratch ...]

Makes the corpora of benchmarks/suites/pretraining.yaml below OUT, then runs the suite: RAVDESS (raw sound, facial
features) and the composite clips, pretrained on the training speakers of each fold, then trained on 10, 50 and 100 % of
their labels. The pages of 10 % say what the pretrained encoders know: a linear model on their vectors tells emotions of
held-out speakers, and which training speaker it is.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).parent))
from results import DATA, affuse, corpus_composite_av
from suite import run_suite

from affuse.core import io
from affuse.core.config import Recipe
from affuse.corpora.manifest import Corpus
from affuse.evaluation.suite import Suite
from affuse.models.model import Model
from affuse.training import binding
from affuse.training.run_folder import open_run, run_model, split_of

PRETRAINED = ("contrast", "contrast_match", "same_speaker")


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


def knowledge(suite: Suite, setting: str, out: Path) -> str:
    """What linear models tell from the encoders' vectors before any label was used, by the folds of the first seed."""
    runs = {arm: out / setting / arm / "seed0" for arm in PRETRAINED}
    if not setting.endswith("_10") or not all((run / "evaluation.json").is_file() for run in runs.values()):
        return ""
    corpus = Corpus.open(suite.settings[setting].corpus)
    rows = []
    for arm, run in runs.items():
        _, recipe, folders = open_run(run)
        each = [probes(Path(recipe.init) / fold.name, split_of(fold, corpus), corpus, recipe) for (fold,) in folders]
        if not rows:
            rows.append(("not pretrained", *np.mean([random for random, _ in each], 0), ""))
        rows.append((arm, *np.mean([trained for _, trained in each], 0), losses(Path(recipe.init), len(folders))))
    lines = ["", "What linear models tell from the vectors of the encoders (means over folds, first seed):", ""]
    lines += [
        "| encoders | emotion of held-out speakers | which training speaker | loss of the contrast, first, last |"
    ]
    lines += ["|---|---|---|---|", *(f"| {arm} | {e:.3f} | {s:.3f} | {loss} |" for arm, e, s, loss in rows)]
    return "\n".join([*lines, ""])


def losses(before: Path, folds: int) -> str:
    """The mean loss of the contrast in the first and the last epoch of pretraining."""
    rows = [io.read_jsonl(before / f"fold{k}" / "metrics.jsonl") for k in range(folds)]
    first, last = (np.mean([fold[at]["terms"]["contrast"] for fold in rows]) for at in (0, -1))
    return f"{first:.2f} -> {last:.2f}"


def probes(
    before: Path, split: np.ndarray, corpus: Corpus, recipe: Recipe
) -> tuple[tuple[float, float], tuple[float, float]]:
    """(emotion, speaker) accuracies from the encoders with random weights, and from those that were pretrained."""
    trained = run_model(before).eval()
    random = copy.deepcopy(trained)
    torch.manual_seed(0)
    for module in random.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()  # type: ignore[operator]
    return tells(random, split, corpus, recipe), tells(trained, split, corpus, recipe)


@torch.inference_mode()
def tells(model: Model, split: np.ndarray, corpus: Corpus, recipe: Recipe) -> tuple[float, float]:
    """Accuracies of logistic regression: emotions of test clips; speakers of training clips, in three folds."""
    data = binding.dataset(corpus, recipe, binding.tasks_of(recipe, corpus), np.ones(len(split), bool))
    parts = [model.encode(data.batch(rows)).pooled for rows in np.array_split(np.arange(len(split)), 8)]
    x = np.concatenate([torch.cat(list(part.values()), 1).numpy() for part in parts])
    label, speaker, train = corpus.table["label"].to_numpy(), corpus.table["speaker"].to_numpy(), split == "train"
    model_of = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    emotion = model_of.fit(x[train], label[train]).score(x[split == "test"], label[split == "test"])
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    return emotion, float(cross_val_score(model_of, x[train], speaker[train], cv=folds).mean())


if __name__ == "__main__":
    made = {"ravdess": corpus_ravdess, "composite": corpus_composite_av}
    corpora = {f"{name}_{share}": make for name, make in made.items() for share in (10, 50, 100)}
    sys.exit(run_suite("pretraining", corpora, __doc__, more=knowledge, plot="scratch"))
