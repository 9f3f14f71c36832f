"""The predictions that a score is computed from: of every fold, for every subset of modalities, in the space they are scored in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from affuse.core import io
from affuse.core.config import Recipe
from affuse.core.errors import ProtocolError
from affuse.core.labels import LabelSpace, map_by_name
from affuse.core.types import MODALITIES
from affuse.corpora.manifest import Corpus
from affuse.models.model import Model
from affuse.models.predict import predict_subsets
from affuse.training.data import Dataset
from affuse.training.run import check_stores, dataset, run_model

Subset = tuple[str, ...]


@dataclass
class Predictions:
    """What is scored.

    table: a row per item (id, fold, speaker, source and what groups the items); truth [N] or [N, D]; by_subset: predictions
    [N, C] per subset of modalities, those of the `full` model among them; baseline [N, C]: what predicts the same for all.
    """

    table: pd.DataFrame
    truth: np.ndarray
    by_subset: dict[Subset, np.ndarray]
    baseline: np.ndarray
    space: LabelSpace
    full: Subset


@dataclass(frozen=True)
class Answers:
    """What a model, or the mean of a fold's models, predicts for all rows of a dataset, in the label space of the model.

    by_subset: predictions [N, C] per subset of modalities, the first of them with all that the model has; constant: what its
    baseline predicts for every item, the number of the majority class or the training mean of the values.
    """

    space: LabelSpace
    by_subset: dict[Subset, np.ndarray]
    constant: Any

    def renamed(self, space: LabelSpace, target: np.ndarray) -> Answers:
        """The same in the space of another corpus, whose labels are `target` [N]: classes are matched by name.

        A corpus that lacks the majority class has its own most frequent one as baseline, which flatters the baseline.
        """
        if self.space.kind != "classes":
            return replace(self, space=space)
        constant = map_by_name(self.space, space)[0][self.constant]
        if constant < 0:
            constant = int(np.bincount(target).argmax())
        return Answers(space, {s: rename(p, self.space, space) for s, p in self.by_subset.items()}, constant)


def collect(
    info: Mapping[str, Any],
    recipe: Recipe,
    folders: Sequence[Sequence[Path]],
    corpus: Corpus,
    rows: Sequence[np.ndarray],
    missing: str | None,
    device: torch.device,
) -> Predictions:
    """Predictions of every fold's models on its rows [N] of the corpus, put together."""
    own = corpus.hash == info["corpus"]["hash"]
    columns = {name: task.column for name, task in recipe.tasks.items()}
    parts: list[Predictions] = []
    for members, chosen in zip(folders, rows, strict=True):
        models = [run_model(folder).to(device) for folder in members]
        spaces = models[0].spaces
        data = dataset(corpus, recipe, spaces if own else foreign(columns, corpus, spaces), chosen)
        if own:
            check_stores(info, data)
        task = next(iter(spaces))
        answers = answers_of(models, data, task, io.read_json(members[0] / "run.json")["majority"], missing, device)
        part = labelled(data, task, answers, info["group_by"], own)
        parts.append(replace(part, table=part.table.assign(fold=len(parts))))
    return merge(parts, own)


def answers_of(
    models: Sequence[Model], data: Dataset, task: str, constant: Any, missing: str | None, device: torch.device
) -> Answers:
    """The mean predictions of models of the same streams, for the subsets that `subsets_of` finds for `missing`."""
    full = tuple(m for m in MODALITIES if m in set(models[0].modality.values()))
    subsets = subsets_of(full, missing)
    each = [[p[task] for p in predict_subsets(model, data, device, list(subsets))] for model in models]
    return Answers(models[0].spaces[task], dict(zip(subsets, np.mean(each, axis=0), strict=True)), constant)


def foreign(columns: Mapping[str, str], corpus: Corpus, spaces: Mapping[str, LabelSpace]) -> dict[str, LabelSpace]:
    """Label spaces to read another corpus' labels with: its own names of classes, else the model's space."""
    for task, space in spaces.items():
        column = columns[task]
        if column == "label" and space.kind == "values" and set(space.labels) <= set(corpus.table.columns):
            continue
        if column not in corpus.table or (space.kind == "values" and corpus.table[column].map(type).eq(str).any()):
            what = "numbers" if space.kind == "values" else "labels"
            message = f"{corpus.name} has no column '{column}' with {what} for '{task}'"
            raise ProtocolError(message, "import the corpus with that column")
    return {
        task: corpus.space if columns[task] == "label" and corpus.space.kind == space.kind else space
        for task, space in spaces.items()
    }


def subsets_of(full: Subset, missing: str | None) -> list[Subset]:
    """All modalities, every single one, and what `missing` asks for: "each" subset, or all but those joined by +."""
    subsets = [full, *[(m,) for m in full]]
    if missing == "each":
        subsets += [c for size in range(2, len(full)) for c in combinations(full, size)]
    elif missing:
        away = missing.split("+")
        unknown = [m for m in away if m not in full]
        if unknown:
            raise ProtocolError(f"the model has no modality '{unknown[0]}'", f"its modalities: {', '.join(full)}, or each")
        left = tuple(m for m in full if m not in away)
        if not left:
            raise ProtocolError(f"without {missing} nothing is left of the model", f"its modalities: {', '.join(full)}")
        subsets.append(left)
    return list(dict.fromkeys(subsets))


def labelled(data: Dataset, task: str, answers: Answers, group_by: str, own: bool) -> Predictions:
    """The answers for the labelled rows of a dataset, of the model's `own` corpus or of another, in the space they are scored in.

    The table says fold 0. Raises ProtocolError where no row is labelled.
    """
    target, known = (v.numpy() for v in data.labels(task))
    if not known.any():
        message = f"no utterance of the split is labelled for '{task}'"
        raise ProtocolError(message, "score another: affuse evaluate RUN --split valid")
    if not own:
        answers = answers.renamed(data.spaces[task], target[known])
    space, n = answers.space, int(known.sum())
    constant = np.eye(len(space))[answers.constant] if space.kind == "classes" else np.array(answers.constant)
    columns = dict.fromkeys(["id", "speaker", "source", "conversation", *group_by.split("+")])
    return Predictions(
        table=data.table[list(columns)].assign(fold=0)[known],
        truth=target[known],
        by_subset={subset: predicted[known] for subset, predicted in answers.by_subset.items()},
        baseline=np.tile(constant, (n, 1)),
        space=space,
        full=next(iter(answers.by_subset)),
    )


def rename(probabilities: np.ndarray, model: LabelSpace, corpus: LabelSpace) -> np.ndarray:
    """Probabilities [N, C_model] as [N, C_corpus] by label name, renormalised over the shared classes."""
    index, _, extra = map_by_name(model, corpus)
    if len(extra) == len(model):
        raise ProtocolError(
            f"{model.name} and {corpus.name} share no label", "map the labels when importing the corpus"
        )
    matrix = np.zeros((len(model), len(corpus)))
    for i, j in enumerate(index):
        if j >= 0:
            matrix[i, j] = 1
    mapped = probabilities @ matrix
    return mapped / np.maximum(mapped.sum(1, keepdims=True), 1e-12)


def merge(parts: list[Predictions], folds: bool) -> Predictions:
    """Folds one under the other; several models on the same foreign rows are averaged."""
    first = parts[0]
    if not folds:
        mean = {s: np.mean([p.by_subset[s] for p in parts], axis=0) for s in first.by_subset}
        return replace(first, by_subset=mean)
    return Predictions(
        pd.concat([p.table for p in parts], ignore_index=True),
        np.concatenate([p.truth for p in parts]),
        {s: np.concatenate([p.by_subset[s] for p in parts]) for s in first.by_subset},
        np.concatenate([p.baseline for p in parts]),
        first.space,
        first.full,
    )


def to_table(found: Predictions) -> pd.DataFrame:
    """predictions.parquet: one row per item and subset of modalities, a probability column `p:LABEL` per class."""
    truth = list(found.truth) if found.truth.ndim == 1 else [list(map(float, t)) for t in found.truth]
    frames = []
    for subset, predicted in found.by_subset.items():
        about = {"modalities": "+".join(subset), "full": subset == found.full, "truth": truth}
        columns = {f"p:{label}": predicted[:, i] for i, label in enumerate(found.space.labels)}
        frames.append(found.table.assign(**about, **columns))
    return pd.concat(frames, ignore_index=True)
