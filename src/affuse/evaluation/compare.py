"""Scores of runs that differ by seed, and paired comparisons: on the same items, over the same speakers or sources.

`Scored` reads them from run folders. `Sums` keeps sums of several such arms from which no person can be recognised, and
gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from affuse.core import config, io, registry, run_files
from affuse.core.errors import BadRun, ProtocolError, UnknownName
from affuse.core.tasks import DEFAULT_METRIC
from affuse.evaluation.intervals import (
    Difference,
    Estimate,
    as_difference,
    as_estimate,
    cluster_sums,
    clustered,
    codes,
    estimate_mean,
    left_out,
    paired_difference,
    without_each,
)
from affuse.evaluation.predictions import read_predictions
from affuse.metrics import metric, value

SMALL = 5  # utterances: a group of fewer is joined with another, so that no sum shows the label of one


class Scored:
    """What runs that differ by seed predicted on the same items: `truth` [N], `groups` [N], `predictions(subset)`.

    `task`: one of the runs' other tasks than the leading one. `utterances`: the frames of each utterance are put
    together. Raises ProtocolError where they were not scored under the same protocol or on the same items, UnknownName
    for a task that they do not have.
    """

    def __init__(self, runs: Sequence[Path], task: str = "", utterances: bool = False) -> None:
        self.runs = runs
        evaluations = [_of_task(io.read_json(r / run_files.EVALUATION), task) for r in runs]
        per_frame = evaluations[0].get("resolution") == "frame"
        if utterances and per_frame:
            evaluations = [_of_utterances(e) for e in evaluations]
        _agree(evaluations)
        self.evaluation = evaluations[0]
        name = run_files.predictions(task if "lead" in self.evaluation else "", utterances and per_frame)
        tables = [io.read_table(r / name) for r in runs]
        self._set([t.sort_values(["id", "frame"] if "frame" in t else "id") for t in tables])

    def _set(self, tables: list[pd.DataFrame]) -> None:
        self.tables = tables
        full = tables[0][tables[0]["full"]]
        self.ids, self.truth = _items(full), np.array(full["truth"].tolist())
        self.groups = full[self.evaluation["protocol"]["group_by"]].to_numpy()

    def predictions(self, subset: str = "") -> list[np.ndarray]:
        """Per run the predictions [N, C] with a subset of modalities ("audio", "audio+vision"), or with all of them."""
        return [self._of(table, subset) for table in self.tables]

    def _of(self, table: pd.DataFrame, subset: str) -> np.ndarray:
        named = table["modalities"].map(lambda m: set(m.split("+")) == set(subset.split("+")))
        rows = table[named if subset else table["full"]]
        if rows.empty:
            raise UnknownName.among("subset of modalities", subset, table["modalities"])
        if _items(rows) != self.ids:
            raise ProtocolError("the runs scored different items", "evaluate both on the same split again")
        return read_predictions(rows)

    def joint(self, name: str) -> Scored:
        """The same for a metric over two tasks, of items that both have: the other task's columns come behind."""
        if name not in (other := self.evaluation.get("joint", {})):
            return self
        both, second = copy(self), Scored(self.runs, other[name])
        both._set([_join(*pair) for pair in zip(self.tables, second.tables, strict=True)])
        return both

    def averaged(self) -> Scored:
        """The runs as one model, which averages their predictions."""
        one, key = copy(self), ["id", *(["frame"] if "frame" in self.tables[0] else []), "modalities"]
        columns = [c for c in self.tables[0].columns if c.startswith("p:")]
        first, mean = self.tables[0].set_index(key), pd.concat(self.tables).groupby(key)[columns].mean()
        one.runs, one.tables = self.runs[:1], [first.assign(**mean.loc[first.index]).reset_index()]
        return one

    def estimate(self, name: str, subset: str = "") -> Estimate:
        """Mean metric of the runs with its interval over groups and seeds."""
        return estimate_mean(name, self.truth, self.predictions(subset), self.groups)

    def each(self, name: str, subset: str = "") -> list[float]:
        """The metric of every run."""
        return [value(name, self.truth, p) for p in self.predictions(subset)]

    def check(self, other: Scored) -> None:
        """Raises ProtocolError where the others were scored otherwise, on other items or against other labels."""
        _agree([self.evaluation, other.evaluation])
        if self.ids != other.ids:
            raise ProtocolError("the runs scored different items", "evaluate both on the same split again")
        if not np.array_equal(self.truth, other.truth, equal_nan=self.truth.dtype.kind == "f"):
            raise ProtocolError(
                "the runs were scored against different labels of the same items",
                "compare runs of one task and label column",
            )

    def less(self, other: Scored, name: str, subset: str = "", subset_other: str = "") -> Difference:
        """Metric of these runs minus that of the others, with interval and p."""
        self.check(other)
        own, theirs = self.predictions(subset), other.predictions(subset_other)
        return paired_difference(name, self.truth, own, theirs, self.groups)


class Sums:
    """Additive statistics per arm, subset of modalities, seed and group: enough for every score of a result page.

    `table` has a row each: arm, modalities, full (all that the arm has), seed, group (a number), n, and by the name of
    its statistics a list of sums. `info` is what a page shows apart from scores; its `metrics` come first.
    """

    def __init__(self, table: pd.DataFrame, info: dict[str, Any]) -> None:
        self.table, self.info = table, info

    @classmethod
    def of(cls, arms: Mapping[str, Scored], metrics: Sequence[str], info: dict[str, Any]) -> Sums:
        """What arms scored, for these metrics and all others that are computed from the same statistics."""
        first = next(iter(arms.values()))
        for other in arms.values():
            first.check(other)
        groups = joined(first.groups, first.truth)
        families = {family(name): name for name in metrics}
        rows = []
        for arm, runs in arms.items():
            full = dict(runs.tables[0][["modalities", "full"]].drop_duplicates().to_numpy())
            for subset in full:
                for seed, predicted in enumerate(runs.predictions(subset)):
                    where = {"arm": arm, "modalities": subset, "full": bool(full[subset]), "seed": seed}
                    sums = _group_sums(families, first.truth, predicted, groups)
                    rows += [where | {"group": group} | of_group for group, of_group in enumerate(sums)]
        return cls(pd.DataFrame(rows), info | {"metrics": list(metrics)})

    @classmethod
    def read(cls, path: Path) -> Sums:
        """What `write` wrote. Raises BadRun for a Parquet table of another kind."""
        table = io.read_table(path)
        if "page" not in table.attrs:
            message = f"{path} is not the table of a result page"
            raise BadRun(message, "give the .parquet that stands beside a page of affuse bench")
        return cls(table, table.attrs["page"])

    def write(self, path: Path) -> None:
        """One Parquet file, compressed."""
        table = self.table.copy()
        table.attrs["page"] = self.info
        with io.atomic(path) as tmp:
            table.to_parquet(tmp, index=False, compression="zstd", compression_level=19)

    @property
    def arms(self) -> list[str]:
        """Names of the arms."""
        return list(self.table["arm"].unique())

    def subsets(self, arm: str) -> list[str]:
        """The subsets of modalities that an arm was scored with."""
        return list(self.table.loc[self.table["arm"] == arm, "modalities"].unique())

    def seeds(self, arm: str) -> int:
        """How many seeds an arm has."""
        return int(self.table.loc[self.table["arm"] == arm, "seed"].nunique())

    def sizes(self) -> np.ndarray:
        """Items [G] of the groups."""
        first = self.table[(self.table["arm"] == self.arms[0]) & (self.table["seed"] == 0) & self.table["full"]]
        return first["n"].to_numpy()

    def scores(self, name: str, arm: str, subset: str = "") -> np.ndarray:
        """The metric of every seed on all groups (first) and without each, [S, 1 + G].

        Raises UnknownName for a metric whose statistics are not stored.
        """
        if name not in registry.cards("metrics") or family(name) not in self.table:
            stored = [n for n in registry.cards("metrics") if family(n) in self.table]
            raise UnknownName.among("metric of this table", name, stored)
        of_subset = self.table["modalities"] == subset if subset else self.table["full"]
        rows = self.table[(self.table["arm"] == arm) & of_subset]
        sums = np.stack(rows[family(name)].tolist()).astype(float)
        sums = sums.reshape(rows["seed"].nunique(), len(self.sizes()), -1)
        if hasattr(metric(name), "weighted"):
            return np.concatenate([sums[:, :1, 0], sums[:, :, 1]], axis=1)
        return np.asarray(metric(name).compute(without_each(sums)))

    def estimate(self, name: str, arm: str, subset: str = "") -> Estimate:
        """Mean metric of an arm with its interval over groups and seeds."""
        return as_estimate(self.scores(name, arm, subset), self.sizes(), name)

    def each(self, name: str, arm: str, subset: str = "") -> list[float]:
        """The metric of every seed."""
        return [float(v) for v in self.scores(name, arm, subset)[:, 0]]

    def less(self, name: str, arm: str, other: str, subset: str = "", subset_other: str = "") -> Difference:
        """Metric of an arm minus that of another, with interval and p."""
        return as_difference(self.scores(name, arm, subset), self.scores(name, other, subset_other), self.sizes())


def family(name: str) -> str:
    """The name of a metric's statistics, which several metrics may share; its own name where it has none."""
    chosen = metric(name)
    return chosen.statistics.__module__.rpartition(".")[2] if hasattr(chosen, "statistics") else name


def joined(groups: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Numbers [N] of groups; those of fewer than SMALL items, or of one class, are joined until they are neither."""
    index, rest = codes(groups), np.array([], dtype=int)
    each = [np.flatnonzero(index == g) for g in range(index.max() + 1)]
    parts = [rows for rows in each if not _shows_label(truth[rows])]
    for rows in (rows for rows in each if _shows_label(truth[rows])):
        rest = np.concatenate([rest, rows])
        if not _shows_label(truth[rest]):
            parts.append(rest)
            rest = rest[:0]
    found = np.zeros(len(index), dtype=int)
    for number, rows in enumerate(parts):
        found[rows] = number
    if len(rest) and parts:
        found[rest] = int(np.argmin([len(rows) for rows in parts]))
    return found


def _shows_label(truth: np.ndarray) -> bool:
    """Whether a label can be read off the sums of these items."""
    return len(truth) < SMALL or (truth.ndim == 1 and len(np.unique(truth)) == 1)


def _group_sums(
    families: Mapping[str, str], truth: np.ndarray, predicted: np.ndarray, groups: np.ndarray
) -> list[dict[str, Any]]:
    """Per group the number of its items, and by the name of their statistics the sums.

    A metric without statistics has two values instead: that of all items and that without the group.
    """
    found = {}
    for key, name in families.items():
        if hasattr(metric(name), "weighted"):
            left = left_out(name, truth, predicted, groups)
            found[key] = np.stack([np.full(len(left) - 1, left[0]), left[1:]], axis=1)
        else:
            found[key] = cluster_sums(metric(name).statistics(truth, predicted), groups)
            whole = found[key].astype(np.int32)
            found[key] = whole if (whole == found[key]).all() else found[key]
    return [{"n": int(n), **{key: sums[g] for key, sums in found.items()}} for g, n in enumerate(np.bincount(groups))]


def _of_task(evaluation: dict[str, Any], task: str) -> dict[str, Any]:
    """The part of an evaluation that is about a task, marked with the leading one where that is another."""
    if not task or task == evaluation["task"]:
        return evaluation
    others = evaluation.get("tasks", {})
    if task not in others:
        raise UnknownName.among("task", task, [evaluation["task"], *others])
    return {"corpus": evaluation["corpus"], "lead": evaluation["task"], "task": task, **others[task]}


def _of_utterances(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The part of an evaluation of frames that is about utterances."""
    if "per_utterance" not in evaluation:
        message = "the frames of an utterance have several labels, so that there is no score per utterance"
        raise ProtocolError(message, "compare the runs per frame")
    return evaluation | {"resolution": "utterance"} | evaluation["per_utterance"]


def _items(rows: pd.DataFrame) -> list[Any]:
    """What identifies the items: their ids, and frames where these are scored."""
    return list(zip(rows["id"], rows["frame"], strict=True)) if "frame" in rows else rows["id"].tolist()


def _join(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Two tasks' tables of predictions as one, of the utterances that are in both; `truth` holds both truths."""
    key, predicted = ["id", "modalities"], [c for c in second if c.startswith("p:")]
    table = first.merge(second[[*key, "truth", *predicted]], on=key, suffixes=("", " of the other"))
    truths = zip(table["truth"], table.pop("truth of the other"), strict=True)
    return table.assign(truth=[[float(own), *other] for own, other in truths])


def compare(
    a: Path,
    b: Path,
    name: str | None = None,
    subset_a: str = "",
    subset_b: str = "",
    task: str = "",
    utterances: bool = False,
) -> dict[str, Any]:
    """Metric of run `a` minus that of run `b`, with interval and p.

    Each path is a run, or a folder of runs that differ by seed: their metrics are averaged, and the interval counts how
    they differ. `subset_a`, `subset_b` choose a subset of modalities ("audio", "audio+vision") instead of all.
    `utterances`: runs per frame are compared by their answers per utterance. Raises ProtocolError when the runs were
    not scored under the same protocol.
    """
    runs_a, runs_b = (Scored(seeds_of(path), task, utterances) for path in (a, b))
    known, protocol = runs_a.evaluation["metrics"], runs_a.evaluation["protocol"]
    usual = [n for n in DEFAULT_METRIC.values() if n in known]
    name = name or (usual[0] if usual else next(iter(known)))
    if name not in known:
        raise UnknownName.among("metric", name, known)
    runs_a, runs_b = runs_a.joint(name), runs_b.joint(name)
    seeds = [len(runs_a.runs), len(runs_b.runs)]
    return {
        "a": str(a),
        "b": str(b),
        "subsets": [subset_a or "all", subset_b or "all"],
        "seeds": seeds,
        "metric": name,
        "better": registry.cards("metrics")[name]["better"],
        "mean": [float(np.mean(runs_a.each(name, subset_a))), float(np.mean(runs_b.each(name, subset_b)))],
        "difference": runs_a.less(runs_b, name, subset_a, subset_b).to_dict(),
        "interval": f"95 %, paired, {clustered(protocol['group_by'], protocol['groups'], min(seeds))}",
        "protocol": protocol,
    }


def seeds_of(path: Path) -> list[Path]:
    """The evaluated runs that a path stands for: itself, or the run folders in it.

    Raises BadRun where there are none, ProtocolError where they differ by more than their seed.
    """
    if (path / run_files.EVALUATION).is_file():
        return [path]
    runs = sorted(p.parent for p in path.glob("*/evaluation.json") if (p.parent / run_files.CONFIG).is_file())
    if not runs:
        raise BadRun(f"{path} holds no evaluated run", "evaluate it first: affuse evaluate RUN --corpus DIR")
    if len({_apart_from_seed(r) for r in runs}) > 1:
        message = f"{path} holds runs that differ by more than their seed"
        raise ProtocolError(message, "compare single runs, or folders of one recipe's seeds")
    return runs


def _apart_from_seed(run: Path) -> str:
    """Digest of a run's recipe without the seed, and without the runs that its encoders start from (one per seed)."""
    values = config.load_recipe(str(run / run_files.CONFIG)).to_dict()
    streams = {name: stream | {"init": ""} for name, stream in values["streams"].items()}
    return io.digest(values | {"init": "", "streams": streams, "train": values["train"] | {"seed": 0}})


def _agree(evaluations: Sequence[Mapping[str, Any]]) -> None:
    """Raises ProtocolError for evaluations that do not agree where they must."""
    found = [_comparable(e) for e in evaluations]
    for other in found[1:]:
        for key, first in found[0].items():
            if other[key] != first:
                message = f"the runs have different protocols: {key} is {first} and {other[key]}"
                raise ProtocolError(message, "compare runs trained on the same corpus, split and folds")


def _comparable(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the protocol that must agree."""
    keys = ("split", "split_hash", "folds", "group_by", "n", "same_corpus")
    protocol = {k: evaluation["protocol"][k] for k in keys}
    return {"corpus": evaluation["corpus"]["hash"], "labels": evaluation["labels"], **protocol}
