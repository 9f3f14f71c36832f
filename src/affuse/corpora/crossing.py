"""What crosses a split: speakers, sources and conversations that are in two of its parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from affuse.corpora.manifest import overlap

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("speaker", "source", "conversation")
PAIRS = ("train/test", "valid/test", "train/valid")
EXAMPLES = 5


def crossing(table: pd.DataFrame, splits: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """A row for whatever crosses: {fold (null where there are none), parts, column, count, examples}.

    `splits`: the part of every utterance [N], one array per fold. Empty cells cross nothing.
    """
    rows = []
    for fold, split in enumerate(splits):
        for column in COLUMNS:
            shared = overlap(table[[column]].assign(split=split), column)
            number = fold if len(splits) > 1 else None
            for parts, values in shared.items():
                row = {"fold": number, "parts": parts, "column": column}
                rows.append({**row, "count": len(values), "examples": values[:EXAMPLES]})
    return rows


def crossed(rows: Iterable[Mapping[str, Any]], parts: str = "train/test") -> set[str]:
    """The columns of which values are in both of the parts, in any fold."""
    return {row["column"] for row in rows if row["parts"] == parts}


def describe(rows: Sequence[Mapping[str, Any]], table: pd.DataFrame, folds: int | None, group_by: str) -> str:
    """`rows` of `crossing` in words: counts per pair of parts (from fold to fold), and by what they cross."""
    named = [c for c in COLUMNS if (table[c] != "").any()]
    lines = [
        f"{_pair(parts, rows, named, folds)} {_divided_by(parts, table, folds, group_by)}"
        for parts in PAIRS
        if crossed(rows, parts)
    ]
    if not crossed(rows):
        lines.insert(0, f"no {_list(named, 'or')} is in train and test")
    return "; ".join(lines)


def _pair(parts: str, rows: Sequence[Mapping[str, Any]], named: Sequence[str], folds: int | None) -> str:
    """6 speakers and 0 sources (Chandler, Joey, ...) are in train and test."""
    chosen = {c: [row for row in rows if (row["parts"], row["column"]) == (parts, c)] for c in named}
    counts = {c: [0] * ((folds or 1) - len(found)) + [row["count"] for row in found] for c, found in chosen.items()}
    listed = _list([f"{_span(n)} {c}{'' if max(n) == 1 else 's'}" for c, n in counts.items()])
    examples = next(found[0]["examples"] for found in chosen.values() if found)
    shown = ", ".join(examples[:3]) + (", ..." if len(examples) > 3 else "")
    return f"{listed} ({shown}) are in {parts.replace('/', ' and ')}"


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _divided_by(parts: str, table: pd.DataFrame, folds: int | None, group_by: str) -> str:
    """Who divided them: the corpus, or affuse by the recipe's grouping."""
    published = "fold" in table and "valid" not in parts if folds else set(parts.split("/")) <= set(table["split"])
    return f"by the published {'folds' if folds else 'split'}" if published else f"by split.group_by={group_by}"


def _list(words: Sequence[str], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
