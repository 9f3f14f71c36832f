"""What a run predicts for clips that need no labels: the rows of a challenge's file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from affuse.core.errors import ProtocolError
from affuse.corpora.manifest import Corpus
from affuse.evaluation.predictions import FoldPredictions, by_fold
from affuse.training.data import Dataset
from affuse.training.run_folder import open_run, split_of


@dataclass(frozen=True)
class ClipPredictions:
    """Predictions [N, C] by task, a row per id; `empty`: ids without a usable stream, which have the baseline's."""

    ids: list[str]
    by_task: dict[str, np.ndarray]
    empty: list[str]


def predict_clips(
    run: Path, corpus: Corpus, chosen: np.ndarray, tasks: Collection[str], device: str = "cpu"
) -> ClipPredictions:
    """What a run predicts for the chosen rows [N] of a corpus, as `evaluate` has it: labels are not read.

    Of its own corpus a clip is predicted by the fold that tests it, of another one by the mean of all folds. A clip
    without a usable stream has what the baseline of the training labels predicts. Raises ProtocolError for clips that
    the run was trained on.
    """
    info, recipe, folders = open_run(run)
    rows = [chosen & _predicted_by(members[0], info, corpus) for members in folders]
    if trained := int((chosen & ~np.any(rows, axis=0)).sum()):
        message = f"{run} was trained on {trained} of the {int(chosen.sum())} clips"
        raise ProtocolError(message, "use a run that was trained on the training part only")
    used = [k for k, own in enumerate(rows) if own.any()]
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in tasks}
    empty: set[str] = set()
    picked = ([folders[k] for k in used], corpus, [rows[k] for k in used])
    for data, predicted in by_fold(info, recipe, *picked, None, torch.device(device), tasks):
        ids, usable = data.table["id"].to_numpy(), _usable(data)
        empty |= set(ids[~usable])
        for name in tasks:
            found[name].append(pd.DataFrame(_filled(predicted[name], usable), index=ids))
    order = corpus.table["id"][chosen].tolist()
    by_task = {name: pd.concat(parts).groupby(level=0).mean().loc[order].to_numpy() for name, parts in found.items()}
    return ClipPredictions(order, by_task, [name for name in order if name in empty])


def _predicted_by(folder: Path, info: Mapping[str, Any], corpus: Corpus) -> np.ndarray:
    """Which rows [N] a fold's models predict: those that it tests; without folds, or of another corpus, those that it
    was not trained on.
    """
    split = split_of(folder, corpus)
    folds = info["folds"] and corpus.hash == info["corpus"]["hash"]
    return np.asarray(split == "test" if folds else split != "train")


def _usable(data: Dataset) -> np.ndarray:
    """Which rows [N] have a usable step of any stream."""
    return np.array([any(s.usable(i) for s in data.stores.values() if i in s) for i in data.table["id"]])


def _filled(predicted: FoldPredictions, usable: np.ndarray) -> np.ndarray:
    """Predictions [N, C] from all modalities, the baseline's where nothing is usable."""
    values = next(iter(predicted.by_subset.values()))
    assert predicted.constant is not None  # of a run it is known
    return np.where(usable[:, None], values, predicted.constant)
