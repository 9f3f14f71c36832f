"""The processed releases of MME2E: pictures and sound in a folder per utterance, meta.pkl, the lists of the splits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from affuse.core import pickles
from affuse.core.errors import AffuseError, BadCorpus
from affuse.corpora.manifest import SPLITS, check_counts
from affuse.corpora.reading.release import mend

SAMPLE = 200  # utterances whose sound is measured, to see how many pictures a second there are
RATE_ERROR = 1.25  # factor by which the median may be off: short utterances have a picture more or less
Row = dict[str, Any]


@dataclass(frozen=True)
class Processed:
    """What meta.pkl says of each utterance; utterance -> split; folder of those that are listed, known and there."""

    meta: Mapping[str, Mapping[str, Any]]
    splits: Mapping[str, str]
    folders: Mapping[str, Path]


def read_processed(
    src: Path, name: str, fits: Callable[[str], object], place: Callable[[str], Path | str]
) -> Processed:
    """NAME_RAW_PROCESSED and NAME_SPLIT in `src`; `fits`: is this an utterance's id, `place`: where its folder lies.

    Raises BadCorpus for what is missing, for lists that do not fit, and for a meta.pkl that is none; BadFeatures for a
    pickle that holds more than plain values.
    """
    root, lists = (_folder(src, f"{name}_{what}") for what in ("RAW_PROCESSED", "SPLIT"))
    meta = pickles.load(root / "meta.pkl")
    if not isinstance(meta, dict) or not all(isinstance(entry, dict) for entry in meta.values()):
        raise BadCorpus(f"{root / 'meta.pkl'} is no dict of a dict per utterance", "use the file of the release")
    splits = read_lists({s: lists / f"{s}_split.txt" for s in SPLITS}, fits)
    folders = {i: root / place(i) for i in splits if i in meta}
    return Processed(meta, splits, {i: folder for i, folder in folders.items() if folder.is_dir()})


def _folder(src: Path, name: str) -> Path:
    found = next((p for p in sorted(src.glob("*")) if p.is_dir() and p.name.lower() == name.lower()), None)
    if found is None:
        raise BadCorpus(f"no folder {name} in {src}", "give the folder that the release of MME2E unpacks to")
    return found


def read_lists(files: Mapping[str, Path], fits: Callable[[str], object]) -> dict[str, str]:
    """Utterance -> split, from a list of ids per split; BadCorpus for a missing list and for ids that do not fit."""
    where: dict[str, str] = {}
    for split, path in files.items():
        try:
            ids = path.read_text(encoding="utf-8-sig").split()
        except (OSError, UnicodeDecodeError) as error:
            raise BadCorpus(f"{path} cannot be read: {error}", "use the lists of MME2E") from error
        if foreign := [i for i in ids if not fits(i) or i in where]:
            raise BadCorpus(f"{path}: '{foreign[0]}' is no utterance, or is in two splits", "use the lists of MME2E")
        where |= dict.fromkeys(ids, split)
    return where


def random_split(rows: Iterable[Row]) -> str:
    """What users of the split of IEMOCAP must know."""
    groups: dict[str, set[str]] = {split: set() for split in ("", *SPLITS)}
    for row in rows:
        groups[row["split"]].add(row["conversation"])
    shared = len(groups["train"] & groups["test"])
    return f"split=mme2e is by utterance at random: {shared} of {len(groups['test'])} test dialogues are in train too"


def words(entry: Mapping[str, Any]) -> str:
    """What was said."""
    return mend(str(entry.get("text") or ""))


def index_of_one(label: object, names: tuple[str, ...]) -> int | None:
    """Position in `names` of a label given as name, index or one-hot vector; None for anything else."""
    if isinstance(label, str):
        return names.index(label) if label in names else None
    given = numbers(label)
    if given.size == 1 and given[0] in range(len(names)):
        return int(given[0])
    return int(given.argmax()) if given.size == len(names) and sorted(given)[-2:] == [0, 1] else None


def numbers(label: object) -> np.ndarray:
    """A label as numbers [n]; empty where it holds anything else."""
    try:
        return np.asarray(label, dtype=float).reshape(-1)
    except (TypeError, ValueError):
        return np.empty(0)


def check_parts(rows: list[Row], counts: Mapping[str, int], partial: bool) -> list[str]:
    """Shortfalls: utterances per split, and those without sound."""
    short = check_counts(Counter(row["split"] for row in rows), counts, "utterances per split", partial)
    sound = {"utterances with sound": sum(bool(row["audio"]) for row in rows)}
    return short + check_counts(sound, dict.fromkeys(sound, len(rows)), "parts of the release", partial)


def notes(release: Processed, rows: list[Row]) -> list[str]:
    """What an import must say of what it leaves out and what it lacks."""
    silent = sum(not row["text"] for row in rows)
    unlisted = len(release.meta.keys() - release.splits.keys())
    lines = {
        f"{unlisted} utterances of meta.pkl are in no list: left out": unlisted,
        f"{silent} of {len(rows)} utterances have no words": silent,
    }
    return [line for line, holds in lines.items() if holds]


def pack(rows: list[Row], folders: Mapping[str, Path], prefix: Callable[[Row], str], dst: Path) -> list[str]:
    """Pack the pictures PREFIXi.jpg of every row's folder into DST/pictures/ID.mov, its `video`; what to take care of.

    Column `fps`: pictures per second. The JPEGs stay as they are, one that is cut off leaves a gap. Raises BadCorpus
    where the pictures last much longer or shorter than the sound: their rate is another.
    """
    from affuse.media.write import pack_jpegs

    _check_rate(rows, folders, prefix)
    damaged: list[str] = []
    bare = late = 0
    for row in rows:
        whole = list(_whole(_pictures(folders[row["id"]], prefix(row)), damaged))
        bare, late = bare + (not whole), late + bool(whole and whole[0][0])
        if whole:
            row["video"] = f"pictures/{row['id']}.mov"
            pack_jpegs(dst / row["video"], whole, row["fps"])
    lines = {
        f"{bare} of {len(rows)} utterances have no pictures": bare,
        f"{len(damaged)} pictures are damaged and were left out, e.g. {next(iter(damaged), '')}": len(damaged),
        f"{late} utterances have no picture 0: theirs begin too early by the pictures that are missing": late,
    }
    return [line for line, holds in lines.items() if holds]


def _pictures(folder: Path, prefix: str) -> dict[int, Path]:
    """Number -> file, in the order of the numbers."""
    name = re.compile(re.escape(prefix) + r"(\d+)\.jpg")
    found = {int(match[1]): path for path in folder.iterdir() if (match := name.fullmatch(path.name))}
    return dict(sorted(found.items()))


def _whole(found: Mapping[int, Path], damaged: list[str]) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of the pictures that begin and end as a JPEG does; names of the others go to `damaged`."""
    for number, path in found.items():
        data = path.read_bytes()
        if data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9"):
            yield number, data
        else:
            damaged.append(f"{path.parent.name}/{path.name}")


def _check_rate(rows: list[Row], folders: Mapping[str, Path], prefix: Callable[[Row], str]) -> None:
    from affuse.media.probe import probe

    sample = [row for row in rows[:: max(1, len(rows) // SAMPLE)] if row["audio"]]
    found = []
    for row in sample:
        last = max(_pictures(folders[row["id"]], prefix(row)), default=None)
        try:
            found += [] if last is None else [(last + 1) / probe(row["audio"]).duration / row["fps"]]
        except AffuseError:  # extraction names every file that cannot be read
            continue
    factor = float(np.median(found)) if found else 1.0
    if not 1 / RATE_ERROR < factor < RATE_ERROR:
        rate = factor * float(np.median([row["fps"] for row in sample]))
        message = f"the pictures last {factor:.2g} times as long as the sound: there are about {rate:.3g} a second"
        raise BadCorpus(message, "correct fps (an option, or in meta.pkl), or give pictures=false to leave them out")
