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
from affuse.stores.windows import windows

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass
class Dataset:
    """Rows of a corpus with their stores; `batch(indices)` reads, pads and labels.

    `columns`: task -> manifest column; `tracks`: task per frame -> where its labels come from; `cuts`: where rows are
    windows of utterances (see `windowed`). `hidden` [N]: rows whose labels are not used; `pseudo`: task -> classes [N]
    for rows without a label, -1 for none. An utterance that a store lacks or that failed there counts as an absent
    stream.
    """

    table: pd.DataFrame
    stores: Mapping[str, FeatureStore]
    columns: Mapping[str, str]
    tasks: Mapping[str, Task]
    tracks: Mapping[str, LabelTrack | Spread] = field(default_factory=dict)
    cuts: Cuts | None = None
    hidden: np.ndarray | None = None
    pseudo: Mapping[str, np.ndarray] = field(default_factory=dict)

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
        parts = self._frames(np.arange(len(self)), task)
        return torch.cat([target for target, _ in parts]), torch.cat([known for _, known in parts])

    def frames(self, task: str) -> np.ndarray:
        """How many items `labels` has for every row: its frames, or 1. [N]"""
        if task not in self.tracks:
            return np.ones(len(self), dtype=int)
        return np.array([len(known) for _, known in self._frames(np.arange(len(self)), task)])

    def frame_numbers(self, task: str) -> np.ndarray:
        """The number, from the start of its utterance, of every item that `labels` has for a task per frame."""
        start = np.zeros(len(self)) if self.cuts is None else self.cuts.start
        first = labels_before(start, self.tracks[task])
        return np.concatenate([np.arange(n) + k for n, k in zip(self.frames(task), first, strict=True)])

    def _targets(self, rows: pd.DataFrame, task: str) -> tuple[Tensor, Tensor]:
        target, known = self.tasks[task].targets(cells(rows, self.columns[task], self.tasks[task].space))
        known = self._shown(known, rows.index)
        if task in self.pseudo:
            given = torch.from_numpy(self.pseudo[task][rows.index])
            filled = ~known & (given >= 0)
            target, known = torch.where(filled, given, target), known | filled
        return target, known

    def _shown(self, known: Tensor, index: pd.Index[Any] | np.ndarray | list[int]) -> Tensor:
        """Which labels of these rows may be used; known [N], or [N, L] of frames."""
        if self.hidden is None:
            return known
        shown = torch.from_numpy(~self.hidden[np.asarray(index)])
        return known & shown.view(-1, *[1] * (known.dim() - 1))

    def _frames(self, indices: np.ndarray, task: str) -> list[Frames]:
        track, rows = self.tracks[task], self.table.iloc[indices]
        once = rows.drop_duplicates("id")  # windows share an utterance
        if isinstance(track, LabelTrack):
            tracked = ((name, track.frames(name, self.tasks[task])) for name in once["id"])
            hidden = zip(tracked, once.index, strict=True)
            found = {name: (target, self._shown(known[None], [at])[0]) for (name, (target, known)), at in hidden}
        else:
            named = zip(once["id"], *self._targets(once, task), strict=True)
            found = {name: track.frames(name, target, known) for name, target, known in named}
        if self.cuts is None:
            return [found[name] for name in rows["id"]]
        return [self.cuts.frames(i, found[name], track) for i, name in zip(indices, rows["id"], strict=True)]

    def _label_t0(self, indices: np.ndarray, task: str) -> np.ndarray:
        """Time (s) of the first label of these rows, on the rows' own clocks. [N]"""
        if self.cuts is None:
            return np.zeros(len(indices))
        start, track = self.cuts.start[indices], self.tracks[task]
        return labels_before(start, track) / track.rate - start

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
        indices = np.asarray(indices)
        rows = self.table.iloc[indices]
        features = {n: self._features(n, indices) for n in self.stores}
        batch = collate(self.specs, features, {c: rows[c].tolist() for c in rows.columns})
        for task in self.columns:
            per_frame = task in self.tracks
            found = padded(self._frames(indices, task)) if per_frame else self._targets(rows, task)
            batch.target[task], batch.target_mask[task] = found
            if per_frame:
                batch.grid[task] = self.tracks[task].rate
                batch.grid_t0[task] = torch.from_numpy(self._label_t0(indices, task))
        return batch

    def _features(self, stream: str, indices: np.ndarray) -> list[Feature]:
        store, ids = self.stores[stream], self.table["id"].iloc[indices]
        if self.cuts is None:
            return [store.get(i) if i in store else _absent(store) for i in ids]
        pairs = zip(indices, ids, strict=True)
        return [self.cuts.feature(k, i, store) if i in store else _absent(store) for k, i in pairs]

    def inputs(self, stream: str, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, mask) of one stream alone, all rows in order, `size` at a time."""
        spec = self.stores[stream].spec
        for start in range(0, len(self), size):
            yield pad(spec, self._features(stream, np.arange(start, min(start + size, len(self)))))

    @property
    def lengths(self) -> np.ndarray:
        """Longest stream of every row in steps, to bucket batches by length. [N]"""
        ids = self.table["id"].tolist()
        whole: np.ndarray = np.max([[store.length(i) for i in ids] for store in self.stores.values()], axis=0)
        if self.cuts is None:
            return whole
        rate = max(store.spec.rate for store in self.stores.values())
        return np.minimum(whole, np.ceil((self.cuts.end - self.cuts.start) * rate - 1e-6).astype(int))

    def windowed(self, window: float, hop: float = 0.0, scored: bool = False) -> Dataset:
        """The same utterances as rows of overlapping windows of `window` s every `hop` s (0: half a window).

        `scored`: every label counts in one window only, the one in which it is farthest from the borders.
        """
        if window <= 0:
            return self
        timed = [store for store in self.stores.values() if store.spec.rate > 0]
        rate = max(store.spec.rate for store in timed)
        seconds = [[store.length(i) / store.spec.rate for store in timed] for i in self.table["id"]]
        steps = np.maximum(1, np.ceil(np.max(seconds, axis=1) * rate - 1e-6)).astype(int)
        found = windows(steps, max(1, round(window * rate)), max(1, round((hop or window / 2) * rate)))
        table = self.table.iloc[found.row].reset_index(drop=True)
        start, end, first, last = (steps / rate for steps in found[1:])
        hidden = None if self.hidden is None else self.hidden[found.row]
        return replace(self, table=table, cuts=Cuts(start, end, first, last, scored), hidden=hidden)

    def hiding(self, hidden: np.ndarray) -> Dataset:
        """The same rows, of which these [N] show no label."""
        return replace(self, hidden=hidden)

    def labelled(self) -> np.ndarray:
        """Which rows [N] have a label of any task."""
        rows = np.arange(len(self))
        found = [
            np.array([bool(known.any()) for _, known in self._frames(rows, task)])
            if task in self.tracks
            else self._targets(self.table, task)[1].numpy()
            for task in self.columns
        ]
        return np.any(found, axis=0)

    def only(self, rows: np.ndarray) -> Dataset:
        """These rows [N] bool; of whole utterances, before `windowed`."""
        hidden = None if self.hidden is None else self.hidden[rows]
        return replace(self, table=self.table[rows].reset_index(drop=True), hidden=hidden)

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


@dataclass(frozen=True)
class Cuts:
    """Windows [W] of utterances, s: from start to end; if `scored`, labels count from first to last only."""

    start: np.ndarray
    end: np.ndarray
    first: np.ndarray
    last: np.ndarray
    scored: bool

    def feature(self, k: int, name: str, store: FeatureStore) -> Feature:
        """What a store has of window k, on the window's own clock."""
        if store.spec.rate <= 0:
            return store.get(name)
        found = store.get(name, self.start[k], self.end[k])
        return replace(found, t0=found.t0 - self.start[k])

    def frames(self, k: int, frames: Frames, track: LabelTrack | Spread) -> Frames:
        """The labels of window k out of those of its utterance."""
        target, known = frames
        start, end, first, last = (
            int(labels_before(v[k], track)) for v in (self.start, self.end, self.first, self.last)
        )
        if self.scored and self.last[k] == self.end[k]:  # labels after the last step of the streams count too
            end = last = max(end, len(known))
        target, known = target[start:end], known[start:end]
        if self.scored:
            at = torch.arange(start, start + len(known))
            known = known & (at >= first) & (at < last)
        return target, known


def labels_before(time: np.ndarray, track: LabelTrack | Spread) -> np.ndarray:
    """How many labels of a track lie before each time (s)."""
    return np.ceil(time * track.rate - 1e-6).astype(int)


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
