"""The stores of a corpus, checked: how many utterances they cover, and whether they leak the labels of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from affuse.core.errors import AffuseError, ProtocolError, UnknownName
from affuse.corpora.manifest import SPLITS, Corpus
from affuse.evaluation.leaks import LeakReport, find_leak
from affuse.stores.store import FeatureStore


@dataclass(frozen=True)
class StoreCheck:
    """One store of a corpus: utterances stored, failed and usable (some valid step), and its leak report.

    `unchecked`: why there is no report.
    """

    name: str
    utterances: int
    stored: int
    usable: int
    failed: int
    leak: LeakReport | None = None
    unchecked: AffuseError | None = None

    def to_dict(self) -> dict[str, Any]:
        """All fields; what is absent is null."""
        leak, unchecked = (v.to_dict() if v else None for v in (self.leak, self.unchecked))
        return {**vars(self), "leak": leak, "unchecked": unchecked}


def check_corpus(
    corpus: Corpus,
    stores: Sequence[str] | None = None,
    *,
    touched: str | Sequence[str] = "train",
    group_by: str = "source",
    column: str | None = None,
    seed: int = 0,
) -> list[StoreCheck]:
    """Coverage and leak report of every store (or of the named ones).

    `touched`: split(s) whose labels may have been used; every other row with a split is untouched. `column`: targets
    (default: the corpus' own label or values). A store that cannot be checked carries the error as `unchecked`.
    """
    table = corpus.table
    for name in (group_by, *([column] if column else [])):
        if name not in table:
            raise UnknownName.among("column", name, table.columns)
    named = {touched} if isinstance(touched, str) else set(touched)
    for name in sorted(named - set(SPLITS)):
        raise UnknownName.among("split", name, SPLITS)
    split = table["split"].to_numpy(dtype=object)
    rows = np.flatnonzero(split != "")
    given = (
        _targets(corpus, column)[rows],
        table[group_by].to_numpy(dtype=object)[rows],
        np.isin(split[rows], list(named)),
    )
    names = corpus.stores() if stores is None else list(stores)
    return [_check_store(FeatureStore(corpus.store_path(n)), table["id"].to_numpy(), rows, given, seed) for n in names]


def _targets(corpus: Corpus, column: str | None) -> np.ndarray:
    """Targets [N] or [N, K] of the corpus: a column of floats as it is, any other as classes."""
    table = corpus.table
    own = [name for name in corpus.space.labels if name in table] if corpus.space.kind == "values" else []
    if column is None and own:
        return table[own].to_numpy(dtype=float)
    chosen = table[column or "label"]
    return chosen.to_numpy(dtype=float) if chosen.dtype.kind == "f" else chosen.astype("object").to_numpy()


def _check_store(
    store: FeatureStore, ids: np.ndarray, rows: np.ndarray, given: tuple[np.ndarray, ...], seed: int
) -> StoreCheck:
    """Pool a store's values, count them, look for a leak."""
    stored = sum(i in store for i in ids)
    try:
        values = _vectors(store, ids)
    except ProtocolError as error:
        usable = sum(store.length(i) > 0 for i in ids)
        return StoreCheck(store.path.name, len(ids), stored, usable, len(store.failures), unchecked=error)
    counts = (len(ids), stored, int(np.isfinite(values).any(1).sum()), len(store.failures))
    try:
        return StoreCheck(store.path.name, *counts, leak=find_leak(values[rows], *given, seed=seed))
    except ProtocolError as error:
        return StoreCheck(store.path.name, *counts, unchecked=error)


def _vectors(store: FeatureStore, ids: np.ndarray) -> np.ndarray:
    """One vector per utterance [N, D]: the mean of its valid steps without missing numbers; NaN where none is left."""
    shape = store.spec.shape
    if len(shape) != 1:
        message = f"steps of shape {list(shape)} are no feature vectors"
        raise ProtocolError(message, "sound and pictures hold no labels; check the features made of them")
    values = np.full((len(ids), *shape), np.nan)
    for row, name in enumerate(ids):
        if store.length(name):
            feature = store[name]
            steps = feature.values if feature.valid is None else feature.values[feature.valid]
            known = np.isfinite(steps)
            np.divide(np.where(known, steps, 0).sum(0, dtype=float), known.sum(0), out=values[row], where=known.any(0))
    return values
