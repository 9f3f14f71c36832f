"""Which utterances an interval takes together, and what the interval then means."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from affuse.core.config import GROUPS
from affuse.corpora.manifest import groups_of

LEVELS = (GROUPS, "source", "conversation")


def cluster(table: pd.DataFrame, wanted: str, trained_on: Collection[str] = ()) -> tuple[pd.DataFrame, str, str]:
    """(the scored rows with a column of groups, its name, what the interval then means: empty where it needs no words).

    `wanted` is the grouping of the split. Speakers and recordings that never cross (`speaker+source`) are the groups of
    the interval too, unless one of them holds half of the utterances or more (a session alone, a series with the same
    six friends): then the sources are, else the conversations. `trained_on`: columns whose values the training part
    has as well.
    """
    by = _level(table) if wanted == GROUPS else wanted
    grouped = table.assign(**{by: groups_of(table, by)})
    return grouped, by, _meaning(grouped, by, wanted, trained_on)


def _level(table: pd.DataFrame) -> str:
    """The first level of which no group holds half of the rows, else the first with two groups."""
    sizes = {by: np.unique(groups_of(table, by), return_counts=True)[1] for by in LEVELS}
    even = [by for by, size in sizes.items() if 2 * size.max() < len(table)]
    return (even or [by for by, size in sizes.items() if len(size) > 1] or [GROUPS])[0]


def _meaning(table: pd.DataFrame, by: str, wanted: str, trained_on: Collection[str]) -> str:
    if table[by].nunique() < 2:
        return f"all {len(table):,} utterances are one group of {by}: there is no interval"
    parts = []
    named = [c for c in ("speaker", "source") if (table[c] != "").any()]
    crossing = [c for c in named if c in trained_on or table[table[c] != ""].groupby(c)[by].nunique().max() > 1]
    if by != wanted:
        largest = int(np.unique(groups_of(table, wanted), return_counts=True)[1].max())
        counts = {c: table.loc[table[c] != "", c].nunique() for c in named if c != by}
        same = " and ".join(f"{n:,} {c}{'' if n == 1 else 's'}" for c, n in counts.items())
        holds = f"one group of {wanted} holds {largest:,} of the {len(table):,} utterances"
        parts.append(f"{holds}, so the interval is over other {by}s" + (f" of the same {same}" if same else ""))
    if crossing:
        over = [f"{c}s" + (" that were not trained on" if c == by else "") for c in crossing]
        parts.append(f"the interval does not generalise over {' or '.join(over)}")
    return "; ".join(parts)
