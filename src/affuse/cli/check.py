"""affuse check: is a corpus what it should be, and do its features know the labels they are tested on?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from affuse.cli.console import output

if TYPE_CHECKING:
    from affuse.evaluation.store_check import StoreCheck


def run(
    corpus: Path,
    *stores: str,
    touched: str = "train",
    group_by: str = "source",
    target: str | None = None,
    seed: int = 0,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="one JSON object on stdout")] = False,
) -> int:
    """Check CORPUS and its feature STOREs (all, or some): counts, shared groups, coverage, label leaks (exit 1).

    Parameters
    ----------
    touched
        Splits whose labels may have shaped the features (train, or train+valid); the other splits are the yardstick.
    group_by
        What never crosses a fold: a column (source, speaker, conversation), or several joined by + (speaker+source).
    target
        Column that the features may know; default: the corpus' own label or values.
    """
    from affuse.cli.import_ import summary
    from affuse.corpora.manifest import Corpus, groups_of
    from affuse.evaluation.store_check import check_corpus

    opened = Corpus.open(corpus)
    if "+" in group_by:
        opened.table[group_by] = groups_of(opened.table, group_by)
    found = check_corpus(
        opened, stores or None, touched=touched.split("+"), group_by=group_by, column=target, seed=seed
    )
    leaks = [s.name for s in found if s.leak and s.leak.flagged]
    if as_json:
        about = {k: opened.info.get(k) or [] for k in ("warnings", "partial")}
        about |= {k: opened.info[k] for k in ("name", "hash", "counts", "overlap")}
        print(json.dumps({**about, "stores": [s.to_dict() for s in found], "leaks": leaks}, ensure_ascii=False))
    else:
        summary(opened, str(opened.path))
        show(found)
    return 1 if leaks else 0


def show(found: list[StoreCheck]) -> None:
    """Coverage of every store as a table, then one sentence each about leaks."""
    from rich.table import Table

    if not found:
        output.print("no feature stores: nothing that could know a label")
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("store", "stored", "usable", "failed", "coverage"):
        grid.add_column(column)
    for s in found:
        grid.add_row(
            s.name, f"{s.stored} of {s.utterances}", str(s.usable), str(s.failed), f"{s.usable / s.utterances:.1%}"
        )
    output.print(grid)
    for s in found:
        text = s.leak.decision if s.leak else f"not checked: {s.unchecked}"
        output.print(f"[bold]{s.name}[/]:", end=" ")
        output.print(text, markup=False, soft_wrap=True, style="red" if s.leak and s.leak.flagged else None)
