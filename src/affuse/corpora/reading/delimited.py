"""Text tables as people save them: any usual separator, decimal mark and encoding. Unreadable rows are named."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from affuse.core.errors import BadCorpus, MissingFile

if TYPE_CHECKING:
    import pandas as pd

# What stands for "no number" in a column of numbers; everywhere else these words are values.
NO_NUMBER = ("", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none", "nil", ".", "-")
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
_COMMA = r"[-+]?\d*,\d+(?:[eE][-+]?\d+)?"
_THOUSANDS = r"[-+]?\d{1,3}(?:,\d{3})+"  # in a table separated by commas 1,500 may be either
_CLOCK = r"(?:(?P<h>\d+):)?(?P<m>\d{1,2}):(?P<s>\d{1,2}(?:[.,]\d+)?)"


class Table(NamedTuple):
    """Cells as text ("" where empty), or as a Parquet file types them; the separator; what a reader should know."""

    cells: pd.DataFrame
    separator: str = ""
    notes: tuple[str, ...] = ()


def read(src: Path, known: Callable[[str], bool] = lambda name: False) -> Table:
    """The table of a .csv, .tsv or .parquet file; `known` tells the column names by which its separator is found.

    Raises MissingFile, or BadCorpus with the line that cannot be read.
    """
    if not src.is_file():
        raise MissingFile(f"no table {src}", "give a .csv, .tsv or .parquet file")
    try:
        if src.suffix.lower() == ".parquet":
            import pandas as pd

            cells = pd.read_parquet(src).rename(columns=str)
            return Table(cells.reset_index(drop=cells.index.name is None or cells.index.name in cells))
        return _parse(*_text(src), src.suffix.lower() in (".tsv", ".tab"), known)
    except (ValueError, OSError, csv.Error) as error:
        raise BadCorpus(f"{src} is not a readable table: {error}", "save it as UTF-8 CSV with a header line") from error


def _text(src: Path) -> tuple[str, list[str]]:
    """The file's text, and a note where its encoding had to be guessed."""
    data = src.read_bytes()
    if data.startswith(b"PK"):
        raise ValueError("it is a spreadsheet or another archive")
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    if encoding != "utf-16" and b"\0" in data:
        raise ValueError("it holds zero bytes, as UTF-16 without a mark and binary files do")
    try:
        return data.decode(encoding), []
    except UnicodeDecodeError:
        if encoding != "utf-8":
            raise
    text = data.decode("cp1252")
    strange = re.search(r"\w*[^\x00-\x7f]\w*", text)
    return text, [
        f"{src.name} is not UTF-8 and was read as Windows-1252, e.g. '{strange[0] if strange else ''}': save it as "
        "UTF-8 if that is wrong"
    ]


def _parse(text: str, notes: list[str], tabs: bool, known: Callable[[str], bool]) -> Table:
    lines = re.split(r"\r\n|\r|\n", text)
    skipped = next((i for i, line in enumerate(lines) if line.strip()), 0)
    named = re.fullmatch(r"\s*\"?sep=(.)\"?[;,\s]*", lines[skipped])  # a spreadsheet's own first line
    skipped += bool(named)
    if not any(line.strip() for line in lines[skipped:]):
        raise ValueError("it has no header line")
    separator = named[1] if named else _separator(lines[skipped], tabs, known)
    if separator == "\t" and (rows := _split_tabs(lines, skipped)):
        quotes = sum(row[i].startswith('"') for _, row in rows for i in range(len(row)))
        notes += [f"{quotes} quotes that do not close were kept as letters"] if quotes else []
    else:
        rows = _split_quoted(lines, skipped, separator)
    return _to_table(rows, separator, notes)


def _separator(header: str, tabs: bool, known: Callable[[str], bool]) -> str:
    """The separator that gives the most columns of known names, then the most columns."""

    def fit(separator: str) -> tuple[int, int]:
        names = next(csv.reader([header], delimiter=separator, skipinitialspace=True))
        return sum(known(name.strip()) for name in names), len(names)

    return max("\t,;|" if tabs else ",;\t|", key=fit)


def _split_tabs(lines: list[str], skipped: int) -> list[tuple[int, list[str]]] | None:
    """(line number, cells) of a table where quotes are letters: each line has the tabs of the header; else None."""
    width = lines[skipped].count("\t")
    rows = [(i, line.split("\t")) for i, line in enumerate(lines[skipped:], skipped + 1) if line.strip()]
    if not width or any(len(row) != width + 1 for _, row in rows):
        return None
    return [(i, [_unwrap(cell) for cell in row]) for i, row in rows]


def _unwrap(cell: str) -> str:
    """The cell without the quotes around it, those within it single again; a lone quote stays."""
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in (inner := cell[1:-1]).replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _split_quoted(lines: list[str], skipped: int, separator: str) -> list[tuple[int, list[str]]]:
    """(line number, cells) by the rules of CSV; BadCorpus names the line of a quote that swallows others."""
    reader = csv.reader(
        (f"{line}\n" for line in lines[skipped:]), delimiter=separator, skipinitialspace=True, strict=True
    )
    rows: list[tuple[int, list[str]]] = []
    begins = skipped + 1
    try:
        for row in reader:
            ends = skipped + reader.line_num
            if (
                ends > begins
                and rows
                and len(rows[0][1]) > 1
                and all(line.count(separator) + 1 == len(rows[0][1]) for line in lines[begins - 1 : ends])
            ):
                raise csv.Error(f"it makes one row of the lines {begins} to {ends}, each of which looks like a row")
            if any(cell.strip() for cell in row):
                rows.append((begins, row))
            begins = ends + 1
    except csv.Error as error:
        raise BadCorpus(
            f"line {begins}: a quote opens a cell that does not close as it should ({error})",
            'close it, or write a quote within a cell as ""; in a .tsv every quote is a letter',
        ) from error
    return rows


def _to_table(rows: list[tuple[int, list[str]]], separator: str, notes: list[str]) -> Table:
    """Rows under their header; empty rows and nameless columns are left out, ValueError for cells beyond the header."""
    import pandas as pd

    names = [name.strip() for name in rows[0][1]]
    while names and not names[-1]:
        names.pop()
    body = [(line, row) for line, row in rows[1:] if any(cell.strip() for cell in row)]
    long = next(((line, row) for line, row in body if any(cell.strip() for cell in row[len(names) :])), None)
    if long is not None:
        raise ValueError(f"line {long[0]} has {len(long[1])} cells, more cells than its header ({len(names)})")
    doubled = next((name for name in names if name and names.count(name) > 1), None)
    if doubled is not None:
        raise ValueError(f"two columns are named '{doubled}'")
    if short := [line for line, row in body if len(row) < len(names)]:
        notes.append(
            f"{len(short)} rows have fewer cells than the header, e.g. line {short[0]}: the last ones count as empty"
        )
    if "" in names:
        notes.append(f"column {names.index('') + 1} has no name and was left out")
    cells = [row[: len(names)] + [""] * (len(names) - len(row)) for _, row in body]
    table = pd.DataFrame(cells, columns=names, dtype=object)
    return Table(table.loc[:, [bool(name) for name in names]], separator, tuple(notes))


def numbers(cells: pd.Series[Any], separator: str = "") -> pd.Series[float]:
    """Cells as float64, NaN for the words of NO_NUMBER; decimal commas are read. ValueError names a bad cell."""
    found = parse_numbers(cells, separator)
    strange = found.isna() & cells.notna() & ~cells.astype(str).str.strip().str.lower().isin(NO_NUMBER)
    if strange.any():
        row = int(strange.to_numpy().argmax())
        raise ValueError(f"row {row + 1} holds '{cells.iloc[row]}'")
    return found


def parse_numbers(cells: pd.Series[Any], separator: str = "") -> pd.Series[float]:
    """Cells as float64, NaN for all that are no numbers."""
    import pandas as pd

    if cells.dtype.kind in "iufb":
        return cells.astype(float)
    text = cells.astype(object).where(cells.notna(), "").astype(str).str.strip()
    found = pd.to_numeric(text, errors="coerce").astype(float)
    commas = text[found.isna() & text.str.fullmatch(_COMMA)]
    if separator == ",":
        commas = commas[~commas.str.fullmatch(_THOUSANDS)]
    found[commas.index] = commas.str.replace(",", ".").astype(float)
    return found


def seconds(cells: pd.Series[Any], separator: str = "") -> pd.Series[float]:
    """Times in seconds, from numbers or clock text such as 01:02.5 and 00:01:02,500; ValueError as in `numbers`."""
    import pandas as pd

    if cells.dtype.kind == "m":
        return cells.dt.total_seconds()
    if cells.dtype.kind in "iufb":
        return cells.astype(float)
    text = cells.astype(object).where(cells.notna(), "").astype(str).str.strip()
    parts = text.str.extract(f"^{_CLOCK}$")
    clock = parts["m"].notna()
    hours, minutes = (pd.to_numeric(parts[c]).fillna(0) for c in "hm")
    times = hours * 3600 + minutes * 60 + pd.to_numeric(parts["s"].str.replace(",", "."))
    return numbers(text.where(~clock, ""), separator).where(~clock, times)
