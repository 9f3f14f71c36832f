"""Labels per frame: a label track of a corpus, or the label of an utterance for each of its frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from affuse.core.errors import BadConfig, BadCorpus
from affuse.core.labels import canonical
from affuse.core.tasks import Task
from affuse.stores.store import FeatureStore

Frames = tuple[Tensor, Tensor]  # target [L] int64 or [L, C] float, known [L] bool


@dataclass(frozen=True)
class LabelTrack:
    """A store of annotations read as targets of a task: step k is the label of the time k / rate s of the utterance.

    labels: what the numbers of the store stand for: the classes that its one column counts, or the names of its
    columns.
    """

    store: FeatureStore
    labels: Sequence[str]

    @property
    def rate(self) -> float:
        """Annotations per second."""
        return self.store.spec.rate

    def frames(self, name: str, task: Task) -> Frames:
        """The target and mask of every annotated frame of an utterance; none of one that the track lacks."""
        if name not in self.store:
            return task.targets([])
        feature = self.store.get(name)
        width = int(np.prod(feature.values.shape[1:]))
        values = np.asarray(feature.values, np.float32).reshape(len(feature.values), width)
        if feature.valid is not None:
            values = np.where(feature.valid[:, None], values, np.nan)
        before = round(feature.t0 * self.rate)
        values = np.concatenate(
            [np.full((max(0, before), values.shape[1]), np.nan, np.float32), values[max(0, -before) :]]
        )
        return self._classes(values[:, 0], task) if task.kind == "classes" else self._columns(values, task)

    @property
    def named(self) -> list[str]:
        """The labels by affuse's names."""
        return [canonical(label) for label in self.labels]

    def _classes(self, values: np.ndarray, task: Task) -> Frames:
        self._check(values, np.isin(values, np.arange(len(self.labels))), f"no class from 0 to {len(self.labels) - 1}")
        known = ~np.isnan(values)
        counted = np.where(known, values, 0).astype(int)
        place = np.array([task.space.labels.index(n) if n in task.space.labels else -1 for n in self.named])
        if lacking := sorted({self.named[k] for k in np.unique(counted[known]) if place[k] < 0}):
            message = f"label track '{self.store.path.name}' has '{lacking[0]}', which {task.space.name} lacks"
            raise BadCorpus(message, f"choose a tasks.{task.name}.space with all of {', '.join(self.named)}")
        target = torch.from_numpy(np.where(known, place[counted], -1).astype(np.int64))
        return target.clamp_min(0), target >= 0

    def _columns(self, values: np.ndarray, task: Task) -> Frames:
        named = self.named
        if absent := [label for label in task.space.labels if label not in named]:
            message = f"label track '{self.store.path.name}' has no '{absent[0]}'"
            raise BadCorpus(message, f"its columns are {', '.join(named)}: choose another tasks.{task.name}.space")
        chosen = values[:, [named.index(label) for label in task.space.labels]]
        low, high = task.space.low, task.space.high if task.kind == "values" else np.inf
        self._check(chosen, (chosen >= low - 1e-6) & (chosen <= high + 1e-6), f"not from {low:g} to {high:g}")
        return task.targets(chosen)

    def _check(self, values: np.ndarray, fits: np.ndarray, what: str) -> None:
        """Raise BadCorpus for the first number that is no label, such as a code for a missing one."""
        wrong = values[~(np.isnan(values) | fits)]
        if len(wrong):
            message = f"label track '{self.store.path.name}' has {wrong[0]:g}, which is {what}"
            raise BadCorpus(message, "write NaN where a frame has no label")


@dataclass(frozen=True)
class Spread:
    """Every frame of an utterance with its label, at `rate` Hz, for as long as its longest timed stream."""

    stores: Mapping[str, FeatureStore]
    rate: float

    def count(self, name: str) -> int:
        """Number of frames of an utterance."""
        seconds = [s.length(name) / s.spec.rate for s in self.stores.values() if s.spec.rate > 0]
        return int(np.ceil(max(seconds, default=0.0) * self.rate - 1e-6))

    def frames(self, name: str, target: Tensor, known: Tensor) -> Frames:
        """The target and mask of the utterance for each of its frames."""
        n = self.count(name)
        return target.expand(n, *target.shape), known.expand(n)


def check_track(track: LabelTrack, task: str) -> LabelTrack:
    """The track, or BadConfig where its steps are no moments in time."""
    if track.rate <= 0:
        message = f"tasks.{task}.track = '{track.store.path.name}' has no rate: its steps are no moments in time"
        raise BadConfig(message, "write the annotations with their rate in Hz, or set tasks.NAME.resolution=utterance")
    return track


def padded(parts: Sequence[Frames]) -> Frames:
    """Frames of N utterances as target [N, L] or [N, L, C] and mask [N, L], L the longest and at least 1."""
    longest = max(1, *(len(known) for _, known in parts))
    first = parts[0][0]
    target = first.new_zeros(len(parts), longest, *first.shape[1:])
    known = torch.zeros(len(parts), longest, dtype=torch.bool)
    for i, (t, k) in enumerate(parts):
        target[i, : len(k)], known[i, : len(k)] = t, k
    return target, known
