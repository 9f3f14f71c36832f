"""The file of a challenge that has a row per clip: written aside, read back, compared, and only then given its name."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from affuse.core.errors import BadCorpus, MissingFile, StorageError
from affuse.core.io import atomic
from affuse.reporting.submissions.clips import ClipChallenge, Rows

NAME = "predictions.csv"


def write_clips(path: Path, challenge: ClipChallenge, part: str, rows: Rows) -> None:
    """Write the file aside, read it back, and name it. Raises StorageError where it is read back differently."""
    with atomic(path) as aside:
        with aside.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(challenge.head)
            writer.writerows((f'"{name}"' if challenge.quoted else name, *cells) for name, cells in rows.items())
        if read_clips(aside, challenge, part, list(rows)) != rows:
            raise StorageError(f"{path} was not written as it should be", "check the disk, and run again")


def read_clips(path: Path, challenge: ClipChallenge, part: str, ids: Sequence[str]) -> Rows:
    """The rows of a challenge's file, which has exactly these ids.

    Raises MissingFile; BadCorpus for another head line, ids that are missing, foreign or there twice, an unknown class,
    and values that are no numbers or out of range.
    """
    lines = _lines(path)
    head = ",".join(challenge.head)
    if not lines or tuple(lines[0]) != challenge.head:
        begins = ",".join(lines[0]) if lines else ""
        raise BadCorpus(f"{path} begins with {begins!r}", f"a file for {challenge.name} begins with {head}")
    known, rows = set(ids), Rows()
    for number, line in enumerate(lines[1:], 2):
        where = f"{path}, line {number}"
        if len(line) != len(challenge.head):
            raise BadCorpus(f"{where}: {len(line)} cells", f"a row has {head}")
        name = line[0].strip('"') if challenge.quoted else line[0]
        if name in rows or name not in known:
            what = "is there twice" if name in rows else f"is no clip of {part}"
            raise BadCorpus(f"{where}: '{name}' {what}", f"every clip of {part} has one row, and no other")
        rows[name] = tuple(line[1:])
        challenge.check(rows[name], part, where)
    if missing := [name for name in ids if name not in rows]:
        message = f"{path} lacks {len(missing)} of the {len(ids)} clips of {part}, such as '{missing[0]}'"
        raise BadCorpus(message, f"every clip of {part} has one row")
    return rows


def _lines(path: Path) -> list[list[str]]:
    if not path.is_file():
        raise MissingFile(f"no file {path}", "check the path")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [line for line in csv.reader(file) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadCorpus(f"{path} is no table of text: {error}", "write the file again") from error
