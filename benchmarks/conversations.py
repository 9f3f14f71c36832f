"""Context models against none and bcLSTM on real dialogues: docs/results/conversations-CORPUS.md, by affuse bench.

python benchmarks/conversations.py [--only iemocap 'meld/dialogue-*' ...] [--out runs/conversations] [--workers 1]
    [--table]

IEMOCAP: six classes, sessions 1-3 to train, session 4 to test, 47 audio statistics and MiniLM vectors of the words.
MELD: its train split to train, its dev split to test, MiniLM vectors alone. A tenth of the training dialogues is held
out to select the epoch on. Everything is trained on cached features, but for the arms finetuned-*, which train MiniLM
with the rest, from the words (about ten minutes a run); the arms are those of benchmarks/suites/conversations.yaml.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
import affuse_base
from results import DATA, affuse
from suite import run_suite

from affuse.core import io

LABELS = ("happy", "sad", "neutral", "angry", "excited", "frustrated")  # the order of iemocap_conv
WORDS = ["layers=[2,4,6]"]


def rows_iemocap(dialogues: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Manifest rows; a session, its source, is two speakers who meet in all of its dialogues and in no others."""
    rows = []
    for name, dialogue in dialogues.items():
        session = name[:5]
        parts = zip(dialogue["utt_ids"], dialogue["speakers"], dialogue["label6"], dialogue["text"], strict=True)
        for k, (utterance, speaker, label, text) in enumerate(parts):
            row = {"id": utterance, "conversation": name, "position": k, "speaker": session + speaker}
            row |= {"source": session, "split": "test" if session == "Ses04" else "train"}
            rows.append(row | {"label": LABELS[label], "text": text})
    return rows


def corpus_iemocap(path: Path) -> None:
    """The dialogues of the six-class protocol, by `import table`, `import features` and `extract text`."""
    rows = rows_iemocap(io.read_json(DATA / "iemocap_conv" / "dialogues_6way_sessions1-4.json"))
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path.with_suffix(".csv"), index=False)
    affuse("import", "table", path.with_suffix(".csv"), path, "--name", "iemocap-6", "--space", "iemocap-6")
    with np.load(DATA / "iemocap_conv" / "iemocap_utterances_sessions1-4.npz") as arrays:
        kept = np.isin(arrays["utt_id"], [row["id"] for row in rows])
        np.savez(path.with_suffix(".npz"), ids=arrays["utt_id"][kept], values=arrays["audio47"][kept])
    affuse("import", "features", path, "audio", path.with_suffix(".npz"), "--modality", "audio")
    affuse("extract", path, "text", *WORDS, "--quiet")


def corpus_meld(path: Path) -> None:
    """MELD's words: its train split, and its dev split as `test`."""
    affuse_base.text_corpus(path, held_out=0.1)
    affuse("extract", path, "text", *WORDS, "--quiet")


CORPORA = {"iemocap": corpus_iemocap, "meld": corpus_meld}


if __name__ == "__main__":
    sys.exit(run_suite("conversations", CORPORA, __doc__))
