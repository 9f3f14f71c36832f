"""When a clip was recorded: by the date in its name, else by what its container states; never by a guess."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path, PurePath

from affuse.core.errors import AffuseError
from affuse.media.probe import open_media

# 2026-11-03, 20261103, 2026_11_03 and a time after it: T18-30, _1830, -183000, " at 18.30.12", T18:30:00.123
NAMED = re.compile(
    r"(?<!\d)((?:19|20)\d\d)([-_.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])"
    r"(?:(?: at |[T _-])?([01]\d|2[0-3])[-:.h_]?([0-5]\d)(?:[-:._]?([0-5]\d)(?:\.?\d{3})?)?)?(?!\d)"
)
SINCE = 1990  # containers without a clock state 1904 or 1970


def date_of(clip: Path, name: PurePath | None = None) -> tuple[datetime | None, str]:
    """(date, where it comes from), or (None, why there is none).

    `name`: the part of the path that may hold a date; its last folder with one counts where the file's own name has
    none. A container's time is taken as it is stated, which is UTC.
    """
    for part in reversed((name or PurePath(clip.name)).parts):
        found = dates_in(part)
        if len({date.date() for date in found}) > 1:
            return None, f"two dates in its name ({', '.join(f'{date:%Y-%m-%d}' for date in found)})"
        if found:
            return found[0], "name"
    stated = _stated(clip)
    return (stated, "container") if stated else (None, "no date in its name or container")


def dates_in(text: str) -> list[datetime]:
    """The dates that exist (no 30 February) in a name, with their time where there is one."""
    found = []
    for year, _, month, day, *time in NAMED.findall(text):
        try:
            hour, minute, second = (int(t or 0) for t in time)
            found.append(datetime(int(year), int(month), int(day), hour, minute, second))
        except ValueError:
            continue
    return found


def _stated(clip: Path) -> datetime | None:
    """The creation time in a container's header."""
    try:
        with open_media(clip) as container:
            stated = datetime.fromisoformat(container.metadata.get("creation_time", "")).replace(tzinfo=None)
    except (AffuseError, ValueError):  # a damaged clip is named by its own analysis
        return None
    return stated if stated.year >= SINCE else None
