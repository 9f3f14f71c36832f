"""The corpora of the conversation suite: what is one recording is one source."""

from __future__ import annotations

import importlib
from pathlib import Path

import pandas as pd

from affuse.corpora.crossing import crossing
from affuse.corpora.manifest import make_splits

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_neither_sessions_nor_speakers_of_iemocap_cross_folds(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    conversations = importlib.import_module("conversations")
    dialogues = {
        f"Ses0{s}{who}_impro0{k}": {
            "utt_ids": [f"Ses0{s}{who}_impro0{k}_{i}" for i in range(4)],
            "speakers": list("FMFM"),
            "label6": [0, 1, 2, 3],
            "text": ["a"] * 4,
        }
        for s in range(1, 5)
        for who in "FM"
        for k in range(1, 4)
    }
    table = pd.DataFrame(conversations.rows_iemocap(dialogues))
    assert set(table["source"]) == {"Ses01", "Ses02", "Ses03", "Ses04"}
    assert set(table.loc[table["source"] == "Ses01", "speaker"]) == {"Ses01F", "Ses01M"}
    assert crossing(table, make_splits(table, "speaker+source", 0.1, 0.2, 4, 0)) == []
    (published,) = make_splits(table, "speaker+source", 0.1, 0.2, None, 0)
    assert set(table.loc[published == "test", "source"]) == {"Ses04"}
