"""Many clips: found in folders and globs, analysed in processes, each answer by itself."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affuse.core.errors import AffuseError, BadMedia
from affuse.core.processes import CRASH, spread
from affuse.inference.timeline import Timeline

if TYPE_CHECKING:
    from affuse.inference.recognizer import Recognizer

MEDIA = frozenset(
    (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".flv", ".wmv", ".3gp",
     ".ogv", ".wav", ".mp3", ".flac", ".m4a", ".aac", ".ogg", ".opus", ".wma")
)


@dataclass(frozen=True)
class Job:
    """What every clip is asked: the model with its `experts`, and the options of `Recognizer.__call__`."""

    model: str
    transcript: str | None = None
    every: float | None = None
    device: str = "cpu"
    experts: Mapping[str, str] = field(default_factory=dict)
    causal: bool = False
    context: bool = False

    @property
    def asked(self) -> dict[str, Any]:
        """The options of `Recognizer.__call__`."""
        return {"transcript": self.transcript, "every": self.every, "causal": self.causal, "context": self.context}


def find_clips(patterns: Sequence[str]) -> list[str]:
    """The clips that files, folders (searched through, by suffix) and globs name, in order and once each.

    What names none stays as it is, for its own analysis to say so.
    """
    found: list[str] = []
    for pattern in patterns:
        if os.path.isdir(pattern):
            files = sorted(str(p) for p in Path(pattern).rglob("*") if p.suffix.lower() in MEDIA and p.is_file())
        elif glob.has_magic(pattern) and not os.path.exists(pattern):
            files = sorted(p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))
        else:
            files = [pattern]
        found += files or [pattern]
    return list(dict.fromkeys(found))


def analyze_one(recognizer: Recognizer, clip: str, **asked: Any) -> Timeline:
    """The Timeline of a clip, `asked` as of `Recognizer.__call__`; an error becomes part of the answer, so that other clips go on."""
    try:
        return recognizer(clip, **asked)
    except AffuseError as error:
        return _failed(recognizer, clip, error)
    except Exception as error:  # noqa: BLE001 whatever breaks on one clip must not take the others along
        what = f"{clip} could not be analysed: {type(error).__name__}: {error}"
        return _failed(recognizer, clip, BadMedia(what, "convert it, e.g. with ffmpeg, and report this: it should have been refused by name"))


def _failed(recognizer: Recognizer, clip: str, error: AffuseError) -> Timeline:
    return Timeline(clip, 0.0, recognizer.name, recognizer.labels, error=error.to_dict())


def analyze_many(recognizer: Recognizer, job: Job, clips: Sequence[str], workers: int = 1) -> Iterator[Timeline]:
    """The Timelines of the clips: in order by one process, as they come by several (each loads the model anew)."""
    if workers <= 1 or len(clips) < 2:
        for clip in clips:
            yield analyze_one(recognizer, clip, **job.asked)
        return
    for clip, timeline in spread(_work, clips, min(workers, len(clips)), _start, (job,)):
        if timeline is None:
            timeline = _failed(recognizer, clip, BadMedia(f"{clip}: {CRASH}", "try it by itself; convert it, e.g. with ffmpeg"))
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
    _worker = load(job.model, job.device, job.experts), job


def _work(clip: str) -> Timeline:
    assert _worker is not None
    recognizer, job = _worker
    return analyze_one(recognizer, clip, **job.asked)
