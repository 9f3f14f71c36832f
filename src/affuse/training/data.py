"""Utterances of a split as a dataset that makes Batches, and the order in which they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from affuse.core.errors import BadCorpus, BadFeatures, BadRun
from affuse.core.labels import LabelSpace, finer
from affuse.core.tasks import Task
from affuse.core.types import Batch, Feature, StreamSpec
from affuse.corpora.manifest import Corpus
from affuse.stores.align import How
from affuse.stores.collate import collate, pad
from affuse.stores.label_track import Frames, LabelTrack, Spread, padded
from affuse.stores.store import FeatureStore

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass
class Dataset:
    """Rows of a corpus with their stores; `batch(indices)` reads, pads and labels.

    `columns`: task -> manifest column; `tracks`: task per frame -> where its labels come from. An utterance that a
    store lacks or that failed there counts as an absent stream.
    """

    table: pd.DataFrame
    stores: Mapping[str, FeatureStore]
    columns: Mapping[str, str]
    tasks: Mapping[str, Task]
    tracks: Mapping[str, LabelTrack | Spread] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.table.empty:
            raise BadCorpus("the split is empty", "check the split column, --split, or the number of folds")
        ids = set(self.table["id"])
        for name, store in self.stores.items():
            if not ids & set(store.ids):
                raise BadFeatures(
                    f"store '{name}' holds none of the corpus' {len(ids)} utterances",
                    "the ids must be those of the manifest; extract or import the features again",
                )
        if not any(store.usable(i) for store in self.stores.values() for i in self.table["id"] if i in store):
            raise BadFeatures(
                f"no stream ({', '.join(self.stores)}) has a usable step in any of the {len(self)} utterances",
                "check start and end, and that the media hold what the extractors look for: affuse check CORPUS",
            )

    def __len__(self) -> int:
        return len(self.table)

    def check(self, hashes: Mapping[str, str]) -> None:
        """Raise BadRun for stores that are not those which a run was trained on."""
        for name, store in self.stores.items():
            if store.hash != hashes[name]:
                raise BadRun(
                    f"store '{name}' changed since the run was trained", "extract it as the run's config.yaml says"
                )

    @property
    def specs(self) -> tuple[StreamSpec, ...]:
        """Stream specs, in the model's order."""
        return tuple(store.spec for store in self.stores.values())

    # ---- labels ------------------------------------------------------------------------------------------------

    def labels(self, task: str) -> tuple[Tensor, Tensor]:
        """(targets, known) of all rows; of a task per frame those of all frames, one row after the other."""
        if task not in self.tracks:
            return self._targets(self.table, task)
        parts = self._frames(self.table, task)
        return torch.cat([target for target, _ in parts]), torch.cat([known for _, known in parts])

    def frames(self, task: str) -> np.ndarray:
        """How many items `labels` has for every row: its frames, or 1. [N]"""
        if task not in self.tracks:
            return np.ones(len(self), dtype=int)
        return np.array([len(known) for _, known in self._frames(self.table, task)])

    def _targets(self, rows: pd.DataFrame, task: str) -> tuple[Tensor, Tensor]:
        return self.tasks[task].targets(cells(rows, self.columns[task], self.tasks[task].space))

    def _frames(self, rows: pd.DataFrame, task: str) -> list[Frames]:
        track = self.tracks[task]
        if isinstance(track, LabelTrack):
            return [track.frames(name, self.tasks[task]) for name in rows["id"]]
        target, known = self._targets(rows, task)
        return [track.frames(name, t, k) for name, t, k in zip(rows["id"], target, known, strict=True)]

    def refined(self, task: str, by: str, fine: LabelSpace) -> Dataset:
        """The rows labelled by the finer classes "label value", of column `by`; unlabelled where `fine` lacks one."""
        pairs = zip(self.table[self.columns[task]], self.table[by].fillna("").astype(str), strict=True)
        labels = [name if (name := finer(label, value)) in fine.labels else "" for label, value in pairs]
        table = self.table.assign(**{fine.name: labels})
        tasks = {**self.tasks, task: replace(self.tasks[task], space=fine, finer=())}
        return replace(self, table=table, columns={**self.columns, task: fine.name}, tasks=tasks)

    # ---- batches -----------------------------------------------------------------------------------------------

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The Batch of these rows."""
        rows = self.table.iloc[np.asarray(indices)]
        features = {n: self._features(n, rows["id"]) for n in self.stores}
        batch = collate(self.specs, features, {c: rows[c].tolist() for c in rows.columns})
        for task in self.columns:
            per_frame = task in self.tracks
            found = padded(self._frames(rows, task)) if per_frame else self._targets(rows, task)
            batch.target[task], batch.target_mask[task] = found
            if per_frame:
                batch.grid[task] = self.tracks[task].rate
        return batch

    def _features(self, stream: str, ids: Iterable[str]) -> list[Feature]:
        store = self.stores[stream]
        return [store.get(i) if i in store else _absent(store) for i in ids]

    def inputs(self, stream: str, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, mask) of one stream alone, all rows in order, `size` at a time."""
        spec, ids = self.stores[stream].spec, self.table["id"].tolist()
        for start in range(0, len(ids), size):
            yield pad(spec, self._features(stream, ids[start : start + size]))

    @cached_property
    def conversation(self) -> np.ndarray:
        """Conversation of every row; a row without one is one of its own."""
        named = self.table["conversation"].to_numpy(dtype=object)
        return np.where(named == "", "alone:" + self.table["id"].to_numpy(dtype=object), named).astype(str)

    def parts(self, size: int, whole: bool) -> Iterator[tuple[np.ndarray, Batch]]:
        """(rows, Batch), every row once: `size` at a time, or `whole` conversations of about as many together."""
        rows = self._whole(size) if whole else np.split(np.arange(len(self)), np.arange(size, len(self), size))
        return zip(rows, ahead(self.batch, rows), strict=True)

    def _whole(self, size: int) -> list[np.ndarray]:
        _, code, count = np.unique(self.conversation, return_inverse=True, return_counts=True)
        order, ends = np.argsort(code, kind="stable"), np.cumsum(count)
        parts = np.split(np.arange(len(count)), np.flatnonzero(np.diff((ends - 1) // size)) + 1)
        return [order[ends[part[0]] - count[part[0]] : ends[part[-1]]] for part in parts]

    def batches(self, size: int) -> Iterator[Batch]:
        """All rows in order, `size` at a time; the last batch is whatever is left, never dropped."""
        return (batch for _, batch in self.parts(size, False))


def cells(rows: pd.DataFrame, column: str, space: LabelSpace) -> list[Any]:
    """The cells of a task's column; of values and labels those of the columns that are named like them."""
    if column == "label" and space.kind != "classes" and set(space.labels) <= set(rows.columns):
        return rows[list(space.labels)].to_numpy(np.float32).tolist()
    return rows[column].tolist()


def ahead(make: Callable[[Given], Made], items: Iterable[Given]) -> Iterator[Made]:
    """make(item) of every item in order, the next one in a thread of its own while the caller works on this one."""
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as reader:
        following = None
        for item in items:
            current, following = following, reader.submit(make, item)
            if current is not None:
                yield current.result()
        if following is not None:
            yield following.result()


def open_stores(corpus: Corpus, streams: Mapping[str, tuple[float, How]]) -> dict[str, FeatureStore]:
    """The corpus' stores for these streams, each read at a rate (0: its own); MissingFile says what to extract."""
    return {name: FeatureStore(corpus.store_path(name)).at(*grid) for name, grid in streams.items()}


def _absent(store: FeatureStore) -> Feature:
    return Feature(np.zeros((0, *store.spec.shape), dtype=np.float32))
