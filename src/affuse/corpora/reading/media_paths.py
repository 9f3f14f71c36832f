"""Media as tables name them: found also in another spelling, audio or video, their times checked against the files."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from affuse.core.errors import AffuseError, BadCorpus, MissingFile
from affuse.corpora.reading.release import PICTURE, SOUND
from affuse.media.probe import INDEXED, open_media, probe

if TYPE_CHECKING:
    import pandas as pd

_SOUND = SOUND | {".aac", ".aif", ".aiff", ".amr", ".au", ".caf", ".oga", ".wma", ".mka", ".ac3", ".wv", ".w64"}
_PICTURE = PICTURE - {".webm", ".mkv"} | {".mpeg", ".m4v", ".wmv", ".mts", ".m2ts", ".ts", ".3gp", ".ogv", ".mxf"}
ROUNDING = 0.1  # s by which a written end may lie behind the end of its file
LARGE = 16 << 20  # bytes; in larger files an exact length in the header is believed: reading all packets takes long


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name)


# What two names of the same file may share, the surest first; only the first makes them the same name.
_KEYS: tuple[Callable[[str], str], ...] = (
    _form,
    lambda n: _form(n).casefold(),
    lambda n: Path(_form(n).casefold()).stem,
)


class Finder:
    """Looks for the media of one table below `base`; every name is looked for once."""

    def __init__(self, base: Path, table: str) -> None:
        self.base, self.table = base, table
        self._respelled: Counter[str] = Counter()
        self._found: dict[str, str] = {}
        self._listed: dict[Path, list[dict[str, str]]] = {}

    @property
    def notes(self) -> list[str]:
        """How many names were read in another spelling than the table's."""
        return [f"media found {how}: {n} names" for how, n in self._respelled.items()]

    def find(self, value: object, column: str) -> str:
        """Absolute path of a media file, "" for an empty cell. Raises MissingFile, which says what is there instead."""
        name = "" if value is None or value != value else str(value).strip()
        if name and name not in self._found:
            self._found[name] = str(self._path(name, column))
        return self._found[name] if name else ""

    def _path(self, name: str, column: str) -> Path:
        if _is_file(self.base / name):
            return self.base / name
        here = f"{self.table} names {column} file {name}"
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name):
            raise MissingFile(
                f"{here}, which is an address on the web", "download it first, and write the path of the file"
            )
        slashed = name.replace("\\", "/")
        if re.match(r"[A-Za-z]:/|//", slashed) and slashed != name:
            raise MissingFile(
                f"{here}, an absolute path of Windows", "write paths that are relative to the table, or to --root DIR"
            )
        near, same = self._nearest(slashed)
        if near is not None and same:
            self._respelled["with / for \\" if slashed != name else "in another Unicode form"] += 1
            return near
        why = ", also with / for its backslashes" if slashed != name else ""
        remedy = (
            f"there is {os.path.relpath(near, self.base)}: write the name as it is there"
            if near is not None
            else "check --root DIR"
        )
        raise MissingFile(f"{here}, which is not below {self.base}{why}", remedy)

    def _nearest(self, name: str) -> tuple[Path | None, bool]:
        """(the file that comes nearest to a name, whether only its Unicode form differs); None where there is none."""
        here, same = Path("/") if name.startswith("/") else self.base, True
        parts = [part for part in name.split("/") if part not in ("", ".")]
        for i, part in enumerate(parts):
            keys = _KEYS if i == len(parts) - 1 else _KEYS[:2]
            matches = [there.get(key(part)) for key, there in zip(keys, self._names(here), strict=False)]
            match = ".." if part == ".." else next((m for m in matches if m), None)
            if match is None:
                return None, False
            same &= part == ".." or matches[0] is not None
            here /= match
        return (here, same) if _is_file(here) else (None, False)

    def _names(self, folder: Path) -> list[dict[str, str]]:
        """Per kind of key: key -> name of what the folder holds."""
        if folder not in self._listed:
            try:
                names = sorted(os.listdir(folder), reverse=True)
            except (OSError, ValueError):
                names = []
            self._listed[folder] = [{key(n): n for n in names} for key in _KEYS]
        return self._listed[folder]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def kind_of(path: str, column: str, table: str) -> str:
    """ "audio" or "video", by the suffix or else by what the file holds; BadCorpus asks where neither tells."""
    suffix = Path(path).suffix.lower()
    if suffix in _SOUND | _PICTURE:
        return "audio" if suffix in _SOUND else "video"
    try:
        return "video" if probe(path).video else "audio"
    except AffuseError as error:
        message = f"column '{column}' of {table} may be audio or video, and {path} does not tell: {error.message}"
        raise BadCorpus(message, f"say which: --map audio={column} or --map video={column}") from error


def check_times(table: pd.DataFrame) -> list[str]:
    """Check `start` and `end` (s) against the files, each read once; an end just behind its file becomes the file's.

    Changes `table`, returns notes. Raises BadCorpus with the first row whose times lie outside its file.
    """
    import pandas as pd

    columns = [c for c in ("video", "audio") if c in table]
    timed = table[(table["start"] > 0) | table["end"].notna()]
    if timed.empty or not columns:
        return []
    needed = timed["end"].fillna(timed["start"])
    latest = (
        pd.concat([needed.groupby(timed[c]).max() for c in columns]).groupby(level=0).max().drop("", errors="ignore")
    )
    lengths, unread = _lengths(latest.to_dict())
    length = pd.concat([timed[c].map(lengths).astype(float) for c in columns], axis=1).max(axis=1)
    outside = (timed["start"] >= length) | (timed["end"] > length + ROUNDING)
    if outside.any():
        raise _outside(timed, length, outside, len(table))
    late = timed.index[timed["end"] > length]
    table.loc[late, "end"] = length[late]
    notes = (
        [f"{len(late)} ends lay up to {ROUNDING} s behind the end of their file, which they are now"]
        if len(late)
        else []
    )
    if unread:
        name, why = next(iter(unread.items()))
        notes.append(f"the times in {len(unread)} files could not be checked, e.g. {Path(name).name}: {why}")
    return notes


def _lengths(latest: Mapping[str, float]) -> tuple[dict[str, float], dict[str, str]]:
    """(file -> seconds, file -> why it cannot be read); `latest` is the last second that a row asks of each file."""
    found: dict[str, float] = {}
    unread: dict[str, str] = {}
    for name, needed in latest.items():
        try:
            found[name] = _length(Path(name), needed)
        except AffuseError as error:
            unread[name] = error.message
    return found, unread


def _length(path: Path, needed: float) -> float:
    """Seconds that a file lasts: a large one by its header where that is exact and enough, else by its packets."""
    if path.stat().st_size > LARGE:
        with open_media(path) as container:
            stated = (container.duration or 0) / 1e6
            if container.format.name in INDEXED and stated >= needed:
                return stated
    return probe(path).duration


def _outside(timed: pd.DataFrame, length: pd.Series[float], outside: pd.Series[bool], of: int) -> BadCorpus:
    """What is wrong with the first row that lies outside its file."""
    row = timed[outside].iloc[0]
    name = next(Path(row[c]).name for c in ("video", "audio") if row.get(c))
    until = "" if row["end"] != row["end"] else f" to {row['end']:g}"
    message = (
        f"row {row.name + 1} (utterance '{row['id']}') is at {row['start']:g}{until} s of {name}, which lasts "
        f"{length[row.name]:.4g} s; "
        f"{int(outside.sum())} of {of} rows lie outside their file"
    )
    times = timed[["start", "end"]].to_numpy().ravel()
    times = times[times > 0]
    fits = (timed["start"] < 1000 * length) & ~(timed["end"] > 1000 * (length + ROUNDING))
    if (times >= 10).all() and (fits[length.notna()].all() or ((times % 1 == 0) & (times >= 100)).all()):
        return BadCorpus(
            f"{message}; times look like milliseconds", "divide by 1000, or call the columns start_ms and end_ms"
        )
    return BadCorpus(
        message, "times are seconds from the beginning of the file: check them, and which file the row names"
    )
