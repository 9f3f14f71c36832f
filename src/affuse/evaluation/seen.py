"""What of another corpus a model was trained on: it is named, and left out where there is anything else to score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from affuse.core import io, run_files
from affuse.corpora.manifest import Corpus

EXAMPLES = 6


@dataclass(frozen=True)
class Seen:
    """Which utterances [N] of a corpus belong to what a model was trained on, and what the two share.

    `shared`: a row per column, with the modality (where only one was trained on it), the corpus of the training, the
    column, the values that both have, and how many utterances of this corpus have them.
    """

    model: str
    corpus: Corpus
    rows: np.ndarray
    shared: list[dict[str, Any]]

    def left(self, chosen: np.ndarray, include: bool) -> np.ndarray:
        """The chosen utterances [N] to score: those that were trained on only with `include`, or without any others."""
        unseen = chosen & ~self.rows
        return chosen if include or not unseen.any() else unseen

    def mark(self, ids: pd.Series[str]) -> pd.Series[bool]:
        """Which of these utterances were trained on."""
        return ids.isin(self.corpus.table["id"][self.rows])

    def protocol(self, chosen: np.ndarray, scored: np.ndarray) -> dict[str, Any]:
        """For the protocol: `seen_in_training`, how many were `left_out` and `seen_scored`, the sentences `overlap`."""
        left_out, kept, n = int((chosen & ~scored).sum()), int((self.rows & scored).sum()), int(scored.sum())
        nothing = f"{self.model} was trained on nothing of {self.corpus.name} that it names"
        lines = [self._sentence(part) for part in self.shared] or [nothing]
        if left_out:
            lines.append(f"{left_out:,} utterances left out that were trained on; --include-seen scores them too")
        if kept:
            trained = f"{kept:,} of {n:,} scored utterances are of what {self.model} was trained on"
            lines.append(f"{trained}: these scores do not show how it does on others")
        return {"seen_in_training": self.shared, "left_out": left_out, "seen_scored": kept, "overlap": lines}

    def _sentence(self, part: Mapping[str, Any]) -> str:
        values, only = part["values"], f" ({part['modality']})" if "modality" in part else ""
        listed = ", ".join(values[:EXAMPLES]) + (", ..." if len(values) > EXAMPLES else "")
        counted = f"{len(values):,} {part['column']}{'' if len(values) == 1 else 's'}"
        what = f"{part['utterances']:,} utterances of {self.corpus.name}"
        return f"{self.model} was trained on {what}, by {counted}{only}: {listed}"


def seen(model: str, trained_on: Sequence[Mapping[str, Any]], corpus: Corpus) -> Seen:
    """What of `corpus` is in `trained_on`: rows {corpus, column, values, and perhaps modality, anywhere}.

    A name means the same in a corpus of the same name, or `anywhere`; a corpus that joins others may name their
    speakers CORPUS_SPEAKER. Empty cells match nothing.
    """
    mask, shared = np.zeros(len(corpus), bool), []
    for part in trained_on:
        if part["column"] not in corpus.table:
            continue
        cells, values = corpus.table[part["column"]].astype(str), set(part["values"])
        same = cells.isin({f"{part['corpus']}_{v}" for v in values}) | (f"{corpus.name}_" + cells).isin(values)
        if part.get("anywhere") or part["corpus"] == corpus.name:
            same |= cells.isin(values)
        rows = (same & (cells != "")).to_numpy()
        if rows.any():
            about = {k: part[k] for k in ("modality", "corpus", "column") if k in part}
            shared.append(about | {"values": sorted(set(cells[rows])), "utterances": int(rows.sum())})
        mask |= rows
    return Seen(model, corpus, mask, shared)


def trained_by_run(info: Mapping[str, Any], folders: Sequence[Sequence[Path]]) -> list[dict[str, Any]]:
    """The ids, sources and speakers that any fold of a run was trained or selected on, as `trained_on` of `seen`."""
    table = pd.concat([io.read_table(members[0] / run_files.SPLIT) for members in folders])
    table = table[table["split"].isin(["train", "valid"])]
    columns = ("id", "source", "speaker")
    common = {"corpus": info["corpus"]["name"], "anywhere": True}
    return [common | {"column": column, "values": sorted(set(table[column]))} for column in columns]
