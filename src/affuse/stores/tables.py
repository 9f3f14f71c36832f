"""Tables of other tools as feature stores: OpenFace (a row per frame and face), openSMILE (functionals, low-level)."""

from __future__ import annotations

import csv
import io as text_io
import re
from collections.abc import Callable, Iterator, Mapping, Set
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args
from unicodedata import normalize

import numpy as np

from affuse.core import io
from affuse.core.errors import AffuseError, BadConfig, BadFeatures, MissingFile
from affuse.core.types import Feature, Modality, StreamSpec
from affuse.stores.store import FeatureStore, StoreWriter, store_card

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["openface", "opensmile"]
_MODALITY: dict[Kind, Modality] = {"openface": "vision", "opensmile": "audio"}
_OPENFACE = {"frame", "face_id", "timestamp", "confidence", "success", "face", "file", "input"}
_OPENSMILE = {"name", "frametime", "frameindex", "file", "start", "end"}
_NUMBER, _QUOTED = re.compile(r"[-+]?\d[-+.\deE]*|"), re.compile(r"'[^']*'|\"[^\"]*\"")
_SEPARATOR_LINE = re.compile(r"\s*\"?sep=(.)\"?[^\n]*\n")
_COMMA = r"[-+]?\d*,\d+(?:[eE][-+]?\d+)?"
_NOT_A_NUMBER = ["", "nan", "NaN", "-nan", "-nan(ind)", "nan(ind)", "-1.#IND", "1.#QNAN", "-1.#QNAN", "NA"]


class Table(NamedTuple):
    """What one file holds: values [T, D] float32 (NaN where nothing was seen), valid [T] bool, steps per second (0: one
    vector), time of step 0 in seconds, the D column names."""

    values: np.ndarray
    valid: np.ndarray
    rate: float
    t0: float
    columns: tuple[str, ...]


def read_openface(path: Path, *, columns: str = "*", confidence: float = 0.5, face: int | None = None) -> Table:
    """An OpenFace csv on the grid of its frames; frames that it lacks, and those without a face, are not valid.

    `columns`: patterns of the columns to take, e.g. "gaze_angle_*,pose_*,AU*_r" (default: all measurements).
    `confidence`: what a detection must reach. `face`: the face_id to follow; by default the one seen in most frames.
    Raises BadFeatures.
    """
    table = _read(path)
    for column in ("timestamp", "success" if "success" in table else "confidence"):
        if column not in table:
            raise BadFeatures(f"{path} has no column '{column}'", "give the csv of OpenFace's FeatureExtraction")
    taken = _choose(path, table, columns, _OPENFACE)
    step, rate, t0 = _grid(path, table["timestamp"], table.get("frame"))
    seen = np.ones(len(table), dtype=bool)
    if "success" in table:
        seen &= table["success"].to_numpy() == 1
    if "confidence" in table:
        seen &= table["confidence"].to_numpy() >= confidence
    ours = _one_face(path, table, seen, step, face)
    values = _spread(step[ours], table[taken].to_numpy(np.float64)[ours], int(step.max()) + 1)
    valid = np.zeros(len(values), dtype=bool)
    valid[step[ours]] = seen[ours]
    valid &= np.isfinite(values).any(axis=1)
    values[~valid] = np.nan
    return Table(values, valid, rate, t0, tuple(taken))


def read_opensmile(path: Path, *, columns: str = "*") -> Table:
    """An openSMILE csv: one row is a vector (rate 0), several are low-level descriptors over frameTime (or start).

    Separated by ; or , with the file's name quoted in the first column, or as the opensmile package writes it (file,
    start, end). `columns` as in `read_openface`. Raises BadFeatures, also for the rows of several clips in one file.
    """
    table = _read(path)
    for column in ("name", "file"):
        if column in table and table[column].nunique() > 1:
            raise BadFeatures(
                f"{path} holds {table[column].nunique()} clips (column '{column}')", "write one file per clip"
            )
    taken = _choose(path, table, columns, _OPENSMILE)
    values = table[taken].to_numpy(np.float64)
    time = next((table[c] for c in ("frameTime", "start") if c in table), None)
    if len(table) == 1:
        step, rate, t0 = np.zeros(1, dtype=np.int64), 0.0, 0.0
    elif time is None:
        raise BadFeatures(
            f"{path} has {len(table)} rows and no column frameTime", "one row per clip, or frameTime (seconds)"
        )
    else:
        step, rate, t0 = _grid(path, _seconds(path, time), None)
        if len(np.unique(step)) < len(step):
            raise BadFeatures(f"{path}: two rows have the same time", "write one file per clip")
    values = _spread(step, values, int(step.max()) + 1)
    return Table(values, np.isfinite(values).any(axis=1), rate, t0, tuple(taken))


def import_tables(
    store_path: Path,
    files: Mapping[str, Path],
    kind: Kind,
    *,
    modality: Modality | None = None,
    columns: str = "*",
    rate: float = 0.0,
    confidence: float = 0.5,
    face: int | None = None,
) -> FeatureStore:
    """Write the files {utterance id: csv} as one store at `store_path`; what fails is listed in its `failures`.

    All must have the columns of the first good one, and are put on its rate (or `rate`, Hz) by the nearest step:
    nothing is interpolated, an action unit stays 0 or 1. Files that the store has are skipped. Raises BadFeatures if
    none is good.
    """
    if kind not in get_args(Kind):
        raise BadConfig(f"kind '{kind}' is no kind of table", "use openface or opensmile")
    options = {"columns": columns, "confidence": confidence, "face": face, "rate": rate}

    def read(path: Path) -> Table:
        if kind == "openface":
            return read_openface(path, columns=columns, confidence=confidence, face=face)
        return read_opensmile(path, columns=columns)

    failures: dict[str, dict[str, str]] = {}
    outcomes = _outcomes(files, read)
    held: list[tuple[str, Table | AffuseError]] = []
    for name, outcome in outcomes:  # until one tells the rate: a clip of a single frame does not
        held.append((name, outcome))
        if isinstance(outcome, Table) and outcome.rate > 0:
            break
    good = [table for _, table in held if isinstance(table, Table)]
    if not good:
        raise _all_failed(held)
    like = good[-1]._replace(rate=rate) if rate and good[-1].rate else good[-1] if good[-1].rate else good[0]
    spec = StreamSpec(store_path.name, modality or _MODALITY[kind], (len(like.columns),), like.rate)
    content = io.digest([[name, io.file_sha256(path) if path.is_file() else ""] for name, path in files.items()])
    made = store_card(spec, "imported", 1, {"kind": kind, **options}, content_hash=content, columns=list(like.columns))
    with StoreWriter(store_path, made) as writer:
        have = set(FeatureStore(store_path).ids)
        for name, outcome in chain(held, outcomes):
            fitted = _fit(files[name], outcome, like) if isinstance(outcome, Table) else outcome
            if isinstance(fitted, AffuseError):
                failures[name] = fitted.to_dict()
            elif name not in have:
                writer.add(name, fitted)
    io.write_json(store_path / "failures.json", failures)
    return FeatureStore(store_path)


def find_tables(folder: Path, ids: Set[str]) -> tuple[dict[str, Path], list[Path]]:
    """({utterance id: its .csv or .tsv below `folder`}, tables of no utterance). BadFeatures where an id has two."""
    spelled = {normalize("NFC", i): i for i in ids}
    found: dict[str, Path] = {}
    strange = []
    for path in sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in (".csv", ".tsv") and not p.name.startswith(".")
    ):
        name = path.stem if path.stem in ids else spelled.get(normalize("NFC", path.stem))
        if name is None:
            strange.append(path)
        elif name in found:
            raise BadFeatures(f"utterance '{name}' has two tables: {found[name]} and {path}", "keep one of them")
        else:
            found[name] = path
    return found, strange


def _outcomes(files: Mapping[str, Path], read: Callable[[Path], Table]) -> Iterator[tuple[str, Table | AffuseError]]:
    for name, path in files.items():
        try:
            yield name, read(path)
        except AffuseError as error:
            yield name, error


def _all_failed(held: list[tuple[str, Table | AffuseError]]) -> BadFeatures:
    errors = [error for _, error in held if isinstance(error, AffuseError)]
    if not errors:
        return BadFeatures("no tables to import", "give a folder of ID.csv files")
    return BadFeatures(
        f"none of the {len(errors)} tables can be used; the first: {errors[0].message}", errors[0].remedy
    )


def _fit(path: Path, table: Table, like: Table) -> Feature | BadFeatures:
    """The table on the rate of the store, absent (T = 0) where nothing in it is valid; or why it does not fit."""
    if table.columns != like.columns:
        strange = sorted(set(table.columns) ^ set(like.columns)) or ["their order"]
        return BadFeatures(
            f"{path} has other columns than the first table: {strange[0]}", "import tables of one configuration"
        )
    if (table.rate > 0) != (like.rate > 0) and len(table.values) > 1:
        return BadFeatures(
            f"{path} has {table.rate:g} steps per second, the first table {like.rate:g}",
            "keep sequences and single vectors apart",
        )
    values, valid = table.values, table.valid
    if table.rate > 0 and like.rate > 0 and table.rate != like.rate:
        steps = max(1, round(len(values) * like.rate / table.rate))
        nearest = np.minimum(np.rint(np.arange(steps) * table.rate / like.rate).astype(np.int64), len(values) - 1)
        values, valid = values[nearest], valid[nearest]
    if not valid.any():
        return Feature(values[:0], None, table.t0)
    return Feature(values, None if valid.all() else valid, table.t0)


def _read(path: Path) -> pd.DataFrame:
    """The numbers of a csv file under its stripped column names; BadFeatures names what is no table."""
    import pandas as pd

    if not path.is_file():
        raise MissingFile(f"no file {path}", "one csv file per utterance, named by its id")
    try:
        data = path.read_bytes()
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise BadFeatures(f"{path} is not a text file: {error}", "give the csv file that the tool wrote") from error
    named = _SEPARATOR_LINE.match(text)  # a spreadsheet's own first line
    header, _, rest = text[named.end() if named else 0 :].lstrip().partition("\n")
    sep = named[1] if named else next((s for s in ";\t" if s in header), ",")
    names = [name.strip().strip("'\"") for name in header.rstrip("\r " + sep).split(sep)]
    _check_lines(path, names, rest, sep)
    try:
        table = pd.read_csv(
            text_io.StringIO(rest), sep=sep, names=names, header=None, quotechar="'" if "'" in rest else '"',
            skipinitialspace=True, na_values=_NOT_A_NUMBER, keep_default_na=False, index_col=False, low_memory=False,
        )  # fmt: skip
    except (ValueError, csv.Error, OverflowError, MemoryError) as error:
        raise BadFeatures(
            f"{path} is not a readable csv file: {error}", "give the csv file that the tool wrote"
        ) from error
    for column in table.columns:
        if table[column].dtype.kind == "O" and column.lower() not in ("name", "file", "input"):
            table[column] = _decimal(path, table[column])
    return table


def _decimal(path: Path, cells: pd.Series) -> pd.Series:
    """A column with decimal commas (as spreadsheets of many countries write them) as numbers; others unchanged."""
    import pandas as pd

    text = cells.dropna().astype(str).str.strip()
    commas = text.str.fullmatch(_COMMA)
    if not commas.any():
        return cells
    if (dotted := text[text.str.fullmatch(r"[-+]?\d[\d,]*\.\d[\d.,]*")]).any():
        raise BadFeatures(
            f"{path}: column '{cells.name}' holds '{text[commas].iloc[0]}' and '{dotted.iloc[0]}'",
            "write one decimal mark: it is not clear which one is meant",
        )
    read = pd.to_numeric(text.str.replace(",", "."), errors="coerce").reindex(cells.index)
    if read[text.index].notna().all():
        return read
    return cells.where(read.isna(), read)  # what is left is named by its column


def _check_lines(path: Path, names: list[str], rest: str, sep: str) -> None:
    """BadFeatures where the header is none, and for the first line of too few or too many cells."""
    if len(names) < 2 or "\x00" in rest or any(_NUMBER.fullmatch(n) for n in names):
        raise BadFeatures(
            f"{path} does not begin with a line of column names",
            "give the csv file that the tool wrote, with its header",
        )
    doubles = [n for n in names if names.count(n) > 1] if len(set(names)) < len(names) else []
    if doubles:
        raise BadFeatures(f"{path} has two columns '{doubles[0]}'", "give the csv file that the tool wrote")
    lines = rest.rstrip().splitlines()
    if not lines:
        raise BadFeatures(
            f"{path} has column names and no rows", "the tool found nothing, or was stopped: run it again"
        )
    for i, line in enumerate(lines, start=2):
        cells = _QUOTED.sub("", line.rstrip("\r\n ")).rstrip(sep).count(sep) + 1
        if line.strip() and cells != len(names):
            commas = sep == "," and cells > len(names) and all("." not in row for row in lines[:9])
            raise BadFeatures(
                f"{path}: line {i} has {cells} cells, the header {len(names)}",
                "decimal commas cannot be told from those between cells: separate the cells by ;"
                if commas
                else "the file was cut off or changed: write it again",
            )


def _choose(path: Path, table: pd.DataFrame, columns: str, keys: set[str]) -> list[str]:
    """Names of the measurements that the patterns take; BadFeatures where none, or where they hold no numbers."""
    measured = [c for c in table.columns if c.lower() not in keys]
    patterns = [p.strip() for p in columns.split(",")]
    chosen = [c for c in measured if any(fnmatchcase(c, p) for p in patterns)]
    if not chosen:
        raise BadFeatures(f"{path}: no column is named like '{columns}'", f"its columns: {', '.join(measured[:8])}...")
    numeric = [
        c for c in table.columns if c in set(chosen) or c.lower() in keys - {"name", "file", "input", "start", "end"}
    ]
    for column in numeric:
        if table[column].dtype.kind not in "fiu":
            wrong = next((v for v in table[column] if isinstance(v, str | bool)), "text")
            raise BadFeatures(f"{path}: column '{column}' holds '{wrong}'", "numbers are needed")
    return chosen


def _seconds(path: Path, time: pd.Series) -> pd.Series:
    """Times in seconds: numbers, or texts like "0 days 00:00:00.020000"."""
    import pandas as pd

    if time.dtype.kind in "fiu":
        return time
    seconds = pd.to_timedelta(time, errors="coerce").dt.total_seconds()
    if seconds.isna().any():
        raise BadFeatures(f"{path}: column '{time.name}' holds '{time[seconds.isna()].iloc[0]}'", "times are seconds")
    return seconds


def _grid(path: Path, time: pd.Series, frame: pd.Series | None) -> tuple[np.ndarray, float, float]:
    """(step [rows] from 0, steps per second, time of step 0 in seconds).

    Frame numbers give the steps where the times agree with them; else (another camera clock, frames renumbered) the
    times do. The rate is a nominal one (30, 29.97...) where the printed times allow it.
    """
    t = time.to_numpy(np.float64)
    if not np.isfinite(t).all() or ((np.diff(t) < 0).any() and frame is None):
        raise BadFeatures(f"{path}: its times are not rising numbers", "the file is damaged: write it again")
    number = t if frame is None else frame.to_numpy(np.float64)
    if not np.isfinite(number).all() or (np.abs(number) > 1e9).any():
        raise BadFeatures(
            f"{path}: column '{'frame' if frame is not None else time.name}' holds no frame numbers",
            "the file is damaged",
        )
    order = np.argsort(number, kind="stable")
    distinct = np.unique(number[order], return_index=True)[1]
    moments = t[order][distinct]  # one per frame
    if len(moments) < 2:
        return np.zeros(len(t), dtype=np.int64), 0.0, float(t[0])
    gaps = np.diff(moments)
    if (gaps <= 0).any():
        raise BadFeatures(f"{path}: its times do not rise with its frames", "the file is damaged: write it again")
    spacing = np.diff(number[order][distinct]) if frame is not None else np.maximum(1, np.rint(gaps / np.median(gaps)))
    total = float(spacing.sum())
    if total > 100 * len(moments) + 1000:
        raise BadFeatures(
            f"{path}: {len(moments)} frames lie on {total:.0f} steps", "its frame numbers or times are damaged"
        )
    rate = total / float(moments[-1] - moments[0])
    at = np.concatenate([[0.0], np.cumsum(spacing)])
    if np.abs(at / rate - (moments - moments[0])).max() > 0.5 / rate + 0.001:
        at = np.rint((moments - moments[0]) * rate)
        if len(np.unique(at)) < 0.5 * len(at):
            raise BadFeatures(
                f"{path}: its times lie too unevenly for {rate:.3g} steps per second", "its times are damaged"
            )
    step = at.astype(np.int64)[np.searchsorted(number[order][distinct], number)]
    return step, _nominal(rate, float(moments[-1] - moments[0])), float(moments[0])


def _nominal(rate: float, duration: float) -> float:
    """A whole rate, or one of television (30000/1001), within what times printed in milliseconds can tell."""
    best = min((float(round(rate)), round(rate * 1.001) / 1.001), key=lambda r: abs(r - rate))
    return best if best > 0 and abs(best - rate) <= rate * 0.001 / duration else rate


def _one_face(path: Path, table: pd.DataFrame, seen: np.ndarray, step: np.ndarray, face: int | None) -> np.ndarray:
    """Rows [n] of one face, at most one per step (the most confident)."""
    who = table["face_id"].to_numpy() if "face_id" in table else np.zeros(len(table))
    if face is None:
        faces, frames = np.unique(who[seen] if seen.any() else who, return_counts=True)
        face = faces[frames.argmax()]
    elif face not in who:
        raise BadFeatures(
            f"{path}: no face {face}; it has {', '.join(f'{f:g}' for f in np.unique(who)[:8])}", "choose one of them"
        )
    rows = np.flatnonzero(who == face)
    if "frame" in table and len(np.unique(table["frame"].to_numpy()[rows])) < len(rows):
        raise BadFeatures(f"{path}: a frame of face {face:g} occurs twice", "the file is damaged: write it again")
    sure = table["confidence"].to_numpy() if "confidence" in table else np.ones(len(table))
    rows = rows[np.lexsort((-sure[rows], ~seen[rows], step[rows]))]
    return rows[np.unique(step[rows], return_index=True)[1]]


def _spread(step: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    """Rows [n, D] at their steps [n] of [length, D] float32; NaN between them and for what is not finite."""
    values = np.full((length, rows.shape[1]), np.nan, dtype=np.float32)
    with np.errstate(over="ignore"):
        values[step] = rows
    values[~np.isfinite(values)] = np.nan
    return values
