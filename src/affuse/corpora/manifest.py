"""Corpus and manifest: one row per utterance, checked counts, splits and folds that respect groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affuse.core import io
from affuse.core.errors import BadConfig, BadCorpus, MissingFile
from affuse.core.labels import SPACES, LabelSpace, infer_space
from affuse.core.labels import space as label_space

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: dict[str, Any] = {
    "id": "",
    "conversation": "",
    "position": 0,
    "speaker": "",
    "source": "",
    "split": "",
    "start": 0.0,
    "end": float("nan"),
    "video": "",
    "audio": "",
    "text": "",
    "label": "",
}
SPLITS = ("train", "valid", "test")


@dataclass
class Corpus:
    """An imported corpus: a folder with `manifest.parquet`, `corpus.json` and feature stores under `features/`.

    `info` holds name, label_space, licence, source, synthetic, partial (what a release lacks), warnings (what its
    users must know), counts, hash. Label tracks (values per frame) are feature stores below `annotations/`.
    """

    path: Path
    table: pd.DataFrame
    info: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def name(self) -> str:
        """The corpus' name as its importer gave it."""
        return str(self.info["name"])

    @property
    def hash(self) -> str:
        """Hash of the manifest's content: a run is bound to it."""
        return str(self.info["hash"])

    @cached_property
    def space(self) -> LabelSpace:
        """Label space of the `label` column, or of the columns of values that have its labels' names."""
        known = SPACES.get(str(self.info.get("label_space", "")))
        if known is not None:
            return known
        labels, (low, high) = tuple(self.info.get("labels", ())), self.info.get("range") or (0.0, 1.0)
        return LabelSpace("custom", labels, "values" if self.info.get("range") else "classes", low, high)

    def store_path(self, stream: str) -> Path:
        """Where the features of `stream` are kept."""
        return self.path / "features" / stream

    def annotation_path(self, name: str) -> Path:
        """Where the label track `name` (a feature store: values per frame, with its rate) is kept."""
        return self.path / "annotations" / name

    def annotations(self) -> list[str]:
        """Names of the label tracks that the corpus has."""
        return sorted(p.parent.name for p in (self.path / "annotations").glob("*/card.json"))

    def stores(self) -> list[str]:
        """Names of the feature stores that the corpus has."""
        return sorted(p.parent.name for p in (self.path / "features").glob("*/card.json"))

    @classmethod
    def open(cls, path: Path | str) -> Corpus:
        """Open an imported corpus folder; MissingFile says how to make one."""
        path = Path(path)
        if not (path / "manifest.parquet").is_file():
            raise MissingFile(f"{path} is not a corpus (no manifest.parquet)", "make one: affuse import NAME SRC DST")
        return cls(path.resolve(), io.read_table(path / "manifest.parquet"), io.read_json(path / "corpus.json"))


def write_corpus(
    path: Path | str,
    rows: Sequence[Mapping[str, Any]] | pd.DataFrame,
    name: str,
    space: str | LabelSpace = "",
    **info: Any,
) -> Corpus:
    """Check rows, write `manifest.parquet` and `corpus.json` below `path`, return the opened Corpus.

    `space`: the name of a label space, or one of the corpus' own values; found from the labels where empty. Raises
    BadCorpus for no rows, missing or duplicate ids, unknown splits, start >= end, or a folder that holds another
    corpus.
    """
    path = Path(path)
    if (path / "corpus.json").is_file() and (there := io.read_json(path / "corpus.json").get("name")) != name:
        raise BadCorpus(f"{path} holds the corpus '{there}'", "import into another folder, or delete that one")
    table = check_rows(rows)
    labels = sorted({str(v) for v in table["label"] if v})
    found = space if isinstance(space, LabelSpace) else label_space(space) if space else infer_space(labels)
    if found.kind == "classes":
        table["label"] = [found.labels[found.index(v)] if v else "" for v in table["label"]]
    info = {
        "format": 1,
        "name": name,
        "label_space": found.name,
        "labels": list(found.labels),
        **({"range": [found.low, found.high]} if found.name not in SPACES and found.kind == "values" else {}),
        "synthetic": False,
        **info,
        "counts": counts(table),
        "overlap": {k: v for k in ("speaker", "source") if (v := overlap(table, k))},
        "hash": table_hash(table),
    }
    io.write_table(path / "manifest.parquet", table)
    io.write_json(path / "corpus.json", info)
    return Corpus.open(path)


def check_rows(rows: Sequence[Mapping[str, Any]] | pd.DataFrame) -> pd.DataFrame:
    """A manifest table with every column present, typed and consistent."""
    import pandas as pd

    table = pd.DataFrame(rows).copy()
    if table.empty:
        raise BadCorpus("the corpus has no utterances", "check the source folder and the file names it should hold")
    if "id" not in table:
        raise BadCorpus("the table has no 'id' column", "name it with --map id=COLUMN")
    for column, default in COLUMNS.items():
        given = table[column] if column in table else pd.Series(default, index=table.index)
        table[column] = _convert(given, column, default)
    if (nameless := int((table["id"] == "").sum())):
        raise BadCorpus(f"{nameless} of {len(table)} utterances have no id", "fill the id column, or leave it out")
    doubles = table["id"][table["id"].duplicated()].unique()
    if len(doubles):
        raise BadCorpus(f"{len(doubles)} ids occur twice, e.g. '{doubles[0]}'", "make the id column unique")
    unknown = sorted(set(table["split"]) - {"", *SPLITS})
    if unknown:
        raise BadCorpus(f"unknown split '{unknown[0]}'", f"use {', '.join(SPLITS)} or leave it empty")
    wrong = table[
        (table["start"] < 0) | (table["end"] <= table["start"]) | np.isinf(table["start"]) | np.isinf(table["end"])
    ]
    if len(wrong):
        row = wrong.iloc[0]
        raise BadCorpus(
            f"utterance '{row.id}' has start {row.start} and end {row.end}",
            "times are seconds, start < end; without end an utterance lasts to the end of its file",
        )
    table["source"] = table["source"].where(table["source"] != "", table["speaker"])
    table["source"] = table["source"].where(table["source"] != "", table["conversation"])
    table["source"] = table["source"].where(table["source"] != "", table["id"])
    return table


def _convert(given: pd.Series[Any], column: str, default: Any) -> pd.Series[Any]:
    import pandas as pd

    if isinstance(default, str):
        return given.astype("object").where(given.notna(), "").astype(str).str.strip()
    try:
        numbers = pd.to_numeric(given).astype(float).fillna(default)
        if isinstance(default, int) and len(odd := numbers[(numbers % 1 != 0) | (numbers.abs() > 2**53)]):
            raise ValueError(f"{odd.iloc[0]} is no whole number")
        return numbers.astype(int) if isinstance(default, int) else numbers
    except (ValueError, TypeError) as error:
        raise BadCorpus(f"column '{column}' is not numeric: {error}", "seconds or whole numbers are needed") from error


def table_hash(table: pd.DataFrame) -> str:
    """Hash of ids, labels, groups, splits and times (not of file paths: a moved corpus is the same corpus)."""
    columns = [c for c in table.columns if c not in ("video", "audio")]
    return io.digest(table[columns].astype(str).to_dict("list"))


def counts(table: pd.DataFrame) -> dict[str, Any]:
    """Utterances, groups and labels, overall and per split."""

    def count(part: pd.DataFrame) -> dict[str, Any]:
        return {
            "utterances": len(part),
            "speakers": part.loc[part["speaker"] != "", "speaker"].nunique(),
            "sources": part["source"].nunique(),
            "labels": {str(k): int(v) for k, v in part["label"].value_counts().sort_index().items()},
        }

    splits = {s: count(table[table["split"] == s]) for s in SPLITS if (table["split"] == s).any()}
    return {"all": count(table), **splits}


def check_counts(found: Mapping[str, int], published: Mapping[str, int], what: str, partial: bool) -> list[str]:
    """Compare counts with the published ones; returns the shortfalls.

    A surplus always fails, a shortfall fails unless `partial`. Raises BadCorpus.
    """
    extra = {k: v for k, v in found.items() if v > published.get(k, 0)}
    if extra:
        name, n = next(iter(extra.items()))
        raise BadCorpus(f"{what}: {n} of '{name}', the release has {published.get(name, 0)}", "remove foreign files")
    short = [f"{k}: {found.get(k, 0)} of {n}" for k, n in published.items() if found.get(k, 0) < n]
    if short and not partial:
        listed = "; ".join(short[:4]) + (" ..." if len(short) > 4 else "")
        raise BadCorpus(
            f"{what}: incomplete ({listed})", "complete the release, or pass --partial to use what is there"
        )
    return short


def overlap(table: pd.DataFrame, column: str) -> dict[str, list[str]]:
    """The leak check: values of `column` that occur in more than one split, per pair of splits."""
    groups = {s: set(table.loc[table["split"] == s, column]) - {""} for s in SPLITS}
    pairs = [("train", "valid"), ("train", "test"), ("valid", "test")]
    return {f"{a}/{b}": sorted(groups[a] & groups[b]) for a, b in pairs if groups[a] & groups[b]}


def groups_of(table: pd.DataFrame, by: str) -> np.ndarray:
    """The group [N] of every utterance: its value in the column `by`; several columns joined by + keep more together.

    `speaker+source`: utterances that share a speaker or a source are in one group, and those that share one with these,
    and so on; an empty cell links nothing. A group has the name of its first source. Raises BadCorpus for an unknown
    column.
    """
    cells = [_cells(table, column) for column in by.split("+")]
    if len(cells) == 1:
        return cells[0]
    own = np.array([f"utterance {i}" for i in range(len(table))], dtype=object)
    named = [np.where(column.astype(str) == "", own, column).astype(str) for column in cells]
    group, last = _components(named), named[-1]
    order = np.argsort(last, kind="stable")
    return last[order][np.unique(group[order], return_index=True)[1]][group]


def _cells(table: pd.DataFrame, column: str) -> np.ndarray:
    """A column of the table; utterances without a value have the same one, the empty one."""
    if column not in table:
        raise BadCorpus(
            f"no column '{column}' to group by", f"leave split.group_by out, or give one of: {', '.join(table.columns)}"
        )
    cells = table[column]
    return (cells.where(cells.notna(), "") if cells.dtype.kind == "O" else cells).to_numpy()


def _components(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Number of the connected component [N] of every row, where rows are linked by the values that they share."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, nodes, ends = len(columns[0]), len(columns[0]), []
    for column in columns:
        values, code = np.unique(column, return_inverse=True)
        ends.append(nodes + code)
        nodes += len(values)
    links = (np.tile(np.arange(n), len(columns)), np.concatenate(ends))
    graph = coo_array((np.ones(len(links[0])), links), shape=(nodes, nodes))
    return np.asarray(connected_components(graph, directed=False)[1][:n])


def make_splits(
    table: pd.DataFrame, group_by: str, valid: float, test: float, folds: int | None, seed: int
) -> list[np.ndarray]:
    """Split names [N] per fold (one array without folds): groups never cross, labels are kept in proportion.

    Without `folds` a manifest's own splits are used; what it lacks (valid, test) is carved from train by group. Folds
    that an importer was asked to keep (a `fold` column) are used instead of made.
    """
    groups, labels = groups_of(table, group_by), table["label"].to_numpy()

    def carve(split: np.ndarray, name: str, share: float) -> np.ndarray:
        found = len(set(groups[split == "train"]))
        if share > 0 and found < 2:
            raise too_few(f"'{name}' and what is left of train", 2, found, table[split == "train"], group_by)
        return _carve(split, groups, labels, name, share, seed)

    if folds:
        if "fold" not in table and len(set(groups)) < folds:
            raise too_few(f"{folds} folds", folds, len(set(groups)), table, group_by)
        parts = _published_folds(table, folds) if "fold" in table else _group_folds(groups, labels, folds, seed)
        return [carve(np.where(parts == k, "test", "train"), "valid", valid) for k in range(folds)]
    split = table["split"].to_numpy(dtype=object)
    split = np.where(split == "", "train", split)
    for name, share in (("test", test), ("valid", valid)):
        split = split if name in split else carve(split, name, share)
    return [split]


def too_few(what: str, needed: int, found: int, table: pd.DataFrame, by: str) -> BadCorpus:
    """The error for a grouping that makes fewer groups than `what` needs; it names the columns that make more."""
    counts = {c: table.loc[table[c] != "", c].nunique() for c in ("source", "conversation", "speaker") if c in table}
    finer = [f"split.group_by={c} ({n:,} groups)" for c, n in counts.items() if n >= max(needed, found + 1)]
    message = f"{what} need {needed} groups, {by} makes {found} of the {len(table):,} utterances"
    remedy = (
        f"group by less, and read what then crosses: {' or '.join(finer)}"
        if finer
        else "name speakers or sources, or give the split column"
    )
    return BadCorpus(message, remedy)


def _published_folds(table: pd.DataFrame, k: int) -> np.ndarray:
    found = sorted(set(table["fold"]), key=str)
    if set(found) != set(range(k)):
        raise BadCorpus(
            f"the corpus keeps {len(found)} published folds, not {k}",
            f"use --folds {len(found)}, or import it without them",
        )
    return table["fold"].to_numpy(dtype=int)


def _group_folds(groups: np.ndarray, labels: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Fold number [N] by group, labels in proportion."""
    from sklearn.model_selection import StratifiedGroupKFold

    if k < 2:
        raise BadCorpus(f"{k} folds leave nothing to train on", "use 2 folds or more")
    fold = np.empty(len(groups), dtype=int)
    codes = np.unique(labels, return_inverse=True)[1]
    counts = np.bincount(codes)
    if len(counts) > max(20, len(codes) // 10) or counts.max() < k:
        codes = np.zeros_like(codes)  # continuous targets, few of each class: nothing to stratify
    splitter = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
    for i, (_, chosen) in enumerate(splitter.split(codes, codes, groups)):
        fold[chosen] = i
    return fold


def _carve(
    split: np.ndarray, groups: np.ndarray, labels: np.ndarray, name: str, share: float, seed: int
) -> np.ndarray:
    """Move whole groups, about `share` of the training utterances, from train to `name`; nothing for share 0."""
    if share <= 0:
        return split
    if not share < 1:
        raise BadConfig(f"split.{name} = {share} leaves nothing to train on", "give a share below 1, such as 0.2")
    train = np.flatnonzero(split == "train")
    n_groups = len(set(groups[train]))
    parts, taken = min(max(2, round(1 / share)), n_groups), 1
    if abs(taken / parts - share) > 0.05:  # such as 0.4: no part of a whole number is near it, but four of ten
        parts = min(10, n_groups)
        taken = min(max(1, round(share * parts)), parts - 1)
    fold = _group_folds(groups[train], labels[train], parts, seed + 1)
    split = split.copy()
    split[train[fold < taken]] = name
    return split
