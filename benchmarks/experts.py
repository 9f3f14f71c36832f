"""Corpora that the experts of affuse-base are trained on, joined from imported releases.

python benchmarks/experts.py text OUT [--held-out 0.15] [--emorynlp]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd

from affuse.core.labels import SPACES
from affuse.corpora.emodb import import_emodb
from affuse.corpora.emorynlp import import_emorynlp
from affuse.corpora.manifest import Corpus, make_splits, write_corpus
from affuse.corpora.meld import import_meld
from affuse.corpora.ravdess import import_ravdess

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("AFFUSE_SHARED") or ROOT.parent / "shared") / "data"
SPACE = "ekman-7"


def audio_corpus(out: Path, data: Path = DATA) -> Corpus:
    """RAVDESS and EmoDB in ekman-7 (calm becomes neutral, boredom is left out), to part by speaker."""
    parts = []
    for name, release, read in (("ravdess", "ravdess_speech/opus", import_ravdess), ("emodb", "emodb", import_emodb)):
        corpus = read(data / release, out.with_name(f"{out.name}-{name}"), partial=True)
        table = corpus.table.replace({"label": {"calm": "neutral"}})
        table = table[table["label"].isin(SPACES[SPACE].labels)]
        named = {c: f"{name}_" + table[c] for c in ("id", "speaker", "source")}
        parts.append(table.assign(**named, audio=[str((corpus.path / a).resolve()) for a in table["audio"]]))
    return write_corpus(out, pd.concat(parts, ignore_index=True), "audio-expert", SPACE)


def text_corpus(out: Path, held_out: float = 0.0, emorynlp: bool = False, data: Path = DATA) -> Corpus:
    """MELD's words in ekman-7: its train split to train on, its dev split as `test`, reported and never selected on.

    `held_out`: the share of the train split, whole dialogues, that becomes `valid` to select on. `emorynlp` adds the train
    split of EmoryNLP (peaceful and powerful left out), less the episodes that are scored: both are made from the same series.
    """
    meld = import_meld(data / "meld_text" / "MELD", out.with_name(f"{out.name}-meld"), partial=True).table
    table = meld[meld["split"] != "test"].copy()
    table["split"] = table["split"].replace({"valid": "test"})
    (table["split"],) = make_splits(table, "conversation", held_out, 0.0, None, 0)
    if emorynlp:
        table = pd.concat([table, _emorynlp(out, data, table)], ignore_index=True)
    table["text"] = [straight(text) for text in table["text"]]
    # Intervals resample whole sources: here the dialogue, by which MELD is split; the episode is kept beside it.
    table = table.assign(episode=table["source"], source=table["conversation"])
    return write_corpus(out, table, "text-expert", SPACE, language="en")


def _emorynlp(out: Path, data: Path, table: pd.DataFrame) -> pd.DataFrame:
    """EmoryNLP's training utterances whose emotion is one of the seven and whose episode nothing in `table` is scored on."""
    other = import_emorynlp(data / "meld_text" / "emorynlp", out.with_name(f"{out.name}-emorynlp"), partial=True).table
    scored = set(table.loc[table["split"] != "train", "source"])
    keep = (other["split"] == "train") & other["label"].isin(SPACES[SPACE].labels) & ~other["source"].isin(scored)
    return other[np.asarray(keep)]


def straight(text: str) -> str:
    """Text with straight quotes, as transcripts of speech are written."""
    return text.translate(str.maketrans("‘’“”", "''\"\""))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("expert", choices=["text"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--held-out", type=float, default=0.0)
    parser.add_argument("--emorynlp", action="store_true")
    given = parser.parse_args()
    corpus = text_corpus(given.out, given.held_out, given.emorynlp)
    print(corpus.path, corpus.info["counts"])
