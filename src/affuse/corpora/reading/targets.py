"""What the labels of a table are: names of classes, or numbers to regress on; if both are possible, an error asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from affuse.core.errors import BadCorpus
from affuse.core.labels import LabelSpace
from affuse.corpora.manifest import COLUMNS
from affuse.corpora.reading.columns import DIMENSIONS, as_option, plain, split_names
from affuse.corpora.reading.delimited import NO_NUMBER, Table, numbers, parse_numbers

if TYPE_CHECKING:
    import pandas as pd

FEW = 30  # different whole numbers up to which they may stand for classes


def put_targets(
    table: pd.DataFrame, source: Table, roles: Mapping[str, str], labels: Mapping[str, str], wanted: LabelSpace | None
) -> tuple[LabelSpace | None, list[str]]:
    """Put names of classes into `label` (spelled as `labels` says), or values into columns of their own.

    Returns (the space of the values, or None for classes; notes). Raises BadCorpus for numbers that may be classes or
    values, and for labels that do not fit the `wanted` space.
    """
    if "value" in roles:
        return _values(table, source, split_names("value", roles["value"], source.cells), wanted)
    if "label" not in table:
        return None, []
    text = table["label"].astype(object).where(table["label"].notna(), "").astype(str).str.strip()
    if (open_quote := text.str.startswith('"')).any():
        row = int(open_quote.to_numpy().argmax())
        raise BadCorpus(
            f"row {row + 1} has the label {text.iloc[row]}, with a quote that does not close",
            "close the quote, or take it out",
        )
    names = {cell: labels.get(cell, labels.get(_short(cell), "")) for cell in text.unique()}
    numeric, words = _numbers_and_words([cell for cell, name in names.items() if cell and not name], source.separator)
    named = [name for name in names.values() if name] + words
    if wanted is not None and wanted.kind == "values":
        return _values(table, source, [roles["label"]], wanted)
    if numeric and not named and wanted is None and not _few(numeric):
        return _values(table, source, [roles["label"]], None)
    if numeric and (labels or len(numeric) >= len(words)):
        raise _question(roles["label"], list(numeric), named)
    table["label"] = [names[cell] or cell for cell in text]
    return None, []


def _numbers_and_words(cells: list[str], separator: str) -> tuple[dict[str, float], list[str]]:
    """(cell -> number, the other cells), words such as NA in neither."""
    import pandas as pd

    column = pd.Series(cells, dtype=object)
    found = parse_numbers(column, separator)
    words = column[found.isna() & ~column.str.lower().isin(NO_NUMBER)] if cells else column
    return dict(zip(column[found.notna()], found.dropna(), strict=True)), words.tolist()


def _few(numeric: Mapping[str, float]) -> bool:
    distinct = set(numeric.values())
    return len(distinct) <= FEW and all(number % 1 == 0 for number in distinct)


def _short(cell: str) -> str:
    """A number without the zeros that say nothing (3.0 is 3), so that --label happy=3 names it."""
    try:
        return f"{float(cell):g}"
    except ValueError:
        return cell


def _question(column: str, numeric: list[str], named: list[str]) -> BadCorpus:
    """Numbers that may be classes or values, or that stand among names."""
    shown = ", ".join(numeric[:8]) + (", ..." if len(numeric) > 8 else "")
    named_too = f" beside names such as '{named[0]}'" if named else ""
    ways = (
        "if they are classes, name each: --label "
        + " ".join(f"NAME={cell}" for cell in numeric[:4])
        + (" ..." if len(numeric) > 4 else "")
    )
    if not named:
        ways += f"; if they are values on a scale (regression): --map {as_option('value', column)}"
    return BadCorpus(f"column '{column}' holds {len(numeric)} different numbers{named_too}: {shown}", ways)


def _values(
    table: pd.DataFrame, source: Table, columns: list[str], wanted: LabelSpace | None
) -> tuple[LabelSpace, list[str]]:
    """Put the columns as numbers under the names of the dimensions; (their space, a note of what they are)."""
    if wanted is not None and (wanted.kind != "values" or len(wanted) != len(columns)):
        holds = ", ".join(wanted.labels)
        raise BadCorpus(
            f"space {wanted.name} ({holds}) does not fit the {len(columns)} columns of values",
            "leave --space out, or map a column to each: --map value=A,B",
        )
    names = wanted.labels if wanted else tuple(_dimension(column) for column in columns)
    for name, column in zip(names, columns, strict=True):
        table[name] = _finite(source, column)
    if "label" in columns or "label" not in table:
        table["label"] = ""
    found = table[list(names)]
    low, high = float(found.min().min()), float(found.max().max())
    known = int(found.notna().all(axis=1).sum())
    note = (
        f"{', '.join(names)}: values from {low:g} to {high:g} in {known} of {len(table)} rows; "
        "they are trained by regression: affuse train RECIPE 'objectives={l1: {}}'"
    )
    return wanted or LabelSpace("custom", names, "values", low, high), [note]


def _dimension(column: str) -> str:
    bare = plain(column)
    return bare if bare in DIMENSIONS else "value" if column in COLUMNS else column


def _finite(source: Table, column: str) -> pd.Series[float]:
    try:
        found = numbers(source.cells[column], source.separator)
    except ValueError as error:
        raise BadCorpus(
            f"column '{column}' is not numeric: {error}", "write numbers, and nothing where there is none"
        ) from error
    if np.isinf(found).any() or found.isna().all():
        what = "an infinite number" if np.isinf(found).any() else "no number"
        raise BadCorpus(f"column '{column}' holds {what}", "write numbers, and nothing where there is none")
    return found
