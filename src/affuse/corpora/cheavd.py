"""CHEAVD 2.0: clips of Chinese films and television, eight emotions (the data of the MEC 2017 challenge)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from affuse.core.errors import BadCorpus
from affuse.core.labels import SPACES, canonical
from affuse.corpora.manifest import SPLITS, Corpus, write_corpus
from affuse.corpora.reading.release import PICTURE, SOUND, add_clips, below, read_csv

CARD = {
    "summary": "CHEAVD 2.0: clips of Chinese films and television, 8 emotions (worried and anxious apart)",
    "source": "Li et al., MEC 2017: Multimodal Emotion Recognition Challenge, ACII Asia 2018",
    "entry": "import_cheavd",
    "licence": "by signed agreement with CASIA (ChineseLDC); no redistribution",
    "download": "ask CASIA (chineseldc.org) for CHEAVD 2.0 of MEC 2017 and sign the agreement",
    "layout": "the release's own files are not publicly described: give its labels as one csv (name, label, split) or "
    "as one csv per split (train.csv, val.csv, test.csv: name, label), and the clips below: NAME.avi, .mp4 or .wav",
    "splits": "the official train, validation and test; whether they share speakers or films is not published. The "
    "challenge ranks by macro average precision (mean over classes of TP / (TP + FP)), which is not retrieval's mAP",
}
SPELLED = {
    "train": "train",
    "training": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "test": "test",
}
LABELS = SPACES["cheavd-8"].labels
# Said of the release by others, not seen in it: a difference is worth a warning, not a refusal.
HEARSAY = {"train": 4917, "valid": 707, "test": 1406}


def import_cheavd(src: Path, dst: Path, *, partial: bool = False) -> Corpus:
    """Import the label tables below `src` with their clips; an empty label (a withheld test set) stays unlabelled.

    `source` is the clip, since neither speakers nor films are known. Raises BadCorpus for tables without the columns,
    foreign labels or splits, names given twice, missing splits, missing clips.
    """
    rows = [row for path in below(src, "*.csv") for row in _rows(path)]
    if not rows:
        raise BadCorpus(f"no table of labels (.csv) below {src}", "see: affuse show cheavd")
    found = Counter(str(row["split"]) for row in rows)
    short = [f"{split}: no labels" for split in SPLITS if not found[split]]
    if short and not partial:
        raise BadCorpus(f"{src} is incomplete ({'; '.join(short)})", "complete it, or pass --partial")
    short += add_clips(src, rows, "split", partial)
    extra = {"licence": CARD["licence"], "warnings": _warnings(found), **({"partial": short} if short else {})}
    return write_corpus(dst, rows, "cheavd", "cheavd-8", language="zh", **extra)


def _warnings(found: Counter[str]) -> list[str]:
    notes = ["speakers and films are not published: the splits, and folds made of them, may share both"]
    other = [f"{s} {found[s]} (not {n})" for s, n in HEARSAY.items() if found[s] not in (0, n)]
    return notes + ([f"clips per split differ from those commonly reported: {', '.join(other)}"] if other else [])


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table; its split is a column, or else the name of the file."""
    table = read_csv(path, "name", "label")
    splits = table["split"] if "split" in table else [path.stem] * len(table)
    rows = []
    for name, label, spelled in zip(table["name"], table["label"], splits, strict=True):
        split = SPELLED.get(spelled.strip().lower())
        if split is None:
            raise BadCorpus(
                f"{path}: unknown split '{spelled}'", "name it in a column, or by the file (train, val, test .csv)"
            )
        if label.strip() and canonical(label) not in LABELS:
            raise BadCorpus(f"{path}: unknown label '{label}' of {name}", f"known: {', '.join(LABELS)}")
        stem = Path(name.strip()).stem if Path(name.strip()).suffix.lower() in PICTURE | SOUND else name.strip()
        rows.append({"id": stem, "source": stem, "split": split, "label": label.strip()})
    return rows
