"""What importers share: files found, tables and JSON read with typed errors, text mended, labels checked."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affuse.core.errors import BadCorpus
from affuse.core.labels import canonical
from affuse.corpora.manifest import check_counts

if TYPE_CHECKING:
    import pandas as pd

_CP1252 = {c: bytes([c]).decode("cp1252", "replace") for c in range(0x80, 0xA0)}
SOUND = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a"}
PICTURE = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".flv", ".mpg"}


def below(src: Path, name: str = "*") -> list[Path]:
    """Files and folders of that name (a pattern) below `src`, sorted; hidden ones and macOS's copies are left out.

    Linked folders are entered, too: a folder that is there without a link counts once, one that holds `src` not at all.
    """
    found: list[Path] = []
    seen: set[str] = set()
    home = src.resolve()
    roots = [src]
    while roots:
        links: list[Path] = []
        for here, folders, files in (step for root in roots for step in os.walk(root)):
            new = os.path.realpath(here) not in seen
            seen.add(os.path.realpath(here))
            folders[:] = sorted(f for f in folders if new and not f.startswith(".") and f != "__MACOSX")
            shown = [*folders, *(f for f in files if new and not f.startswith("."))]
            found += [Path(here, f) for f in shown if fnmatchcase(f, name)]
            links += [p for f in folders if (p := Path(here, f)).is_symlink() and not home.is_relative_to(p.resolve())]
        roots = links
    return sorted(found)


def first(src: Path, name: str) -> Path | None:
    """The file or folder of that name below `src`; of several the one that sorts first."""
    return next(iter(below(src, name)), None)


def media(src: Path, suffixes: Iterable[str] = PICTURE | SOUND) -> dict[str, Path]:
    """Stem -> absolute file of the media below `src`, of several the first by name; no hidden files, no dead links."""
    wanted = set(suffixes)
    found = [p for p in below(src) if p.suffix.lower() in wanted and p.is_file()]
    return {p.stem: p.resolve() for p in reversed(found)}


def add_clips(src: Path, rows: Iterable[dict[str, Any]], part: str, partial: bool) -> list[str]:
    """Set video and audio of the rows by their ids; returns what is missing per `part` (a column) if there are any."""
    pictures, sounds = media(src, PICTURE), media(src, SOUND)
    rows = list(rows)
    for row in rows:
        row["video"], row["audio"] = (str(found.get(row["id"], "")) for found in (pictures, sounds))
    with_clip = Counter(row[part] for row in rows if row["video"] or row["audio"])
    if not with_clip:
        return []
    wanted = Counter(row[part] for row in rows)
    return [f"clips of {line}" for line in check_counts(with_clip, wanted, f"clips per {part}", partial)]


def check_labels(split: str, rows: Iterable[Mapping[str, object]], published: Mapping[str, int]) -> None:
    """BadCorpus where a complete split has other labels than published (canonical name -> utterances)."""
    found = Counter(canonical(str(row["label"])) for row in rows if row["split"] == split)
    if found.total() == sum(published.values()) and found != Counter(published):
        wrong = next(k for k in {**published, **found} if found[k] != published.get(k, 0))
        raise BadCorpus(
            f"{split}: {found[wrong]} of '{wrong}', the release has {published.get(wrong, 0)}",
            "use the official file: its labels were changed",
        )


def read_csv(path: Path, *columns: str, whole: tuple[str, ...] = ()) -> pd.DataFrame:
    """A csv file whose cells all stay text ("None" is a word), UTF-8 or else cp1252.

    Raises BadCorpus for a missing column, and for cells of the columns `whole` that are no whole numbers.
    """
    import pandas as pd

    try:
        try:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        except UnicodeDecodeError:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="cp1252")
    except (ValueError, OSError) as error:
        raise BadCorpus(f"{path} is not a readable csv file: {error}", "download the official file again") from error
    if not isinstance(table.index, pd.RangeIndex):
        raise BadCorpus(f"{path}: rows have more cells than the header", "download the official file again")
    missing = [c for c in (*columns, *whole) if c not in table]
    if missing:
        raise BadCorpus(f"{path} has no column '{missing[0]}'", "use the official file")
    for column in whole:
        wrong = table.loc[~table[column].str.fullmatch(r"\s*-?\d{1,9}\s*", na=False), column]
        if len(wrong):
            raise BadCorpus(
                f"{path}: {column} is '{wrong.iloc[0]}', not a whole number", "download the official file again"
            )
    return table


def read_json(path: Path) -> Any:
    """Parsed JSON; BadCorpus names a file that is not."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        value = json.loads(text)
        if "\\u" in text:  # half of a character (a cut emoji) cannot be written anywhere
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, OSError, RecursionError) as error:
        raise BadCorpus(f"{path} is not readable JSON: {error}", "download the official file again") from error


def mend(text: str) -> str:
    """Words with cp1252 punctuation that was decoded as Latin-1 (U+0092 is a quote) mended, white space evened out."""
    return re.sub(r"\s+", " ", text.translate(_CP1252)).strip()


def seconds(table: pd.DataFrame, column: str) -> list[float]:
    """Times like 0:16:16,059 in seconds; NaN where the release has none, or none that can be read."""
    import pandas as pd

    if column not in table:
        return [float("nan")] * len(table)
    times = pd.to_timedelta(table[column].where(table[column].str.contains(":")).str.replace(",", "."), errors="coerce")
    return [float(t) for t in times.dt.total_seconds()]
