"""Utterances of a split as a dataset that makes Batches, and the order in which they are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from affuse.core.errors import BadCorpus, BadFeatures
from affuse.core.labels import LabelSpace, finer
from affuse.core.types import Batch, Feature, StreamSpec
from affuse.corpora.manifest import Corpus
from affuse.stores.align import How
from affuse.stores.collate import collate, targets
from affuse.stores.store import FeatureStore


@dataclass
class Dataset:
    """Rows of a corpus with their stores; `batch(indices)` reads, pads and labels.

    `columns`: task -> manifest column; `spaces`: task -> label space. An utterance that a store lacks or that
    failed there counts as an absent stream.
    """

    table: pd.DataFrame
    stores: Mapping[str, FeatureStore]
    columns: Mapping[str, str]
    spaces: Mapping[str, LabelSpace]

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

    @property
    def specs(self) -> tuple[StreamSpec, ...]:
        """Stream specs, in the model's order."""
        return tuple(store.spec for store in self.stores.values())

    def labels(self, task: str) -> tuple[torch.Tensor, torch.Tensor]:
        """(targets, known) of all rows."""
        return targets(self._target(self.table, task), self.spaces[task])

    def _target(self, rows: pd.DataFrame, task: str) -> list[Any]:
        """The task's cells; for values as the corpus' labels, those of the columns that are named as its dimensions."""
        column, space = self.columns[task], self.spaces[task]
        if column == "label" and space.kind == "values" and set(space.labels) <= set(rows.columns):
            return rows[list(space.labels)].to_numpy(np.float32).tolist()
        return rows[column].tolist()

    def refined(self, task: str, by: str, fine: LabelSpace) -> Dataset:
        """The rows labelled for a task by the finer classes "label value", of column `by`; unlabelled where `fine` lacks one."""
        pairs = zip(self.table[self.columns[task]], self.table[by].fillna("").astype(str), strict=True)
        labels = [name if (name := finer(label, value)) in fine.labels else "" for label, value in pairs]
        table = self.table.assign(**{fine.name: labels})
        return Dataset(table, self.stores, {**self.columns, task: fine.name}, {**self.spaces, task: fine})

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The Batch of these rows."""
        rows = self.table.iloc[np.asarray(indices)]
        features = {n: [s.get(i) if i in s else _absent(s) for i in rows["id"]] for n, s in self.stores.items()}
        batch = collate(self.specs, features, {c: rows[c].tolist() for c in rows.columns})
        for task in self.columns:
            batch.target[task], batch.target_mask[task] = targets(self._target(rows, task), self.spaces[task])
        return batch

    @property
    def conversation(self) -> np.ndarray:
        """Conversation of every row; a row without one is one of its own."""
        named = self.table["conversation"].to_numpy(dtype=object)
        return np.where(named == "", "alone:" + self.table["id"].to_numpy(dtype=object), named).astype(str)

    def parts(self, size: int, whole: bool) -> Iterator[tuple[np.ndarray, Batch]]:
        """(rows, Batch), every row once: `size` at a time, or `whole` conversations of about as many together."""
        if not whole:
            for start, batch in zip(range(0, len(self), size), self.batches(size), strict=True):
                yield np.arange(start, start + len(batch)), batch
            return
        _, code, count = np.unique(self.conversation, return_inverse=True, return_counts=True)
        order = np.argsort(code, kind="stable")
        ends = np.cumsum(count)
        for part in np.split(np.arange(len(count)), np.flatnonzero(np.diff((ends - 1) // size)) + 1):
            rows = order[ends[part[0]] - count[part[0]] : ends[part[-1]]]
            yield rows, self.batch(rows)

    def batches(self, size: int) -> Iterator[Batch]:
        """All rows in order, `size` at a time; the last batch is whatever is left, never dropped."""
        for start in range(0, len(self), size):
            yield self.batch(np.arange(start, min(start + size, len(self))))


def open_stores(corpus: Corpus, streams: Mapping[str, tuple[float, How]]) -> dict[str, FeatureStore]:
    """The corpus' stores for these streams, each read at a rate (0: its own); MissingFile says what to extract."""
    return {name: FeatureStore(corpus.store_path(name)).at(*grid) for name, grid in streams.items()}


def _absent(store: FeatureStore) -> Feature:
    return Feature(np.zeros((0, *store.spec.shape), dtype=np.float32))
