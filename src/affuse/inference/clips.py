"""Several clips: found in folders and globs, analysed in processes, each with its own Timeline."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affuse.core.errors import AffuseError, BadMedia, MissingFile
from affuse.core.processes import CRASH, spread
from affuse.core.timeline import Timeline
from affuse.inference.windows import check_every
from affuse.media.files import MEDIA, SUBTITLES, check_clip

if TYPE_CHECKING:
    from affuse.inference.recognizer import Recognizer

# What systems and network drives put into folders, besides hidden files (a name that begins with a dot).
SYSTEM_FILES = frozenset(
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "@recycle", "#recycle", "#snapshot",
     "$recycle.bin", "recycler", "system volume information", "lost+found", "lost.dir")
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """How every clip is analysed: the model with its `experts` and `labels`, the options of `Recognizer.__call__`.

    Raises BadConfig for an `every` that is no number of seconds from 0.1 on.
    """

    model: str
    transcript: str | None = None
    every: float | None = None
    device: str = "cpu"
    experts: Mapping[str, str] = field(default_factory=dict)
    causal: bool = False
    context: bool = False
    labels: str = ""

    def __post_init__(self) -> None:
        check_every(self.every)

    @property
    def options(self) -> dict[str, Any]:
        """The options of `Recognizer.__call__`."""
        return {"transcript": self.transcript, "every": self.every, "causal": self.causal, "context": self.context}


def find_clips(patterns: Sequence[str], skipped: set[str] | None = None) -> list[str]:
    """The clips that files, folders (searched through, by suffix) and globs name, in order and once each.

    A name without a clip, a broken link and a file that may not be read stay in the list: their own analysis fails and
    says why. `skipped` gets the other files of the folders, except subtitles, hidden files and those of the system.
    """
    skipped = set() if skipped is None else skipped
    found: dict[str, str] = {}
    for pattern in map(os.fspath, patterns):
        pattern = pattern if os.path.lexists(pattern) else os.path.expanduser(pattern)
        for clip in _clips_of(pattern, skipped) or [pattern]:
            found.setdefault(os.path.abspath(clip), clip)
    return list(found.values())


def _clips_of(pattern: str, skipped: set[str]) -> list[str]:
    if os.path.isdir(pattern):
        return _clips_inside(pattern, skipped)
    if not glob.has_magic(pattern) or os.path.lexists(pattern):
        return [pattern]
    matches = sorted(glob.glob(pattern, recursive=True))
    files = [path for path in matches if not os.path.isdir(path)]
    if not (suffix := Path(pattern).suffix) or glob.has_magic(suffix):  # `*.dat` takes every such file
        files = _clips_among(files, skipped)
    return [*files, *(clip for path in matches if os.path.isdir(path) for clip in _clips_inside(path, skipped))]


def _clips_inside(folder: str, skipped: set[str]) -> list[str]:
    """The clips of a folder and of those in it, links followed, each folder once; also folders that cannot be read."""
    unreadable: list[OSError] = []
    seen: set[str] = set()
    files: list[str] = []
    for place, folders, names in os.walk(folder, onerror=unreadable.append, followlinks=True):
        new = os.path.realpath(place) not in seen
        seen.add(os.path.realpath(place))
        folders[:] = sorted(name for name in folders if new and not _hidden(name))
        files += [str(Path(place, name)) for name in names if new and not _hidden(name)]
    return sorted([*_clips_among(files, skipped), *(str(error.filename) for error in unreadable)])


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def _clips_among(files: Sequence[str], skipped: set[str]) -> list[str]:
    """The files that are clips by their suffix; `skipped` gets the others, except subtitles."""
    suffixes = {file: os.path.splitext(file)[1].lower() for file in files}
    skipped.update(file for file, suffix in suffixes.items() if suffix not in MEDIA and suffix not in SUBTITLES)
    return [file for file, suffix in suffixes.items() if suffix in MEDIA]


def analyze_clip(recognizer: Recognizer, clip: str, **options: Any) -> Timeline:
    """The Timeline of a clip, with the `options` of `Recognizer.__call__`.

    An error becomes part of the Timeline, so that the other clips go on.
    """
    before = None
    try:
        before = check_clip(clip)
        timeline = recognizer(clip, **options)
    except AffuseError as error:
        timeline = _failed(recognizer, clip, error)
    except Exception as error:  # noqa: BLE001 an error in one clip must not stop the others
        message = f"{clip} could not be analysed: {type(error).__name__}: {error}"
        remedy = "convert it, e.g. with ffmpeg, and report this: it should have been refused by name"
        timeline = _failed(recognizer, clip, BadMedia(message, remedy))
    change = None if before is None else _change(clip, before)
    return timeline if change is None else _failed(recognizer, clip, change)


def _change(clip: str, before: os.stat_result) -> AffuseError | None:
    """How a file changed since `before`, so that its answer cannot be trusted; None where it did not."""
    try:
        now = os.stat(clip)
    except OSError:
        message = f"{clip} vanished while it was analysed"
        return MissingFile(message, "put it back, or copy it to where it stays, and run again")
    if (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns):
        return None
    message = f"{clip} changed while it was analysed"
    return BadMedia(message, "wait until it is recorded, copied or downloaded, and run again")


def _failed(recognizer: Recognizer, clip: str, error: AffuseError) -> Timeline:
    return Timeline(clip, 0.0, recognizer.name, recognizer.labels, error=error.to_dict())


def analyze_clips(recognizer: Recognizer, job: Job, clips: Sequence[str], workers: int = 1) -> Iterator[Timeline]:
    """The Timelines of the clips: in order by one process, as they come by several (each loads the model)."""
    if workers <= 1 or len(clips) < 2:
        for clip in clips:
            yield analyze_clip(recognizer, clip, **job.options)
        return
    for clip, timeline in spread(_work, clips, min(workers, len(clips)), _start, (job,)):
        if timeline is None:
            error = BadMedia(f"{clip}: {CRASH}", "try it by itself; convert it, e.g. with ffmpeg")
            timeline = _failed(recognizer, clip, error)
        yield timeline


_worker: tuple[Recognizer, Job] | None = None


def _start(job: Job) -> None:
    """Load the model once per process, on one thread."""
    global _worker
    from affuse.core.memory import keep_flat
    from affuse.core.seed import set_threads
    from affuse.inference.recognizer import load

    set_threads(1)
    keep_flat()
    _worker = load(job.model, job.device, job.experts, job.labels), job


def _work(clip: str) -> Timeline:
    assert _worker is not None
    recognizer, job = _worker
    return analyze_clip(recognizer, clip, **job.options)
