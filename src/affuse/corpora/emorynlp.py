"""EmoryNLP emotion detection: scenes of the series Friends, seven emotions of the feeling wheel; words only."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from affuse.core.errors import BadCorpus
from affuse.corpora.manifest import Corpus, check_counts, write_corpus
from affuse.corpora.reading.release import check_labels, first, mend, read_csv, read_json, seconds

CARD = {
    "summary": "EmoryNLP: 12,606 utterances of 897 scenes of Friends, 7 emotions (peaceful and powerful among them); "
    "words",
    "source": "Zahiri & Choi, Emotion Detection on TV Show Transcripts with Sequence-Based CNNs, AffCon 2018",
    "entry": "import_emorynlp",
    "licence": "none stated by emorynlp/emotion-detection; the csv files are part of declare-lab/MELD (GPL-3.0)",
    "download": "json/ of github.com/emorynlp/emotion-detection, or data/emorynlp/ of github.com/declare-lab/MELD",
    "layout": "emotion-detection-{trn,dev,tst}.json (all), or emorynlp_{train,dev,test}_final.csv (those with times)",
    "counts": {"train": 9934, "valid": 1344, "test": 1328},
    "splits": "as published, by episode",
}
JSON = {
    "train": "emotion-detection-trn.json",
    "valid": "emotion-detection-dev.json",
    "test": "emotion-detection-tst.json",
}
CSV = {"train": "emorynlp_train_final.csv", "valid": "emorynlp_dev_final.csv", "test": "emorynlp_test_final.csv"}
EMOTIONS = ("neutral", "happy", "peaceful", "powerful", "fear", "angry", "sad")
# Utterances per emotion in the order of EMOTIONS: as published, and as counted in the csv files.
PUBLISHED = {
    "train": (3034, 2184, 900, 784, 1285, 1076, 671),
    "valid": (393, 289, 132, 134, 178, 143, 75),
    "test": (349, 282, 159, 145, 182, 113, 98),
}
TIMED = {"train": (2485, 1677, 638, 551, 941, 785, 474), "valid": (322, 205, 82, 70, 127, 97, 51)}
_ID = re.compile(r"s(\d+)_e(\d+)_c(\d+)_u(\d+)")
Row = dict[str, object]


def import_emorynlp(src: Path, dst: Path, *, partial: bool = False) -> Corpus:
    """Import the official files below `src`: the JSON files (all utterances), else the csv files (those with times).

    Conversations are scenes, `source` is the episode; the official splits share none. Joyful, mad and scared are named
    happy, angry and fear. Raises BadCorpus for damaged files, wrong counts or missing splits.
    """
    files = {s: path for s, name in JSON.items() if (path := first(src, name))}
    complete = bool(files)
    files = files or {s: path for s, name in CSV.items() if (path := first(src, name))}
    if not files:
        raise BadCorpus(f"no {JSON['train']} and no {CSV['train']} below {src}", "see: affuse show emorynlp")
    rows = [row for split, path in files.items() for row in (_from_json if complete else _from_csv)(split, path)]
    found = Counter(str(row["split"]) for row in rows)
    labels = PUBLISHED if complete else TIMED
    wanted = {split: sum(counts) for split, counts in labels.items()}
    # How many of the test utterances have times is published nowhere: any number of them passes.
    wanted.setdefault("test", found["test"] or sum(PUBLISHED["test"]))
    short = check_counts(found, wanted, "utterances per split", partial)
    for split in found:
        if split in labels:
            check_labels(split, rows, dict(zip(EMOTIONS, labels[split], strict=True)))
    extra = {"licence": CARD["licence"], **({"partial": short} if short else {})}
    return write_corpus(dst, rows, "emorynlp", "", language="en", **extra)


def _from_csv(split: str, path: Path) -> Iterator[Row]:
    table = read_csv(path, "Utterance", "Speaker", "Emotion", whole=("Scene_ID", "Utterance_ID", "Season", "Episode"))
    start, end = seconds(table, "Start_Time"), seconds(table, "End_Time")
    for row, begun, ended in zip(table.to_dict("records"), start, end, strict=True):
        numbers = [int(row[c]) for c in ("Season", "Episode", "Scene_ID", "Utterance_ID")]
        try:
            speakers = _names(ast.literal_eval(row["Speaker"]))
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            raise BadCorpus(
                f"{path}: speakers {row['Speaker']!r} are not a list of names", "use the official file"
            ) from error
        times = {"episode_start": begun, "episode_end": ended}
        yield _row(split, numbers, speakers, row["Utterance"], row["Emotion"]) | times


def _from_json(split: str, path: Path) -> Iterator[Row]:
    try:
        found = list(_utterances(read_json(path)))
        for said in found:
            numbers = [int(n) for n in _ID.fullmatch(said["utterance_id"]).groups()]  # type: ignore[union-attr]
            yield _row(split, numbers, _names(said["speakers"]), said["transcript"], said["emotion"])
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadCorpus(f"{path} is not a file of EmoryNLP: {error}", "download the official file again") from error


def _names(speakers: Any) -> list[str]:
    """The list of names that `speakers` is; ValueError where it is none (one string would fall into letters)."""
    if not (isinstance(speakers, list) and all(isinstance(name, str) for name in speakers)):
        raise ValueError(f"speakers {speakers!r} are not a list of names")
    return speakers


def _utterances(node: Any) -> Iterator[dict[str, Any]]:
    """Every utterance below a JSON node, in order: episodes hold scenes, scenes hold utterances."""
    if isinstance(node, dict) and "utterance_id" in node:
        yield node
    elif isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _utterances(child)


def _row(split: str, numbers: list[int], speakers: list[str], text: str, emotion: str) -> Row:
    season, episode, scene, position = numbers
    source = f"s{season:02d}_e{episode:02d}"
    return {
        "id": f"{source}_c{scene:02d}_u{position:03d}",
        "conversation": f"{source}_c{scene:02d}",
        "position": position,
        "speaker": " + ".join(speakers),
        "source": source,
        "split": split,
        "text": mend(text),
        "label": emotion,
    }
