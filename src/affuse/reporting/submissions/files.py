"""A submission's file: written aside, read back, compared, and only then given its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from affuse.core.errors import BadCorpus, StorageError
from affuse.core.io import atomic
from affuse.reporting.submissions.challenges import Challenge
from affuse.reporting.submissions.samples import Located, lines_of, location, parse_location

NAME = "predictions.txt"


def write_submission(path: Path, challenge: Challenge, rows: Sequence[Located]) -> None:
    """Write the rows as the challenge's file. Raises StorageError where it cannot be, or is read back differently."""
    with atomic(path) as aside:
        lines = [challenge.head, *(f"{where},{challenge.written(row)}" for where, row in rows)]
        aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
        if read_submission(aside, challenge) != list(rows):
            raise StorageError(f"{path} was not written as it should be", "check the disk, and run again")


def read_submission(path: Path, challenge: Challenge) -> list[Located]:
    """(location, row) of every line of a challenge's file.

    Raises MissingFile; BadCorpus for another head line, a row that names no frame or one a second time, an unknown
    class, and values that are none of the challenge's.
    """
    lines = lines_of(path)
    if not lines or lines[0] != challenge.head:
        begins = lines[0] if lines else ""
        raise BadCorpus(f"{path} begins with {begins!r}", f"a file for {challenge.name} begins with {challenge.head}")
    found: dict[str, tuple[float, ...]] = {}
    for number, line in enumerate(lines[1:], 2):
        where = f"{path}, line {number}"
        place, *cells = line.split(",")
        name = location(*parse_location(place, where))
        if name in found:
            raise BadCorpus(f"{where}: {name} is there twice", "every frame has one row")
        found[name] = challenge.read(cells, where)
    return list(found.items())
