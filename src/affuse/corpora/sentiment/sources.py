"""Files of sentiment corpora, recognised by content: sequences, pickles, label tables, transcripts, folds, clips."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

from affuse.core.errors import BadCorpus, MissingFile
from affuse.corpora.reading.release import PICTURE, SOUND, below, mend, read_csv, read_json
from affuse.corpora.sentiment.csd import Csd, is_csd, open_csd
from affuse.corpora.sentiment.pickles import UNIMODAL, FeaturePickle, Row, is_pickle, read_pickle

PICKLED = {".pkl", ".pickle", ".p", ".pt", ".pth"}
JSON_SPLITS = {"train_corpus": "train", "val_corpus": "valid", "test_corpus": "test"}
MODES = {
    "train": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid", "test": "test",
    "": "",
}
FOLDS = {"standard_train_fold": "train", "standard_valid_fold": "valid", "standard_test_fold": "test"}
MISSING = -10.0  # MERTools writes it where there is no sentiment


@dataclass
class Sources:
    """What a source holds, by kind."""

    csds: list[Csd] = field(default_factory=list)
    pickles: list[FeaturePickle] = field(default_factory=list)
    opinions: list[Path] = field(default_factory=list)
    tables: list[list[Row]] = field(default_factory=list)
    jsons: list[list[Row]] = field(default_factory=list)
    words: list[dict[str, Row]] = field(default_factory=list)
    folds: dict[str, str] = field(default_factory=dict)
    clips: dict[str, Path] = field(default_factory=dict)


def survey(src: Path, language: str = "en") -> Sources:
    """Every file of `src` that its content says is of use; the first bytes decide, not the name."""
    if not src.exists():
        raise MissingFile(f"no file or folder {src}", "give the folder of the release, or one file of it")
    paths = [src] if src.is_file() else [p for p in below(src) if p.is_file()]
    found = Sources()
    for path in paths:
        if path.suffix.lower() in PICTURE | SOUND:
            for name in (f"{path.parent.name}_{path.stem}", path.stem):
                found.clips.setdefault(name + ("" if path.suffix.lower() in PICTURE else ":sound"), path.resolve())
        else:
            _sort_in(path, language, found)
    return found


def _sort_in(path: Path, language: str, found: Sources) -> None:
    with path.open("rb") as file:
        head = file.read(4096)
    suffix = path.suffix.lower()
    if is_csd(head):
        found.csds.append(open_csd(path))
    elif is_pickle(head) or suffix in PICKLED:
        found.pickles.append(read_pickle(path))
    elif head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{"):
        if rows := _json_rows(path):
            found.jsons.append(rows)
    elif suffix == ".csd":
        raise BadCorpus(f"{path}: not HDF5", "download the official .csd file of the CMU-MultimodalSDK again")
    elif b"standard_train_fold" in head:
        found.folds |= _folds(path)
    elif suffix == ".annotprocessed" or (suffix == ".txt" and head.count(b"___") >= 4):
        found.words.append(_transcript(path))
    elif suffix == ".csv":
        _sort_csv(path, head, language, found)


def _sort_csv(path: Path, head: bytes, language: str, found: Sources) -> None:
    line = [cell.strip().strip('"') for cell in head.decode("utf-8-sig", "replace").partition("\n")[0].split(",")]
    column = {"en": "english", "zh": "chinese"}[language]
    if {"video_id", "clip_id"} <= set(line):
        found.tables.append(_table_rows(path))
    elif {"name", column} <= set(line):
        table = read_csv(path, "name", column)
        found.words.append({n: {"text": mend(t)} for n, t in zip(table["name"], table[column], strict=True)})
    elif len(line) == 5 and all(re.fullmatch(r"-?\d+(\.\d+)?", line[i]) for i in (0, 1, 3, 4)):
        found.opinions.append(path)


def _folds(path: Path) -> dict[str, str]:
    """Video -> split of the SDK's cmu_*_std_folds.py; parsed, never run."""
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        lists = {getattr(n.targets[0], "id", ""): n.value for n in body if isinstance(n, ast.Assign)}
        return {
            str(video): split
            for name, split in FOLDS.items()
            if name in lists
            for video in ast.literal_eval(lists[name])
        }
    except (SyntaxError, ValueError, TypeError, RecursionError) as error:
        raise BadCorpus(
            f"{path}: not the SDK's lists of folds ({error})", "use cmu_mosei_std_folds.py as it is"
        ) from error


def _json_rows(path: Path) -> list[Row]:
    """MERTools: {train_corpus: {video_clip: {emo, val}}, ...}; nothing for a JSON of another kind."""
    content = read_json(path)
    if not isinstance(content, dict) or "train_corpus" not in content:
        return []
    rows = []
    for key, entries in content.items():
        if key not in JSON_SPLITS:
            return []  # another corpus: MER2023 has several tests
        if not isinstance(entries, dict):
            raise BadCorpus(
                f"{path}: '{key}' is a {type(entries).__name__}, not a dict of utterances",
                "use the official label file",
            )
        for name, entry in entries.items():
            try:
                value = float(entry["val"])
            except (KeyError, TypeError, ValueError) as error:
                raise BadCorpus(f"{path}: '{name}' has no number 'val'", "use the official label file") from error
            rows.append(_row(path, name, JSON_SPLITS[key], float("nan") if value == MISSING else value))
    return rows


def _row(path: Path, name: str, split: str, value: float) -> Row:
    video, mark, clip = name.rpartition("_")
    if not (mark and video and clip):
        raise BadCorpus(f"{path}: '{name}' names no video and clip", "ids are VIDEO_CLIP")
    return {
        "id": name,
        "conversation": video,
        "position": int(clip) if clip.isdecimal() else 0,
        "split": split,
        "sentiment": value,
    }


def _table_rows(path: Path) -> list[Row]:
    """label.csv or meta.csv of MMSA: video_id, clip_id, text, label, [label_T, label_A, label_V,] annotation, mode."""
    table = read_csv(path, "video_id", "clip_id", "label")
    rows = []
    for line in table.to_dict("records"):
        name, mode = f"{line['video_id'].strip()}_{line['clip_id'].strip()}", line.get("mode", "").strip().lower()
        if mode not in MODES:
            raise BadCorpus(f"{path}: '{name}' has mode '{mode}'", "modes are train, valid, test")
        row = _row(path, name, MODES[mode], _number(path, name, "label", line["label"]))
        row |= {
            column: _number(path, name, f"label_{m}", line[f"label_{m}"])
            for m, column in UNIMODAL.items()
            if f"label_{m}" in line
        }
        rows.append({**row, "text": mend(line.get("text", ""))})
    return rows


def _number(path: Path, name: str, column: str, cell: str) -> float:
    try:
        return float(cell) if cell.strip() else float("nan")
    except ValueError as error:
        raise BadCorpus(
            f"{path}: column '{column}' of '{name}' is '{cell}', not a number", "use the official file"
        ) from error


def _transcript(path: Path) -> dict[str, Row]:
    """Words per utterance: lines CLIP_DELIM_WORDS (MOSI), or VIDEO___CLIP___START___END___WORDS (MOSEI)."""
    found: dict[str, Row] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        clip, mark, said = line.partition("_DELIM_")
        parts = line.split("___", 4)
        if mark and clip.strip().isdigit():
            found[f"{path.stem}_{clip.strip()}"] = {"text": mend(said)}
        elif len(parts) == 5:
            video, clip, start, end, said = parts
            name = f"{video}_{clip}"
            begun, ended = _number(path, name, "start", start), _number(path, name, "end", end)
            found[name] = {"text": mend(said), **({"start": begun, "end": ended} if 0 <= begun < ended else {})}
    return found


def opinions(path: Path) -> list[Row]:
    """Rows of OpinionLevelSentiment.csv: lines of start, end (s), video, segment, sentiment."""
    import pandas as pd

    try:
        table = pd.read_csv(path, header=None, names=["start", "end", "video", "clip", "label"], dtype={"video": str})
        numbers = table[["start", "end", "clip", "label"]].astype(float).to_numpy().tolist()
        if table[["start", "end"]].isna().any(axis=None):
            raise ValueError("a time is missing")
        names = [f"{video.strip()}_{int(clip)}" for video, (_, _, clip, _) in zip(table["video"], numbers, strict=True)]
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise BadCorpus(
            f"{path}: not lines of start, end, video, segment, label: {error}", "use the official file"
        ) from error
    return [
        {**_row(path, name, "", label), "start": start, "end": end}
        for name, (start, end, _, label) in zip(names, numbers, strict=True)
    ]
