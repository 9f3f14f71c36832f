"""Cues: named findings about a clip with their values and times, and the file that keeps them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from affuse.core import io
from affuse.core.types import Modality

if TYPE_CHECKING:
    from affuse.media.clip import Clip


@dataclass(frozen=True)
class Cue:
    """One finding: a number (a probability, a share, or in the unit that its describer names) or the words themselves.

    `start` and `end`: seconds from the start of the clip.
    """

    name: str
    value: float | str
    modality: Modality
    start: float
    end: float


class Describer(Protocol):
    """Finds the cues of one modality of a clip; none where the clip does not have it.

    `identity` says what made them (version, weights): cues of another identity are not used again.
    """

    modality: Modality
    costly: bool  # whether its cues are worth keeping

    @property
    def identity(self) -> str: ...

    def describe(self, clip: Clip) -> list[Cue]: ...


class Kept:
    """A describer whose cues are kept in a file of JSON lines: a new template then runs no network again.

    A line holds all cues of one clip by one describer, under a key of the describer's identity and of the clip: its
    segment, and its files with their sizes and times of change. Order of lines means nothing; a damaged line is one
    that is not there.
    """

    def __init__(self, describer: Describer, file: Path) -> None:
        self.modality, self.costly = describer.modality, describer.costly
        self.describer, self.file = describer, file

    @property
    def identity(self) -> str:
        """That of the describer."""
        return self.describer.identity

    @cached_property
    def _known(self) -> dict[str, list[Cue]]:
        found: dict[str, list[Cue]] = {}
        lines = self.file.read_text(encoding="utf-8", errors="replace").splitlines() if self.file.is_file() else []
        for line in lines:
            try:
                row = json.loads(line)
                found[row["key"]] = [Cue(**cue) for cue in row["cues"]]
            except (ValueError, TypeError, KeyError):
                continue
        return found

    def describe(self, clip: Clip) -> list[Cue]:
        """The cues that are kept, else those found now."""
        key = io.digest([self.modality, self.identity, _source(clip)])
        if key not in self._known:
            self._known[key] = self.describer.describe(clip)
            named = clip.video or clip.audio
            row = {
                "file": named.name if named else "",
                "start": clip.start,
                "end": clip.end,
                "modality": self.modality,
                "cues": [asdict(cue) for cue in self._known[key]],
                "key": key,
            }
            io.append_jsonl(self.file, row)
        return self._known[key]


def _source(clip: Clip) -> list[object]:
    """What picture and sound of a clip are: files as they are now, and the segment."""
    files = [_file(path) for path in (clip.video, clip.audio)]
    return [*files, clip.start, clip.end, clip.crop]


def _file(path: Path | None) -> list[object] | None:
    if path is None:
        return None
    try:
        state = path.stat()
    except OSError:  # it is not there: the describer says so
        return [os.path.abspath(path)]
    return [os.path.abspath(path), state.st_size, state.st_mtime_ns]


def of(cues: Sequence[Cue], modality: Modality) -> list[Cue]:
    """The cues of one modality, in their order."""
    return [cue for cue in cues if cue.modality == modality]
