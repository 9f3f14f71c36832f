"""Run folders: the names and the format of what `affuse train` leaves, and how it is opened again."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from affuse.core import config, io, run_files
from affuse.core.config import Recipe
from affuse.core.errors import BadRun
from affuse.corpora.manifest import Corpus
from affuse.models.model import Model
from affuse.models.saved import describe, load_model


def model_folders(out: Path, recipe: Recipe, fold: int | None) -> list[Path]:
    """Where the models of a fold are: the fold's folder, or one folder per member in it."""
    folder = out if fold is None else out / f"fold{fold}"
    count = recipe.train.models
    return [folder] if count == 1 else [folder / f"member{m}" for m in range(count)]


def claim(out: Path, recipe: Recipe, info: Mapping[str, Any]) -> None:
    """Make the run folder, or check that it holds this very run; one in which nothing was trained yet makes way."""
    text = config.to_yaml(recipe)
    if (out / "corpus.json").is_file():
        raise BadRun(f"{out} is a corpus", "choose another --out")
    if (out / run_files.CONFIG).is_file() and any(out.rglob(run_files.METRICS)):
        old = io.read_json(out / run_files.INFO)
        kept = config.to_yaml(
            config.load_recipe(str(out / run_files.CONFIG))
        )  # options that came later have their defaults
        differs = {"recipe": kept != text, "corpus": old["corpus"]["hash"] != info["corpus"]["hash"]}
        differs |= {k: old.get(k, info[k]) != info[k] for k in ("split_hash", "store_hashes", "init_hashes", "folds")}
        if any(differs.values()):
            what = ", ".join(k for k, other in differs.items() if other)
            raise BadRun(f"{out} holds another run (its {what} differs)", "choose another --out, or delete it")
        return
    out.mkdir(parents=True, exist_ok=True)
    write_info(out, dict(info) | {"complete": False, "created": datetime.datetime.now().isoformat(timespec="seconds")})
    io.write_text(out / run_files.CONFIG, text)


def write_info(out: Path, values: Mapping[str, Any]) -> None:
    """Add values to the folder's run.json."""
    path = out / run_files.INFO
    io.write_json(path, (io.read_json(path) if path.is_file() else {}) | dict(values))


def write_model(folder: Path, model: Model, more: Mapping[str, Any], split: pd.DataFrame) -> None:
    """model.json (`more` beside the description), split.parquet, and last of all the weights; the checkpoint goes."""
    io.write_table(folder / run_files.SPLIT, split)
    io.write_json(folder / run_files.DESCRIPTION, describe(model) | dict(more))
    io.write_tensors(folder / run_files.WEIGHTS, model.state_dict())
    (folder / run_files.CHECKPOINT).unlink(missing_ok=True)


def open_run(path: Path, pretrained: bool = False) -> tuple[dict[str, Any], Recipe, list[list[Path]]]:
    """(run.json, recipe, per fold the folders of its models) of a complete run; BadRun otherwise.

    `pretrained`: whether a run without labels will do, which can start others and answers nothing.
    """
    if not (path / run_files.INFO).is_file():
        raise BadRun(
            f"{path} is not a run folder (no run.json)", "train one: affuse train RECIPE --corpus DIR --out RUN"
        )
    info = io.read_json(path / run_files.INFO)
    if info.get("format") not in run_files.READ:
        raise BadRun(
            f"{path} has run format {info.get('format')}",
            f"this affuse reads {', '.join(map(str, run_files.READ))}: update it, or train the run again",
        )
    if info.get("pretrained") and not pretrained:
        raise BadRun(f"{path} was trained without labels", f"train from it: affuse train RECIPE init={path} ...")
    recipe = config.make_recipe(config.read_yaml(path / run_files.CONFIG))
    folders = [model_folders(path, recipe, k) for k in (range(info["folds"]) if info["folds"] else [None])]
    absent = [f for fold in folders for f in fold if not (f / run_files.WEIGHTS).is_file()]
    if absent:
        raise BadRun(f"{absent[0]} has no trained model yet", "run the same affuse train command again: it resumes")
    return info, recipe, folders


def run_model(folder: Path) -> Model:
    """The trained model of a run (or fold) folder, in eval mode."""
    return load_model(io.read_json(folder / run_files.DESCRIPTION), folder / run_files.WEIGHTS)


def split_of(folder: Path, corpus: Corpus) -> np.ndarray:
    """The part of every row of the run's corpus [N] in the split that a run (or fold) folder was trained on."""
    table = io.read_table(folder / run_files.SPLIT)
    return corpus.table["id"].map(dict(zip(table["id"], table["split"], strict=True))).to_numpy(dtype=object)


def baseline_of(folder: Path, task: str, labels: int) -> list[float]:
    """What a model without inputs predicts for a task [C]: that of the training labels of a run (or fold) folder."""
    info = io.read_json(folder / run_files.INFO)
    if "baselines" in info:
        return [float(v) for v in info["baselines"][task]]
    majority = info["majority"]  # format 1: the number of the class, or mean values
    return [float(v) for v in majority] if isinstance(majority, list) else np.eye(labels)[majority].tolist()


def versions() -> dict[str, str]:
    """What the run was trained with."""
    from importlib.metadata import version

    return {"python": platform.python_version(), **{p: version(p) for p in ("affuse", "torch", "numpy")}}
