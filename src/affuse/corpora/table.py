"""Any corpus as a CSV table: bring your own recordings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affuse.core.errors import BadCorpus
from affuse.core.labels import space as label_space
from affuse.corpora.manifest import COLUMNS, Corpus, write_corpus
from affuse.corpora.reading.columns import assign, describe_roles, is_known, is_milliseconds
from affuse.corpora.reading.delimited import Table, numbers, read, seconds
from affuse.corpora.reading.media_paths import Finder, check_times, kind_of
from affuse.corpora.reading.targets import put_targets

if TYPE_CHECKING:
    import pandas as pd

CARD = {
    "summary": "a CSV (or TSV, Parquet) with one utterance per row, columns named as affuse's or mapped with --map",
    "source": "your own data",
    "usage": "affuse import table FILE DST [--map audio=COLUMN ...] [--label happy=joy ...] [--root DIR] [--space "
    "NAME]",
    "entry": "import_table",
    "licence": "yours",
    "layout": "columns: id, video, audio, text, label, speaker, source, conversation, position, start, end, split",
    "splits": "a split column, else grouped by source",
}


def import_table(
    src: Path,
    dst: Path,
    *,
    root: Path | None = None,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    space: str = "",
    name: str = "",
) -> Corpus:
    """Import a table; `columns` maps affuse's names to the table's, `labels` maps label spellings.

    Media paths are relative to `root` (default: the table's folder). Further columns are kept (as targets of other
    tasks). A conversation may span rows. `columns` may also name `value`, a column of numbers to regress on (or
    several, with commas between), and `file`, media that are audio or video. Raises BadCorpus, MissingFile or
    UnknownName.
    """
    source = read(src, lambda column: is_known(column) or column in (columns or {}).values())
    roles = assign(source, columns or {}, src.name)
    warnings = [*source.notes, *describe_roles(roles, columns or {}, source)]
    if not {"video", "audio", "text", "file", "id"} & set(roles):
        raise BadCorpus(f"{src} has none of the columns id, video, audio, text", "name them: --map video=COLUMN")
    if source.cells.empty:
        raise BadCorpus("the corpus has no utterances", f"{src} has a header line and no rows")
    table = _own_columns(source, roles)
    for ours, theirs in roles.items():
        if ours in COLUMNS:
            table[ours] = source.cells[theirs]
    warnings += _media(table, source, roles, Finder((root or src.parent).resolve(), src.name))
    if "id" not in table:
        table["id"] = _ids(table)
    _times(table, source, roles)
    warnings += check_times(table)
    found, notes = put_targets(table, source, roles, labels or {}, label_space(space) if space else None)
    _positions(table, source)
    if "split" in table:
        split = table["split"].astype(object).where(table["split"].notna(), "")
        table["split"] = split.astype(str).str.strip().str.lower()
    warnings += notes
    extra = {"warnings": warnings} if warnings else {}
    return write_corpus(dst, table, name or src.stem, found or space, source=src.name, **extra)


def _own_columns(source: Table, roles: Mapping[str, str]) -> pd.DataFrame:
    """The table's own columns: numbers if all cells are numbers, else text (NaN where empty); text for text roles."""
    table = source.cells.copy()
    text = {theirs for ours, theirs in roles.items() if isinstance(COLUMNS.get(ours), str)}
    for column in table.columns if source.separator else ():
        cells = table[column]
        table[column] = cells.where(cells.str.strip() != "", np.nan)
        if column not in text and column not in COLUMNS and (cells.str.strip() != "").any():
            try:
                table[column] = _numbers(cells, source.separator)
            except ValueError:
                continue
    return table


def _numbers(cells: pd.Series[Any], separator: str) -> pd.Series[Any]:
    """Cells as numbers, whole ones where none is missing or a fraction."""
    found = numbers(cells, separator)
    whole = cells.str.fullmatch(r"\s*[-+]?\d{1,15}\s*").all()
    return found.astype("int64") if whole else found


def _media(table: pd.DataFrame, source: Table, roles: Mapping[str, str], finder: Finder) -> list[str]:
    """Put absolute paths into `video` and `audio`; a column `file` goes, row by row, to the one that its file is."""
    for column in ("video", "audio"):
        if column in roles:
            table[column] = [finder.find(value, column) for value in table[column]]
    notes = []
    if "file" in roles:
        column = roles["file"]
        paths = [finder.find(value, "media") for value in source.cells[column]]
        kinds = [kind_of(path, column, finder.table) if path else "" for path in paths]
        for kind in sorted({k for k in kinds if k}):
            table[kind] = [path if k == kind else "" for path, k in zip(paths, kinds, strict=True)]
            notes.append(f"column '{column}' names {kind} in {kinds.count(kind)} of {len(kinds)} rows")
    return notes + finder.notes


def _ids(table: pd.DataFrame) -> list[str]:
    """Ids from the media file's name, or from the number of the row."""
    for column in ("video", "audio"):
        if column in table:
            stems = [Path(v).stem for v in table[column]]
            if all(stems) and len(set(stems)) == len(stems):
                return stems
    return [f"u{i:06d}" for i in range(len(table))]


def _times(table: pd.DataFrame, source: Table, roles: Mapping[str, str]) -> None:
    """Put seconds into `start` and `end`, from numbers, clock times, milliseconds, durations; BadCorpus names a row."""
    for ours in ("start", "end", "duration"):
        if ours not in roles:
            continue
        theirs = roles[ours]
        try:
            times = seconds(source.cells[theirs], source.separator)
        except ValueError as error:
            raise BadCorpus(
                f"column '{theirs}' is not numeric: {error}", "seconds such as 62.5, or a clock time such as 00:01:02.5"
            ) from error
        table[ours] = times / 1000 if is_milliseconds(theirs) else times
    table["start"] = table["start"].fillna(0.0) if "start" in table else 0.0
    if "duration" in roles and "end" not in roles:
        table["end"] = table["start"] + table["duration"]
    if "end" not in table:
        table["end"] = np.nan


def _positions(table: pd.DataFrame, source: Table) -> None:
    """Whole numbers in `position`: the column's, else the row's place in its conversation (0 without one)."""
    if "position" in table:
        try:
            table["position"] = numbers(table["position"], source.separator)
        except ValueError as error:
            raise BadCorpus(f"column 'position' is not numeric: {error}", "whole numbers are needed") from error
    elif "conversation" in table:
        named = table["conversation"].notna() & (table["conversation"].astype(str).str.strip() != "")
        table["position"] = table.groupby("conversation", sort=False).cumcount().where(named, 0)
