"""Miniature releases of MER2023 and MuSe-Mimic, imported and with vectors, and runs that were trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from affuse.core.config import load_recipe
from affuse.core.labels import SPACES
from affuse.corpora.manifest import Corpus
from affuse.corpora.mer2023 import import_mer2023
from affuse.corpora.muse_mimic import import_muse_mimic
from affuse.stores.store import import_arrays
from affuse.training import binding
from affuse.training import train as training

PARTS = {"train": 48, "test1": 12, "test2": 12, "test3": 6}  # clips per file of labels
SPLITS = {"train": 24, "devel": 8, "test": 8}
CLASSES = SPACES["mer2023-6"].labels
MER_TASKS = {"emotion": {"column": "label"}, "valence": {"column": "valence", "space": "mer2023-valence"}}
MER_TERMS = {"e": {"name": "cross_entropy", "task": "emotion"}, "v": {"name": "l1", "task": "valence"}}


def mer2023(folder: Path, test: Any = "all", without: tuple[str, ...] = ()) -> Corpus:
    """MER2023 with films of four clips, an audio and a vision store; the clips `without` are in neither."""
    src = folder / "release"
    src.mkdir(parents=True)
    rng, at, values = np.random.default_rng(0), 0, {}
    for part, count in PARTS.items():
        lines = []
        for k in range(at, at + count):
            valence = 2.5 - k % 6 + rng.normal() / 4
            lines.append(f"sample_{k:08d},{CLASSES[k % 6]},{-10 if part == 'test3' else valence:.3f}")
            values[f"sample_{k:08d}"] = np.eye(6)[k % 6] + rng.normal(size=6) / 2
        (src / f"{part}-label.csv").write_text("\n".join(["name,discrete,valence", *lines]) + "\n")
        at += count
    made = import_mer2023(src, folder / "corpus", partial=True, test=test)
    films = [f"film {k // 4}" for k in range(len(made))]
    made.table.assign(film=films).to_parquet(made.path / "manifest.parquet")
    corpus = Corpus.open(made.path)
    _vectors(corpus, {i: values[i] for i in corpus.table["id"] if i not in without})
    return corpus


def muse_mimic(folder: Path) -> Corpus:
    """MuSe-Mimic, its test labels withheld, with an audio and a vision store."""
    root = folder / "c1_muse_mimic"
    root.mkdir(parents=True)
    names = [(f"m{part}{k:02d}", part) for part, count in SPLITS.items() for k in range(count)]
    rng = np.random.default_rng(1)
    targets = rng.random((len(names), 3))
    cells = [",".join("" if part == "test" else f"{v:.3f}" for v in t) for (_, part), t in zip(names, targets)]
    labels = [f'"""{name}""",{text}' for (name, _), text in zip(names, cells)]
    (root / "partition.csv").write_text("File_ID,partition\n" + "".join(f'"""{n}""",{p}\n' for n, p in names))
    (root / "labels.csv").write_text("\n".join(["filename,Approval_,Disappointment_,Uncertainty_", *labels]) + "\n")
    corpus = import_muse_mimic(folder, folder / "corpus")
    _vectors(corpus, {name: t + rng.normal(size=3) / 4 for (name, _), t in zip(names, targets)})
    return corpus


def _vectors(corpus: Corpus, values: dict[str, np.ndarray]) -> None:
    for stream in ("audio_vec", "vision_vec"):
        import_arrays(corpus.store_path(stream), list(values), np.stack(list(values.values())))


def train(
    corpus: Corpus,
    out: Path,
    tasks: dict[str, Any],
    objectives: dict[str, Any],
    *overrides: str,
    folds: int | None = None,
) -> Path:
    """A short run on these vectors."""
    recipe = {
        "summary": "a test",
        "source": "a test",
        "tasks": tasks,
        "streams": {"*": {"encoder": {"name": "mlp", "hidden": 16, "dropout": 0.0}}},
        "fusion": {"name": "concat"},
        "context": "none",
        "objectives": objectives,
        "split": {"valid": 0.25},
        "optim": {"lr": 0.01},
        "train": {"epochs": 3, "batch_size": 8},
    }
    path = out.parent / f"{out.name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    bound = binding.bind(load_recipe(str(path), list(overrides)), corpus)
    return training.train(bound, out.name, corpus, out, folds)
