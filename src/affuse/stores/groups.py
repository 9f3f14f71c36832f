"""Values less the mean of their group, over its deviation: what is left when a speaker's own level is taken away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from affuse.core.errors import BadConfig
from affuse.core.types import Feature, StreamSpec
from affuse.stores.store import FeatureStore

FEWEST = 5  # utterances of a group; smaller ones are standardised together


class Standardised(FeatureStore):
    """A store of vectors, read with every group standardised by all of its utterances, whatever their split or label.

    `groups[i]` is the group of `ids[i]`; those of fewer than FEWEST stored utterances, and utterances of no group (""),
    count as one. The scored utterances have a part in their group's level, so scores presuppose that several of a
    speaker are at hand. Numbers that do not vary within a group become 0; NaN stays. Raises BadConfig where steps are
    not vectors.
    """

    def __init__(self, store: FeatureStore, ids: Sequence[str], groups: Sequence[str]) -> None:
        if len(store.spec.shape) != 1:
            raise BadConfig(
                f"stream '{store.spec.name}' has steps of shape {store.spec.shape}", "standardise_by needs vectors (D,)"
            )
        self.__dict__.update(store.__dict__)
        there = {name: group for name, group in zip(ids, groups, strict=True) if name in store}
        counts = Counter(there.values())
        self._group = {name: group if counts[group] >= FEWEST else "" for name, group in there.items()}
        self._levels: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def spec(self) -> StreamSpec:
        """What one step is: numbers without a unit."""
        return replace(super().spec, scale=1.0)

    def get(self, name: str, start: float = 0.0, end: float | None = None) -> Feature:
        """The standardised Feature of an id, float32; see FeatureStore.get."""
        feature = super().get(name, start, end)
        mean, scale = self._level(self._group[name])
        return Feature(((feature.values - mean) * scale).astype(np.float32), feature.valid, feature.t0)

    def _level(self, group: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and one over deviation [D] of a group's usable steps."""
        if group not in self._levels:
            parts = [super(Standardised, self).get(name) for name, of in self._group.items() if of == group]
            values = np.concatenate([p.values if p.valid is None else p.values[p.valid] for p in parts]).astype(float)
            known = np.isfinite(values)
            count = known.sum(0).clip(1)
            mean = np.where(known, values, 0).sum(0) / count
            variance = (np.where(known, values - mean, 0) ** 2).sum(0) / count
            flat = variance <= (1e-6 * np.abs(mean)) ** 2  # what rounding leaves of a number that does not vary
            self._levels[group] = mean, np.where(flat, 0, 1 / np.sqrt(np.where(flat, 1, variance)))
        return self._levels[group]
