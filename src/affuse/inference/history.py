"""The history of one person's recordings: a SQLite file of numbers, without pictures, sound or words.

It is readable by its owner only from its creation on. Each recording is a transaction of its own, so that what is
interrupted goes on where it stopped. Recordings are known by the content of their files: they may be renamed, moved
and deleted.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from affuse.core import run_files
from affuse.core.config import shipped
from affuse.core.errors import BadRun, MissingFile, StorageError
from affuse.core.io import digest, exclusive, file_sha256
from affuse.core.monitor import Recording, Summary
from affuse.media.dates import date_of
from affuse.media.files import check_clip
from affuse.media.subtitles import sidecar

NAME = "monitor.sqlite"
FORMAT = 1  # kept in SQLite's user_version, which is 0 in a new file
BESIDE = ("", "-journal", "-wal", "-shm")  # what SQLite may leave beside a file, and the file itself
TABLES = (
    "CREATE TABLE model (name TEXT NOT NULL, hash TEXT NOT NULL)",
    "CREATE TABLE recordings (content TEXT PRIMARY KEY, words TEXT NOT NULL, file BLOB NOT NULL, size INTEGER NOT NULL,"
    " mtime_ns INTEGER NOT NULL, date TEXT, dated TEXT NOT NULL, numbers TEXT NOT NULL)",
)


@dataclass(frozen=True)
class Found:
    """A clip that is there now: its file below the person's folder, hashes of it and of its subtitles, its date."""

    clip: str
    file: str
    content: str
    words: str
    size: int
    mtime_ns: int
    date: datetime | None
    dated: str

    @property
    def when(self) -> tuple[datetime, str]:
        """Its place in time; without a date after all others."""
        return self.date or datetime.max, self.file


@dataclass(frozen=True)
class History:
    """An open history."""

    db: sqlite3.Connection

    def look(self, clip: str, folder: Path, mtime: bool = False) -> Found:
        """A clip below the person's folder; read only where its size or time is not the one in the history.

        `mtime`: a clip without a date gets that of its file. Raises MissingFile or BadMedia for what is no clip.
        """
        state, file = check_clip(clip), os.path.relpath(clip, folder)
        key = (os.fsencode(file), state.st_size, state.st_mtime_ns)
        row = self.db.execute(
            "SELECT content FROM recordings WHERE file = ? AND size = ? AND mtime_ns = ?", key
        ).fetchone()
        said = sidecar(clip)
        try:
            content, words = row[0] if row else file_sha256(clip), file_sha256(said) if said else ""
        except OSError as error:
            raise MissingFile(f"{clip} may not be read: {error.strerror}", "change its permissions") from error
        date, dated = date_of(Path(clip), Path(file))
        if date is None and mtime:
            date, dated = datetime.fromtimestamp(int(state.st_mtime)), "time of the file"
        return Found(clip, file, content, words, state.st_size, state.st_mtime_ns, date, dated)

    def left(self, found: Sequence[Found]) -> list[Found]:
        """Those that have no numbers yet, or those of other subtitles; the others get their present name and date."""
        known = dict(self.db.execute("SELECT content, words FROM recordings"))
        there = [f for f in found if known.get(f.content) == f.words]
        with self.db:
            self.db.executemany(
                "UPDATE recordings SET file = ?, size = ?, mtime_ns = ?, date = ?, dated = ? WHERE content = ?",
                [(*_place(f), f.content) for f in there],
            )
        return [f for f in found if known.get(f.content) != f.words]

    def add(self, found: Found, summary: Summary) -> None:
        """Keep the numbers of a recording, in place of those of an earlier state of its file."""
        row = (found.content, found.words, *_place(found), json.dumps(asdict(summary)))
        with self.db:
            self.db.execute(
                "DELETE FROM recordings WHERE file = ? OR content = ?", (os.fsencode(found.file), found.content)
            )
            self.db.execute(
                "INSERT INTO recordings (content, words, file, size, mtime_ns, date, dated, numbers)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )

    def recordings(self) -> dict[str, Recording]:
        """All recordings by the hash of their content, also those whose files are gone."""
        rows = self.db.execute("SELECT content, file, date, dated, numbers FROM recordings").fetchall()
        try:
            return {
                content: Recording(
                    os.fsdecode(file), datetime.fromisoformat(date) if date else None, dated, _summary(numbers)
                )
                for content, file, date, dated, numbers in rows
            }
        except (ValueError, TypeError, KeyError) as error:
            raise sqlite3.DatabaseError(f"a recording cannot be read: {error}") from error


def _place(f: Found) -> tuple[bytes, int, int, str | None, str]:
    """What may change of a recording without a change of its content."""
    return os.fsencode(f.file), f.size, f.mtime_ns, f.date.isoformat() if f.date else None, f.dated


def _summary(numbers: str) -> Summary:
    row = json.loads(numbers)
    return Summary(**row | {"shares": {label: tuple(share) for label, share in row["shares"].items()}})


@contextmanager
def open_history(folder: Path, name: str, model: str) -> Iterator[History]:
    """The history in `folder`, made where there is none; `model`: the hash of the model called `name`.

    Raises BadRun for a damaged history, one of another model or of another format; StorageError where it cannot be
    written, or is in use.
    """
    path = folder / NAME
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror}", "choose another --out") from error
    with exclusive(folder, "another affuse monitor writes to it"), _named(path):
        _make_private(path)
        with closing(sqlite3.connect(path)) as db:
            _check(db, path, name, model)
            yield History(db)


def _make_private(path: Path) -> None:
    """Create the file for its owner only, if it is not there; SQLite gives what it writes beside it the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}", "choose another --out") from error


def _check(db: sqlite3.Connection, path: Path, name: str, model: str) -> None:
    """Make the tables of a new file; raise what `open_history` raises."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
        db.execute("BEGIN")
        with db:
            for table in TABLES:
                db.execute(table)
            db.execute(f"PRAGMA user_version = {FORMAT}")
    elif version != FORMAT:
        message = f"{path} has format {version}, and this affuse reads {FORMAT}"
        raise BadRun(message, "use the affuse that wrote it, or choose another --out")
    if (state := db.execute("PRAGMA quick_check(1)").fetchone()) != ("ok",):
        raise sqlite3.DatabaseError(str(state[0]))
    if db.execute("SELECT count(*) FROM recordings").fetchone() == (0,):
        with db:
            db.execute("DELETE FROM model")
            db.execute("INSERT INTO model VALUES (?, ?)", (name, model))
    named, made = db.execute("SELECT name, hash FROM model").fetchone() or ("", "")
    if made != model:
        message = f"{path} holds numbers of the model {named} ({made}), not of {name} ({model})"
        raise BadRun(message, f"give --model {named}, or another --out; numbers of two models cannot be compared")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What SQLite raises, as an error that names the history and says what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        message = f"the history {path} cannot be read or written: {error}"
        raise StorageError(message, "check its permissions and the space left, and run again") from error
    except sqlite3.DatabaseError as error:
        message = f"the history {path} is damaged: {error}"
        remedy = "the recordings are untouched: affuse monitor FOLDER --forget deletes it, then run again to rebuild it"
        raise BadRun(message, remedy) from error


def fingerprint(model: str) -> tuple[str, str]:
    """Name of a shipped model or a run folder, and a hash of its weights. Raises MissingFile or UnknownName."""
    path = Path(model) if Path(model).exists() else shipped(Path(model))
    weights = {str(file.relative_to(path)): file_sha256(file) for file in sorted(path.rglob(run_files.WEIGHTS))}
    if not weights:
        raise MissingFile(f"no weights in {path}", "give the folder of a finished run")
    return path.resolve().name, digest(weights)
