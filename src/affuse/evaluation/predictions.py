"""The predictions that a score is computed from: of every fold, for every subset of modalities, in the scored space."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from affuse.core.config import Recipe, TaskConfig
from affuse.core.errors import ProtocolError
from affuse.core.labels import LabelSpace, map_by_name
from affuse.core.tasks import EVEN, Task, centred, joint_metrics
from affuse.core.types import MODALITIES
from affuse.corpora.manifest import Corpus
from affuse.models.model import Model
from affuse.models.predict import predict_subsets
from affuse.training.binding import dataset, label_track
from affuse.training.data import Dataset
from affuse.training.run_folder import baseline_of, run_model

Subset = tuple[str, ...]


@dataclass
class Predictions:
    """What is scored.

    table: a row per item (id, fold, speaker, source and what groups the items; for a task per frame also the frame);
    truth [N] or [N, D]; by_subset: predictions [N, C] per subset of modalities, those of the `full` model among them;
    baseline [N, C]: what predicts the same for all; thresholds [N, C] of a multi-label task, those of each item's
    model; joint: metrics over this and another task, with what they are computed from.
    """

    table: pd.DataFrame
    truth: np.ndarray
    by_subset: dict[Subset, np.ndarray]
    baseline: np.ndarray
    task: Task
    full: Subset
    thresholds: np.ndarray | None = None
    joint: dict[str, Joint] = field(default_factory=dict)

    @property
    def space(self) -> LabelSpace:
        """The label space that is scored in."""
        return self.task.space

    def of(self, subset: Subset | None) -> np.ndarray:
        """Predictions from a subset of modalities; None: the baseline's."""
        return self.baseline if subset is None else self.by_subset[subset]

    def decided(self, predicted: np.ndarray) -> np.ndarray:
        """Predictions as metrics get them: of labels such that every threshold lies at 0.5."""
        return predicted if self.thresholds is None else centred(predicted, self.thresholds)


@dataclass(frozen=True)
class Joint:
    """What a metric over two tasks is computed from: of these `rows` [n] of the first task's items, the first's truth
    and predictions with those of the `other` task in the columns behind.
    """

    other: str
    rows: np.ndarray
    both: Predictions


@dataclass(frozen=True)
class FoldPredictions:
    """What a model, or the mean of a fold's models, predicts for all items of a dataset, for one task of the model.

    by_subset: predictions [N, C] per subset of modalities, the first of them with all that the model has; constant [C]:
    what its baseline predicts for every item (None where the training data are unknown).
    """

    task: Task
    by_subset: dict[Subset, np.ndarray]
    constant: np.ndarray | None

    def renamed(self, space: LabelSpace, target: np.ndarray) -> FoldPredictions:
        """The same in the space of another corpus, whose labels are `target` [N]: classes are matched by name.

        A corpus that lacks the majority class, or where it is unknown, has its own most frequent one as baseline, which
        flatters the baseline.
        """
        task = replace(self.task, space=space)
        if self.task.kind != "classes":
            return replace(self, task=task)
        majority = -1
        if self.constant is not None:
            majority = map_by_name(self.task.space, space)[0][int(self.constant.argmax())]
        if majority < 0:
            majority = int(np.bincount(target).argmax())
        by_subset = {s: rename(p, self.task.space, space) for s, p in self.by_subset.items()}
        return FoldPredictions(task, by_subset, np.eye(len(space))[majority])


def collect(
    info: Mapping[str, Any],
    recipe: Recipe,
    folders: Sequence[Sequence[Path]],
    corpus: Corpus,
    rows: Sequence[np.ndarray],
    missing: str | None,
    device: torch.device,
) -> dict[str, Predictions]:
    """Task -> predictions of every fold's models on its rows [N] of the corpus, put together.

    A task of which nothing is labelled there is left out. Raises ProtocolError where that is so of all.
    """
    own = corpus.hash == info["corpus"]["hash"]
    parts: dict[str, list[Predictions]] = {}
    for k, (data, found) in enumerate(by_fold(info, recipe, folders, corpus, rows, missing, device)):
        for name, predicted in found.items():
            part = labelled(data, predicted, info["group_by"], own)
            if part is not None:
                parts.setdefault(name, []).append(replace(part, table=part.table.assign(fold=k)))
    if not parts:
        message = f"no utterance of the split is labelled for '{info['task']['name']}'"
        raise ProtocolError(message, "score another: affuse evaluate RUN --split valid")
    merged = {name: merge(found, own) for name, found in parts.items()}
    return {name: replace(part, joint=joints(merged, name)) for name, part in merged.items()}


def by_fold(
    info: Mapping[str, Any],
    recipe: Recipe,
    folders: Sequence[Sequence[Path]],
    corpus: Corpus,
    rows: Sequence[np.ndarray],
    missing: str | None,
    device: torch.device,
    unlabelled: Collection[str] = (),
) -> Iterator[tuple[Dataset, dict[str, FoldPredictions]]]:
    """Per fold its rows [N] of the corpus as a dataset, and what its models predict for all of them, by task.

    `unlabelled`: only these tasks, whose labels are not read.
    """
    own = corpus.hash == info["corpus"]["hash"]
    for members, chosen in zip(folders, rows, strict=True):
        models = [run_model(folder).to(device) for folder in members]
        tasks = models[0].tasks
        if unlabelled:
            there: Mapping[str, Task] = {name: tasks[name] for name in unlabelled}
        else:
            there = tasks if own else foreign(recipe.tasks, corpus, tasks)
        data = dataset(corpus, recipe, {name: replace(t, finer=()) for name, t in there.items()}, chosen)
        data = replace(data, columns={}) if unlabelled else data
        if own:
            data.check(info["store_hashes"])
        data = data.windowed(recipe.train.window, recipe.train.hop, scored=True)
        constants: dict[str, np.ndarray | None] = {
            name: np.array(baseline_of(members[0], name, len(task))) for name, task in tasks.items()
        }
        yield data, predictions_of(models, data, constants, missing, device)


def joints(found: Mapping[str, Predictions], name: str) -> dict[str, Joint]:
    """The metrics over a task and another one, on the items that are labelled for both; none where there are none."""
    pairs = joint_metrics({n: part.task for n, part in found.items()}, name)
    made = {metric: _join(found[name], found[other]) for metric, other in pairs.items()}
    return {metric: joint for metric, joint in made.items() if len(joint.rows)}


def _join(first: Predictions, second: Predictions) -> Joint:
    ids = [part.table["id"].to_numpy(str) for part in (first, second)]
    _, rows, theirs = np.intersect1d(*ids, return_indices=True)

    def columns(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.column_stack([a[rows], b[theirs]])

    both = Predictions(
        first.table.iloc[rows],
        columns(first.truth, second.truth),
        {subset: columns(p, second.by_subset[subset]) for subset, p in first.by_subset.items()},
        columns(first.baseline, second.baseline),
        first.task,
        first.full,
    )
    return Joint(second.task.name, rows, both)


def predictions_of(
    models: Sequence[Model],
    data: Dataset,
    constants: Mapping[str, np.ndarray | None],
    missing: str | None,
    device: torch.device,
) -> dict[str, FoldPredictions]:
    """Task -> the mean predictions of models of the same streams, for the subsets that `subsets_of` finds for
    `missing`.

    constants: what the baseline of each task predicts. Thresholds are the mean of the models'.
    """
    full = tuple(m for m in MODALITIES if m in set(models[0].modality.values()))
    subsets = subsets_of(full, missing)
    each = [predict_subsets(model, data, device, list(subsets)) for model in models]
    found = {}
    for name, task in models[0].tasks.items():
        if name not in data.tasks:
            continue
        mean = np.mean([[p[name] for p in predicted] for predicted in each], axis=0)
        chosen = [m.tasks[name].thresholds for m in models]
        task = replace(task, thresholds=tuple(np.mean(chosen, axis=0).tolist()) if all(chosen) else ())
        found[name] = FoldPredictions(task, dict(zip(subsets, mean, strict=True)), constants[name])
    return found


def foreign(sources: Mapping[str, TaskConfig], corpus: Corpus, tasks: Mapping[str, Task]) -> dict[str, Task]:
    """Tasks to read another corpus' labels with: its own names of classes, else the model's space.

    `sources`: the column or label track of every task. A task that the corpus has no labels for is left out. Raises
    ProtocolError where that is so of all.
    """
    found = {}
    for name, task in tasks.items():
        if (space := _foreign_space(sources[name], corpus, task)) is not None:
            found[name] = replace(task, space=space)
    if not found:
        name, task = next(iter(tasks.items()))
        source, what = sources[name], "labels" if task.kind == "classes" else "numbers"
        wanted = f"label track '{source.track}'" if source.track else f"column '{source.column}' with {what}"
        raise ProtocolError(f"{corpus.name} has no {wanted} for '{name}'", "import the corpus with it")
    return found


def _foreign_space(source: TaskConfig, corpus: Corpus, task: Task) -> LabelSpace | None:
    """The space to read another corpus' labels of a task with; None where it has none."""
    if source.track:
        if source.track not in corpus.annotations():
            return None
        classes = task.kind == "classes"
        return LabelSpace("track", tuple(label_track(corpus, source.track).named)) if classes else task.space
    column, space = source.column, task.space
    if column == "label" and space.kind != "classes" and set(space.labels) <= set(corpus.table.columns):
        return space
    texts = column in corpus.table and corpus.table[column].map(type).eq(str).any()
    if column not in corpus.table or (space.kind == "values" and texts):
        return None
    return corpus.space if column == "label" and corpus.space.kind == space.kind == "classes" else space


def subsets_of(full: Subset, missing: str | None) -> list[Subset]:
    """All modalities, every single one, and what `missing` asks for: "each" subset, or all but those joined by +."""
    subsets = [full, *[(m,) for m in full]]
    if missing == "each":
        subsets += [c for size in range(2, len(full)) for c in combinations(full, size)]
    elif missing:
        away = missing.split("+")
        unknown = [m for m in away if m not in full]
        if unknown:
            message = f"the model has no modality '{unknown[0]}'"
            raise ProtocolError(message, f"its modalities: {', '.join(full)}, or each")
        left = tuple(m for m in full if m not in away)
        if not left:
            raise ProtocolError(f"without {missing} nothing is left of the model", f"its modalities: {', '.join(full)}")
        subsets.append(left)
    return list(dict.fromkeys(subsets))


def labelled(data: Dataset, predicted: FoldPredictions, group_by: str, own: bool) -> Predictions | None:
    """The predictions for the labelled items of a dataset, of the model's `own` corpus or of another, in the space they
    are scored in; None where no item is labelled. The table says fold 0.
    """
    name = predicted.task.name
    target, known = (v.numpy() for v in data.labels(name))
    if not known.any():
        return None
    if not own:
        predicted = predicted.renamed(data.tasks[name].space, target[known])
    n, task, constant = int(known.sum()), predicted.task, predicted.constant
    assert constant is not None  # of another corpus it is its own most frequent class
    columns = dict.fromkeys(["id", "speaker", "source", "conversation", *group_by.split("+")])
    table = data.table[list(columns)].assign(fold=0)
    if task.per_frame:
        counts = data.frames(name)
        table = table.loc[table.index.repeat(counts)].assign(frame=data.frame_numbers(name))
    return Predictions(
        table=table[known].reset_index(drop=True),
        truth=target[known],
        by_subset={subset: values[known] for subset, values in predicted.by_subset.items()},
        baseline=np.tile(constant, (n, 1)),
        task=task,
        full=next(iter(predicted.by_subset)),
        thresholds=np.tile(task.thresholds, (n, 1)) if task.thresholds else None,
    )


def per_utterance(found: Predictions) -> Predictions | None:
    """Predictions per frame as those of utterances, by the task's `reduce`; None of another task.

    None too where an utterance has several labels: else the label of every frame is the utterance's own.
    """
    if not found.task.per_frame:
        return None
    first = (~found.table[["id", "fold"]].duplicated()).to_numpy()
    code = np.cumsum(first) - 1
    if not np.array_equal(found.truth, found.truth[first][code], equal_nan=found.truth.dtype.kind == "f"):
        return None
    by_subset = {s: found.task.from_frames(p, code) for s, p in found.by_subset.items()}
    return Predictions(
        found.table[first].drop(columns="frame").reset_index(drop=True),
        found.truth[first],
        by_subset,
        found.baseline[first],
        replace(found.task, resolution="utterance"),
        found.full,
        None if found.thresholds is None else found.thresholds[first],
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
        kept = [p.thresholds for p in parts if p.thresholds is not None]
        return replace(first, by_subset=mean, thresholds=np.mean(kept, axis=0) if kept else None)
    kept = [p.thresholds if p.thresholds is not None else np.full_like(p.baseline, EVEN) for p in parts]
    return Predictions(
        pd.concat([p.table for p in parts], ignore_index=True),
        np.concatenate([p.truth for p in parts]),
        {s: np.concatenate([p.by_subset[s] for p in parts]) for s in first.by_subset},
        np.concatenate([p.baseline for p in parts]),
        first.task,
        first.full,
        np.concatenate(kept) if first.task.kind == "multilabel" else None,
    )


def to_table(found: Predictions) -> pd.DataFrame:
    """predictions.parquet: one row per item and subset of modalities, a column `p:LABEL` per label.

    Of a multi-label task `t:LABEL` holds the threshold of the item's model, chosen on its selection split.
    """
    truth = list(found.truth) if found.truth.ndim == 1 else [list(map(float, t)) for t in found.truth]
    labels, frames = found.space.labels, []
    limits = {} if found.thresholds is None else {f"t:{n}": found.thresholds[:, i] for i, n in enumerate(labels)}
    for subset, predicted in found.by_subset.items():
        about = {"modalities": "+".join(subset), "full": subset == found.full, "truth": truth}
        columns = {f"p:{label}": predicted[:, i] for i, label in enumerate(labels)}
        frames.append(found.table.assign(**about, **columns, **limits))
    return pd.concat(frames, ignore_index=True)


def read_predictions(rows: pd.DataFrame) -> np.ndarray:
    """Predictions [N, C] of rows of a `to_table`, as metrics get them."""
    p, t = (rows[[c for c in rows.columns if c.startswith(prefix)]].to_numpy() for prefix in ("p:", "t:"))
    return centred(p, t) if t.shape[1] else p
