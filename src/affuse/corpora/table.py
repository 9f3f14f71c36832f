"""Any corpus as a CSV table: bring your own recordings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from affuse.core.errors import BadCorpus, MissingFile, UnknownName
from affuse.core.labels import SPACES
from affuse.corpora.manifest import COLUMNS, Corpus, write_corpus

CARD = {
    "summary": "a CSV (or TSV, Parquet) with one utterance per row, columns named as affuse's or mapped with --map",
    "source": "your own data",
    "usage": "affuse import table FILE DST [--map audio=COLUMN ...] [--label happy=joy ...] [--root DIR] [--space NAME]",
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

    Media paths are relative to `root` (default: the table's folder). Further columns are kept (as targets of
    other tasks). A conversation may span rows. Raises BadCorpus, MissingFile or UnknownName.
    """
    told = [theirs for ours, theirs in (columns or {}).items() if isinstance(COLUMNS.get(ours), str)]
    table = read(src, told)
    for ours, theirs in (columns or {}).items():
        if ours not in COLUMNS:
            raise UnknownName.among("column", ours, COLUMNS)
        if theirs not in table:
            raise UnknownName.among(f"column of {src.name}:", theirs, [str(c) for c in table.columns])
        table[ours] = table[theirs]
    base = (root or src.parent).resolve()
    if not {"video", "audio", "text"} & set(table.columns) and "id" not in table:
        raise BadCorpus(f"{src} has none of the columns id, video, audio, text", "name them: --map video=COLUMN (commas part the cells, tabs in a .tsv)")
    for column in ("video", "audio"):
        if column in table:
            table[column] = [_media(value, base, column, src) for value in table[column]]
    if "id" not in table:
        table["id"] = _ids(table)
    if labels and "label" in table:
        table["label"] = table["label"].map(lambda v: labels.get(str(v), v))
    if space and space not in SPACES:
        raise UnknownName.among("label space", space, SPACES)
    if "position" not in table and "conversation" in table:
        table["position"] = table.groupby("conversation", sort=False).cumcount()
    return write_corpus(dst, table, name or src.stem, space, source=str(src.name))


def read(src: Path, told: Iterable[str] = ()) -> Any:
    """The table as a data frame; text columns, and those that are `told` to be such, stay text."""
    import pandas as pd

    if not src.is_file():
        raise MissingFile(f"no table {src}", "give a .csv, .tsv or .parquet file")
    text = {"id", "label", "speaker", "source", "conversation", "text", "split", *told}
    try:
        if src.suffix.lower() == ".parquet":
            return pd.read_parquet(src)
        if b"\0" in src.read_bytes():
            raise ValueError("it holds zero bytes, as UTF-16 and binary files do")
        try:
            return _read_csv(src, text, "utf-8-sig")
        except UnicodeDecodeError:
            return _read_csv(src, text, "cp1252")
    except (ValueError, OSError) as error:
        raise BadCorpus(f"{src} is not a readable table: {error}", "save it as UTF-8 CSV with a header line") from error


def _read_csv(src: Path, text: set[str], encoding: str) -> Any:
    """The table with spaces around its column names taken away; ValueError for rows longer than the header."""
    import pandas as pd

    sep = "\t" if src.suffix.lower() == ".tsv" else ","
    header = pd.read_csv(src, sep=sep, nrows=0, index_col=False, encoding=encoding).columns
    table = pd.read_csv(src, sep=sep, dtype={c: str for c in header if c.strip() in text}, encoding=encoding)
    if not isinstance(table.index, pd.RangeIndex):  # pandas would take the first cells as names of the rows
        raise ValueError("its rows have more cells than its header")
    table.columns = table.columns.str.strip()
    if not table.columns.is_unique:
        raise ValueError(f"two columns are named '{table.columns[table.columns.duplicated()][0]}'")
    return table


def _media(value: object, base: Path, column: str, src: Path) -> str:
    """Absolute path of a media file; an empty cell means that the modality is absent."""
    if value is None or value != value or not str(value).strip():
        return ""
    path = base / str(value).strip()
    try:
        there = path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        there = False
    if not there:
        raise MissingFile(f"{src.name} names {column} file {value}, which is not below {base}", "check --root DIR")
    return str(path)


def _ids(table: Any) -> list[str]:
    """Ids from the media file's name, or from the conversation and position."""
    for column in ("video", "audio"):
        if column in table:
            stems = [Path(v).stem for v in table[column]]
            if all(stems) and len(set(stems)) == len(stems):
                return stems
    return [f"u{i:06d}" for i in range(len(table))]
