"""The organisers' list of the frames that a submission holds: it is read, compared with the videos, and followed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from affuse.core.errors import BadConfig, BadCorpus, MissingFile
from affuse.reporting.submissions.challenges import PLACE, Challenge, Row

_LOCATION = re.compile(r"(.+)/(\d{5,})\.jpg")
Located = tuple[str, Row]  # VIDEO/00001.jpg, row


def location(video: str, frame: int) -> str:
    """How files name a frame, the first is 1: VIDEO/00001.jpg."""
    return f"{video}/{frame:05d}.jpg"


def parse_location(text: str, where: str) -> tuple[str, int]:
    """(video, frame number from 1 on) of a location; BadCorpus for another form."""
    match = _LOCATION.fullmatch(text)
    if match is None or int(match[2]) < 1:
        raise BadCorpus(f"{where}: {text!r} names no frame", "frames are VIDEO/00001.jpg, with numbers from 1 on")
    return match[1], int(match[2])


def lines_of(path: Path) -> list[str]:
    """The lines of a text file without blank ones; MissingFile or BadCorpus names it."""
    if not path.is_file():
        raise MissingFile(f"no file {path}", "check the path")
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise BadCorpus(f"{path} is no text: {error}", "give the organisers' file as it came") from error


def read_samples(path: Path, challenge: Challenge) -> list[tuple[str, int]]:
    """(video, frame) of every row of the organisers' list, in its order.

    The head line is optional, and more columns may follow the first. Raises MissingFile; BadCorpus for the head line of
    another challenge, rows that name no frame, a frame that is named twice, and an empty list.
    """
    lines = lines_of(path)
    if lines and lines[0].split(",")[0].strip() == PLACE:
        columns = [cell.strip() for cell in lines.pop(0).split(",")][1:]
        if columns and tuple(columns) != challenge.columns:
            unknown = next((c for c in columns if c not in challenge.columns), "its order")
            message = f"{path}: the head line is not that of {challenge.name}: {unknown}"
            raise BadCorpus(message, f"it should be {challenge.head}")
    found: dict[tuple[str, int], None] = {}
    for number, line in enumerate(lines, 1):
        key = parse_location(line.split(",")[0].strip(), f"{path}, row {number}")
        if key in found:
            raise BadCorpus(f"{path}, row {number}: {location(*key)} is there twice", "give the organisers' file")
        found[key] = None
    if not found:
        raise BadCorpus(f"{path} names no frame", "rows are VIDEO/00001.jpg")
    return list(found)


def check_videos(videos: Collection[str], samples: Sequence[tuple[str, int]], path: Path) -> None:
    """Raise BadConfig where a video of the list is missing, and where one is given that the list lacks."""
    asked = dict.fromkeys(video for video, _ in samples)
    if missing := [video for video in asked if video not in videos]:
        message = f"{len(missing)} of the {len(asked)} videos of {path} are missing, such as '{missing[0]}'"
        raise BadConfig(message, f"give {missing[0]}.mp4 too: a video is named by its file, without the suffix")
    if unknown := [video for video in videos if video not in asked]:
        message = f"{path} lacks '{unknown[0]}' ({len(unknown)} of {len(videos)} videos)"
        raise BadConfig(message, "leave that video out, or give the list of this challenge and year")


@dataclass(frozen=True)
class Fitted:
    """The rows of a submission; per video how often its last row was `repeated`, and how many rows were `dropped`."""

    rows: list[Located]
    repeated: dict[str, int]
    dropped: dict[str, int]


def fit(rows: Mapping[str, Sequence[Row]], samples: Sequence[tuple[str, int]] | None) -> Fitted:
    """The rows of all videos (one per frame) in the order of the list, and exactly its frames; without one, all.

    Where a video is too short for the list its last row is repeated; frames that the list lacks are dropped.
    """
    if samples is None:
        samples = [(video, n) for video, found in rows.items() for n in range(1, len(found) + 1)]
    repeated: dict[str, int] = defaultdict(int)
    used: dict[str, int] = defaultdict(int)
    fitted = []
    for video, n in samples:
        own = rows[video]
        fitted.append((location(video, n), own[min(n, len(own)) - 1]))
        if n > len(own):
            repeated[video] += 1
        else:
            used[video] += 1
    dropped = {video: len(found) - used[video] for video, found in rows.items() if len(found) > used[video]}
    return Fitted(fitted, dict(repeated), dropped)
