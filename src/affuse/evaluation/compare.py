"""Paired comparison of two runs: the same items, the same resamples of speakers or sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from affuse.core import config, io, registry
from affuse.core.errors import BadRun, ProtocolError, UnknownName
from affuse.evaluation.intervals import Difference, Estimate, clustered, estimate_mean, paired_difference, value


class Scored:
    """What runs that differ by seed answered on the same items: `truth` [N], `groups` [N], `answers(subset)`.

    Raises ProtocolError where they were not scored under the same protocol or on the same items.
    """

    def __init__(self, runs: Sequence[Path]) -> None:
        self.runs = runs
        evaluations = [io.read_json(r / "evaluation.json") for r in runs]
        _agree(evaluations)
        self.evaluation = evaluations[0]
        self.tables = [io.read_table(r / "predictions.parquet").sort_values("id") for r in runs]
        full = self.tables[0][self.tables[0]["full"]]
        self.ids, self.truth = full["id"].tolist(), np.array(full["truth"].tolist())
        self.groups = full[self.evaluation["protocol"]["group_by"]].to_numpy()

    def answers(self, subset: str = "") -> list[np.ndarray]:
        """Per run the answers [N, C] with a subset of modalities ("audio", "audio+vision"), or with all of them."""
        return [self._of(table, subset) for table in self.tables]

    def _of(self, table: pd.DataFrame, subset: str) -> np.ndarray:
        named = table["modalities"].map(lambda m: set(m.split("+")) == set(subset.split("+")))
        rows = table[named if subset else table["full"]]
        if rows.empty:
            raise UnknownName.among("subset of modalities", subset, table["modalities"])
        if rows["id"].tolist() != self.ids:
            raise ProtocolError("the runs scored different items", "evaluate both on the same split again")
        return rows[[c for c in rows.columns if c.startswith("p:")]].to_numpy()

    def estimate(self, name: str, subset: str = "") -> Estimate:
        """Metric with its interval, averaged over the runs within each resample."""
        return estimate_mean(name, self.truth, self.answers(subset), self.groups)

    def each(self, name: str, subset: str = "") -> list[float]:
        """The metric of every run."""
        return [value(name, self.truth, p) for p in self.answers(subset)]

    def less(self, other: Scored, name: str, subset: str = "", subset_other: str = "") -> Difference:
        """Metric of these runs minus that of the others, with interval and p."""
        _agree([self.evaluation, other.evaluation])
        if self.ids != other.ids:
            raise ProtocolError("the runs scored different items", "evaluate both on the same split again")
        if not np.array_equal(self.truth, other.truth):
            raise ProtocolError("the runs were scored against different labels of the same items", "compare runs of one task and label column")
        return paired_difference(name, self.truth, self.answers(subset), other.answers(subset_other), self.groups)


def compare(a: Path, b: Path, name: str | None = None, subset_a: str = "", subset_b: str = "") -> dict[str, Any]:
    """Metric of run `a` minus that of run `b`, with interval and p.

    Each path is a run, or a folder of runs that differ by seed (their metrics are averaged per resample).
    `subset_a`, `subset_b` choose a subset of modalities ("audio", "audio+vision") instead of all.
    Raises ProtocolError when the runs were not scored under the same protocol.
    """
    runs_a, runs_b = Scored(seeds_of(a)), Scored(seeds_of(b))
    known, protocol = runs_a.evaluation["metrics"], runs_a.evaluation["protocol"]
    name = name or ("uar" if "uar" in known else next(iter(known)))
    if name not in known:
        raise UnknownName.among("metric", name, known)
    return {
        "a": str(a),
        "b": str(b),
        "subsets": [subset_a or "all", subset_b or "all"],
        "seeds": [len(runs_a.runs), len(runs_b.runs)],
        "metric": name,
        "better": registry.cards("metrics")[name]["better"],
        "mean": [float(np.mean(runs_a.each(name, subset_a))), float(np.mean(runs_b.each(name, subset_b)))],
        "difference": runs_a.less(runs_b, name, subset_a, subset_b).to_dict(),
        "interval": f"95 % paired bootstrap, {clustered(protocol['group_by'], protocol['groups'])}",
        "protocol": protocol,
    }


def seeds_of(path: Path) -> list[Path]:
    """The evaluated runs that a path stands for: itself, or the run folders in it; ProtocolError where these are not one recipe's seeds."""
    if (path / "evaluation.json").is_file():
        return [path]
    runs = sorted(p.parent for p in path.glob("*/evaluation.json") if (p.parent / "config.yaml").is_file())
    if not runs:
        raise BadRun(f"{path} holds no evaluated run", "evaluate it first: affuse evaluate RUN --corpus DIR")
    if len({_apart_from_seed(r) for r in runs}) > 1:
        raise ProtocolError(f"{path} holds runs that differ by more than their seed", "compare single runs, or folders of one recipe's seeds")
    return runs


def _apart_from_seed(run: Path) -> str:
    """Digest of a run's recipe without the seed, and without the runs that its encoders start from, which are that seed's."""
    values = config.load_recipe(str(run / "config.yaml")).to_dict()
    streams = {name: stream | {"init": ""} for name, stream in values["streams"].items()}
    return io.digest(values | {"streams": streams, "train": values["train"] | {"seed": 0}})


def _agree(evaluations: Sequence[Mapping[str, Any]]) -> None:
    """Refuse evaluations of which the parts that must agree do not."""
    found = [_comparable(e) for e in evaluations]
    for other in found[1:]:
        for key, mine in found[0].items():
            if other[key] != mine:
                message = f"the runs have different protocols: {key} is {mine} and {other[key]}"
                raise ProtocolError(message, "compare runs trained on the same corpus, split and folds")


def _comparable(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the protocol that must agree."""
    keys = ("split", "split_hash", "folds", "group_by", "n", "same_corpus")
    return {"corpus": evaluation["corpus"]["hash"], "labels": evaluation["labels"], **{k: evaluation["protocol"][k] for k in keys}}
