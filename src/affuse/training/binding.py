"""A recipe bound to a corpus: streams, stores, tasks, splits, and what is checked before anything is extracted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from affuse.core import io, registry
from affuse.core.config import Recipe, StreamConfig, TaskConfig, extractor_of
from affuse.core.errors import BadConfig, BadCorpus, BadRun, UnknownName
from affuse.core.labels import SPACES, LabelSpace, refine_space
from affuse.core.parts import Part
from affuse.core.tasks import Task, joint_metrics, selected, with_kind
from affuse.corpora.manifest import Corpus, make_splits
from affuse.stores.groups import Standardised
from affuse.stores.label_track import LabelTrack, Spread, check_track
from affuse.stores.store import FeatureStore, stated
from affuse.training.data import Dataset, cells, open_stores

EXTRACTORS = "extractors"


def bind(recipe: Recipe, corpus: Corpus, only: Collection[str] = ()) -> Recipe:
    """The recipe for this corpus: `*` replaced by every store of vectors, label spaces filled in.

    `only` keeps the streams of these modalities (all where empty).
    """
    streams = dict(recipe.streams)
    wildcard = streams.pop("*", None)
    if wildcard is not None:
        vectors = [n for n in corpus.stores() if len(FeatureStore(corpus.store_path(n)).spec.shape) == 1]
        if not vectors:
            raise BadCorpus(
                f"{corpus.path} has no stores of vectors", "import some: affuse import features CORPUS NAME FILE.npz"
            )
        streams |= {n: replace(wildcard, extractor=_made_by(corpus, n)) for n in vectors if n not in streams}
    if only:
        streams = {n: s for n, s in streams.items() if modality_of(n, corpus, s.extractor) in only}
        if not streams:
            raise BadConfig(
                f"no stream of the recipe is {' or '.join(only)}", f"its streams: {', '.join(recipe.streams)}"
            )
    tasks = {name: replace(task, space=task.space or corpus.space.name) for name, task in recipe.tasks.items()}
    return replace(recipe, streams=streams, tasks=tasks)


def _made_by(corpus: Corpus, name: str) -> dict[str, Any]:
    """The extractor's options that a store was made with; none for imported features."""
    card = FeatureStore(corpus.store_path(name)).card
    if card["extractor"] not in registry.cards(EXTRACTORS):
        return {}
    return ({"name": card["extractor"]} if card["extractor"] != name else {}) | card["parameters"]


def modality_of(stream: str, corpus: Corpus, options: Mapping[str, Any]) -> str:
    """The modality of a stream: its store's, else its extractor's."""
    path = corpus.store_path(stream)
    if (path / "card.json").is_file():
        return FeatureStore(path).spec.modality
    card = registry.cards(EXTRACTORS).get(extractor_of(stream, options)[0])
    if card is None:
        raise UnknownName.among("stream", stream, [*corpus.stores(), *registry.cards(EXTRACTORS)])
    return str(card["modalities"][0])


def tasks_of(recipe: Recipe, corpus: Corpus) -> dict[str, Task]:
    """The recipe's tasks on this corpus; the space "custom" is the corpus' own.

    Raises UnknownName for other spaces and for label tracks that are not there, BadConfig for a column that is not
    there and for a kind that the space cannot have.
    """
    known = {**SPACES, "custom": corpus.space}
    found = {}
    for name, task in recipe.tasks.items():
        if task.space not in known:
            raise UnknownName.among(f"value of tasks.{name}.space:", task.space, known)
        space = with_kind(known[task.space], task.kind, name)
        _check_source(name, task, space, corpus)
        found[name] = Task(name, space, task.resolution, task.reduce)
    return found


def _check_source(name: str, task: TaskConfig, space: LabelSpace, corpus: Corpus) -> None:
    """Raise for a task whose labels are nowhere, or are of frames although the task is per utterance."""
    if task.track and task.resolution != "frame":
        message = f"tasks.{name}.track = '{task.track}' labels frames, and the task is per utterance"
        raise BadConfig(message, f"set tasks.{name}.resolution=frame, or leave the track out")
    if task.track:
        if not (corpus.annotation_path(task.track) / "card.json").is_file():
            raise UnknownName.among(f"value of tasks.{name}.track:", task.track, corpus.annotations())
        return
    dimensions = task.column == "label" and space.kind != "classes" and set(space.labels) <= set(corpus.table)
    if task.column not in corpus.table and not dimensions:
        columns = ", ".join(corpus.table.columns)
        raise BadConfig(f"tasks.{name}.column = {task.column} is no column of {corpus.name}", f"its columns: {columns}")


def tracks_of(
    recipe: Recipe, corpus: Corpus, tasks: Mapping[str, Task], stores: Mapping[str, FeatureStore]
) -> dict[str, LabelTrack | Spread]:
    """Where the labels of every task per frame come from. Raises BadConfig where steps are no moments in time."""
    found: dict[str, LabelTrack | Spread] = {}
    for name, task in recipe.tasks.items():
        if name not in tasks or not tasks[name].per_frame:
            continue
        if task.track:
            found[name] = check_track(label_track(corpus, task.track), name)
        elif task.rate <= 0 or not any(s.spec.rate > 0 for s in stores.values()):
            message = (
                f"task '{name}' is per frame, and no stream has steps in time, or tasks.{name}.rate is not above 0"
            )
            raise BadConfig(message, "add a stream with a rate, or set the task's resolution=utterance")
        else:
            found[name] = Spread(stores, task.rate)
    return found


def label_track(corpus: Corpus, name: str) -> LabelTrack:
    """A label track of the corpus, with what its numbers stand for."""
    names = corpus.info.get("tracks", {}).get(name) or list(corpus.space.labels)
    return LabelTrack(FeatureStore(corpus.annotation_path(name)), names)


def missing_stores(recipe: Recipe, corpus: Corpus) -> dict[str, dict[str, Any]]:
    """Extractor -> parameters of the streams that the corpus has not got completely."""
    missing = {}
    for name, stream in recipe.streams.items():
        path = corpus.store_path(name)
        kind = extractor_of(name, stream.extractor)[0]
        made = kind in registry.cards(EXTRACTORS)
        done = (path / "failures.json").is_file() or ((path / "card.json").is_file() and not made)
        if done:
            _check_parameters(name, stream, FeatureStore(path))
        elif made:
            missing[name] = stream.extractor
        else:
            raise BadConfig(
                f"stream '{name}' is neither an extractor nor a store of {corpus.path}",
                f"stores: {', '.join(corpus.stores()) or 'none'}; extractors: {', '.join(registry.cards(EXTRACTORS))}",
            )
    return missing


def _check_parameters(name: str, stream: StreamConfig, store: FeatureStore) -> None:
    kind, options = extractor_of(name, stream.extractor)
    there = (store.card["extractor"], store.card["parameters"])
    if kind in registry.cards(EXTRACTORS) and io.digest([kind, stated(kind, options)]) != io.digest(there):
        raise BadRun(
            f"store '{name}' was made by {there}, the recipe wants {kind} with {options}", f"delete {store.path}"
        )


def check(recipe: Recipe, corpus: Corpus, folds: int | None = None, labelled: bool = True) -> list[np.ndarray]:
    """The split of every fold [N], after all is checked that needs no features: options, tasks, folds and groups.

    `labelled`: whether labels are needed. Raises BadConfig, BadCorpus or UnknownName.
    """
    tasks, how = tasks_of(recipe, corpus), recipe.split
    lead = selected(tasks, recipe.train.task)
    joint = joint_metrics(tasks, lead.name)
    _check_options(recipe, lead, [*lead.metrics(), *joint])
    known = {name: labelled_rows(corpus, recipe.tasks[name], task) for name, task in tasks.items()}
    splits = make_splits(corpus.table, how.group_by, how.valid, how.test, folds, how.seed)
    if not labelled:
        return splits
    names = [lead.name, *filter(None, [joint.get(recipe.train.selection)])]
    both = np.logical_and.reduce([known[name] for name in names])
    for part, what in {"train": "training", **({"valid": "selection"} if how.valid > 0 else {})}.items():
        if not all((both & (split == part)).any() for split in splits):
            source = "track" if recipe.tasks[lead.name].track else "column"
            message = f"no {what} utterance is labelled for {' and '.join(map(repr, names))}"
            raise BadCorpus(message, f"name its {source} as tasks.{lead.name}.{source}, or check the split column")
    return splits


def _check_options(recipe: Recipe, lead: Task, metrics: Collection[str]) -> None:
    train = recipe.train
    if recipe.split.valid <= 0 and (train.keep != "last" or train.patience):
        raise BadConfig("split.valid = 0 leaves nothing to select an epoch on", "set train.keep=last train.patience=0")
    if train.members < 1 or train.specialists < 0:
        message = f"train.members = {train.members}, train.specialists = {train.specialists}"
        raise BadConfig(message, "give members >= 1, specialists >= 0")
    if min(steps := (train.epochs, train.batch_size, train.accumulate)) < 1:
        message = "train.epochs = {}, batch_size = {}, accumulate = {}".format(*steps)
        raise BadConfig(message, "give 1 or more of each")
    if (train.specialists > 0 or train.sampling == "balanced") and (lead.kind != "classes" or lead.per_frame):
        message = f"balanced sampling and specialists count the classes of utterances, and task '{lead.name}' has none"
        raise BadConfig(message, "set train.sampling=natural train.specialists=0")
    if train.pseudo_labels > 0 and (lead.kind != "classes" or lead.per_frame or recipe.context):
        message = f"train.pseudo_labels = {train.pseudo_labels} for '{lead.name}'"
        raise BadConfig(message, "pseudo-labels are for classes of utterances without a context: set it to 0")
    if train.window > 0 and (recipe.context or any(t.resolution == "utterance" for t in recipe.tasks.values())):
        what = "a context" if recipe.context else "a task per utterance"
        message = f"train.window = {train.window} with {what}"
        raise BadConfig(message, "windows are for tasks per frame: set train.window=0")
    selects = train.selection and recipe.split.valid > 0  # where nothing is held out it is not used
    if selects and train.selection not in metrics:
        message = f"train.selection = '{train.selection}' does not fit a task of {lead.kind}"
        raise BadConfig(message, f"choose one of {', '.join(metrics)}")


def labelled_rows(corpus: Corpus, config: TaskConfig, task: Task) -> np.ndarray:
    """Which utterances [N] have a target. Raises BadCorpus for one that the label space lacks."""
    if config.track:
        there = FeatureStore(corpus.annotation_path(config.track))
        return np.array([name in there for name in corpus.table["id"]])
    return task.targets(cells(corpus.table, config.column, task.space))[1].numpy()


def typical_seconds(corpus: Corpus, recipe: Recipe) -> float | None:
    """Median length of an utterance in seconds, from its times or its timed streams; the window of `analyze`."""
    spans = (corpus.table["end"] - corpus.table["start"]).dropna()
    if len(spans):
        return float(spans.median())
    stores = (FeatureStore(corpus.store_path(s)) for s in recipe.streams)
    timed = [s for s in stores if s.spec.rate > 0]
    lengths = [s.length(i) / s.spec.rate for s in timed[:1] for i in s.ids if s.length(i)]
    return float(np.median(lengths)) if lengths else None


def dataset(corpus: Corpus, recipe: Recipe, tasks: Mapping[str, Task], chosen: np.ndarray) -> Dataset:
    """The chosen rows with the recipe's stores and the labels of its tasks."""
    columns = {name: recipe.tasks[name].column for name in tasks}
    table = corpus.table[chosen].reset_index(drop=True)
    stores = open_stores(corpus, {n: (s.rate, s.how) for n, s in recipe.streams.items()})
    for name, by in standardised(recipe).items():
        if by not in corpus.table:
            raise UnknownName.among(f"column in streams.{name}.standardise_by:", by, corpus.table.columns)
        groups = corpus.table[by].fillna("").astype(str).tolist()
        stores[name] = Standardised(stores[name], corpus.table["id"].tolist(), groups)
    return Dataset(table, stores, columns, tasks, tracks_of(recipe, corpus, tasks, stores))


def standardised(recipe: Recipe) -> dict[str, str]:
    """Stream -> the column by whose groups it is standardised, of those that are."""
    return {name: stream.standardise_by for name, stream in recipe.streams.items() if stream.standardise_by}


def training_set(
    corpus: Corpus, recipe: Recipe, tasks: Mapping[str, Task], chosen: np.ndarray
) -> tuple[Dataset, dict[str, Task]]:
    """The chosen rows, labelled by the finer classes of a task with `refine`; and the tasks as the model has them.

    With split.labelled < 1 most labels are hidden, and rows without one are left out where nothing learns from them.
    """
    data, made = dataset(corpus, recipe, tasks, chosen), dict(tasks)
    _check_keys(recipe, data)
    if recipe.split.labelled < 1:
        data = data.hiding(~kept_labels(data, selected(tasks, recipe.train.task).name, recipe))
        data = data if recipe.context or learns_unlabelled(recipe) else data.only(data.labelled())
    for name, task in recipe.tasks.items():
        if not task.refine:
            continue
        if task.refine not in data.table or tasks[name].kind != "classes" or task.track:
            message = f"tasks.{name}.refine = '{task.refine}' does not divide classes of utterances"
            raise BadConfig(message, f"columns: {', '.join(data.table)}")
        labels, values = data.table[task.column], data.table[task.refine].fillna("").astype(str)
        fine, classes = refine_space(tasks[name].space, labels.tolist(), values.tolist())
        data, made[name] = data.refined(name, task.refine, fine), replace(tasks[name], finer=tuple(classes))
    return data, made


def _check_keys(recipe: Recipe, data: Dataset) -> None:
    """BadConfig where a fusion attends to the steps of streams, and most utterances have one step of a stream."""
    if registry.cards("fusions")[recipe.fusion.name].get("keys") != "many":
        return
    for name, store in data.stores.items():
        if np.median([length for i in data.table["id"] if (length := store.length(i))] or [2]) <= 1:
            message = f"stream '{name}' has one vector per utterance: attention over one key has the weight 1, so that "
            message += f"fusion '{recipe.fusion.name}' would ask nothing"
            raise BadConfig(message, "read a sequence, or choose a fusion of vectors, such as fusion=gated")


def learns_unlabelled(recipe: Recipe) -> bool:
    """Whether anything is learnt from utterances without a label."""
    cards, parts = registry.cards("objectives"), [o.part for o in recipe.objectives.values()]
    free = [part for part in parts if cards[part.name].get("unlabelled") and part.options.get("items") != "labelled"]
    return recipe.train.pseudo_labels > 0 or bool(free)


def kept_labels(data: Dataset, task: str, recipe: Recipe) -> np.ndarray:
    """Which rows [N] keep their labels: the share `split.labelled` of every class, or of all rows of another task."""
    by_class = data.tasks[task].kind == "classes" and task not in data.tracks
    classes = data.labels(task)[0].numpy() if by_class else np.zeros(len(data))
    order = np.random.default_rng([recipe.split.seed, len(data)]).permutation(len(data))
    order = order[data.labelled()[order]]
    order = order[np.argsort(classes[order], kind="stable")]
    _, count = np.unique(classes[order], return_counts=True)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
    keep = np.zeros(len(data), dtype=bool)
    keep[order[rank < np.repeat(np.maximum(1, np.round(count * recipe.split.labelled)), count)]] = True
    return keep


def control(recipe: Recipe, corpus: Corpus) -> Recipe | None:
    """The recipe of the model that is trained beside it on `control`'s modalities alone; None where that is nothing.

    The same encoders, optimiser and epochs, from scratch, on the labels alone.
    """
    chosen = {
        name: replace(stream, init="")
        for name, stream in recipe.streams.items()
        if modality_of(name, corpus, stream.extractor) in recipe.control
    }
    if not chosen or len(chosen) == len(recipe.streams):
        return None
    cards = registry.cards("objectives")
    objectives = {n: o for n, o in recipe.objectives.items() if not cards[o.part.name].get("auxiliary")}
    train = replace(recipe.train, pseudo_labels=0.0)
    fusion, balance = Part("concat"), Part("none", {"apply": "auto"})
    alone = replace(recipe, init="", control=[], pretrain={}, fusion=fusion, balance=balance)
    return replace(alone, streams=chosen, objectives=objectives, train=train)
