"""Paired comparison of two runs: the same items, the same resamples of speakers or sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from affuse.core import io, registry
from affuse.core.errors import BadRun, ProtocolError, UnknownName
from affuse.evaluation.intervals import RESAMPLES, paired_difference


def compare(a: Path, b: Path, name: str | None = None, subset_a: str = "", subset_b: str = "") -> dict[str, Any]:
    """Metric of run `a` minus that of run `b`, with interval and p.

    Each path is a run, or a folder of runs that differ by seed (their metrics are averaged per resample).
    `subset_a`, `subset_b` choose a subset of modalities ("audio", "audio+vision") instead of all.
    Raises ProtocolError when the runs were not scored under the same protocol.
    """
    runs_a, runs_b = seeds_of(a), seeds_of(b)
    protocols = {io.digest(_comparable(r)): _comparable(r) for r in [*runs_a, *runs_b]}
    if len(protocols) > 1:
        raise ProtocolError(_first_difference(list(protocols.values())), "compare runs trained on the same corpus, split and folds")
    evaluation = io.read_json(runs_a[0] / "evaluation.json")
    name = name or ("uar" if "uar" in evaluation["metrics"] else next(iter(evaluation["metrics"])))
    if name not in evaluation["metrics"]:
        raise UnknownName.among("metric", name, evaluation["metrics"])
    tables_a = [_predictions(r, subset_a) for r in runs_a]
    tables_b = [_predictions(r, subset_b) for r in runs_b]
    group_by = evaluation["protocol"]["group_by"]
    ids = tables_a[0]["id"]
    if any(list(t["id"]) != list(ids) for t in [*tables_a, *tables_b]):
        raise ProtocolError("the runs scored different items", "evaluate both on the same split again")
    truth = np.array(tables_a[0]["truth"].tolist())
    gap = paired_difference(
        name, truth, [_values(t) for t in tables_a], [_values(t) for t in tables_b], tables_a[0][group_by].to_numpy()
    )
    return {
        "a": str(a),
        "b": str(b),
        "subsets": [subset_a or "all", subset_b or "all"],
        "seeds": [len(runs_a), len(runs_b)],
        "metric": name,
        "better": registry.cards("metrics")[name]["better"],
        "mean": [_mean(name, truth, tables_a), _mean(name, truth, tables_b)],
        "difference": gap.to_dict(),
        "interval": f"95 % paired bootstrap, {RESAMPLES} resamples, clustered by {group_by}",
        "protocol": evaluation["protocol"],
    }


def seeds_of(path: Path) -> list[Path]:
    """The evaluated runs that a path stands for: itself, or the run folders in it."""
    if (path / "evaluation.json").is_file():
        return [path]
    runs = sorted(p.parent for p in path.glob("*/evaluation.json"))
    if not runs:
        raise BadRun(f"{path} holds no evaluated run", "evaluate it first: affuse evaluate RUN --corpus DIR")
    return runs


def _comparable(run: Path) -> dict[str, Any]:
    """The part of the protocol that must agree."""
    evaluation = io.read_json(run / "evaluation.json")
    protocol = evaluation["protocol"]
    keys = ("split", "split_hash", "folds", "group_by", "n", "same_corpus")
    return {"corpus": evaluation["corpus"]["hash"], "labels": evaluation["labels"], **{k: protocol[k] for k in keys}}


def _first_difference(protocols: list[dict[str, Any]]) -> str:
    a, b = protocols[:2]
    key = next(k for k in a if a[k] != b[k])
    return f"the runs have different protocols: {key} is {a[key]} and {b[key]}"


def _predictions(run: Path, subset: str) -> pd.DataFrame:
    table = io.read_table(run / "predictions.parquet")
    known = sorted(set(table["modalities"]))
    if subset and "+".join(sorted(subset.split("+"))) not in {"+".join(sorted(k.split("+"))) for k in known}:
        raise UnknownName.among("subset of modalities", subset, known)
    wanted = table["full"] if not subset else table["modalities"].map(lambda m: set(m.split("+")) == set(subset.split("+")))
    return table[wanted].sort_values("id", ignore_index=True)


def _values(table: pd.DataFrame) -> np.ndarray:
    return table[[c for c in table.columns if c.startswith("p:")]].to_numpy()


def _mean(name: str, truth: np.ndarray, tables: list[pd.DataFrame]) -> float:
    chosen = registry.load("metrics", name)
    values = [chosen.compute(chosen.statistics(truth, _values(t)).sum(0)) for t in tables]  # type: ignore[attr-defined]
    return float(np.mean(values))


