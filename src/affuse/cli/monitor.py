"""affuse monitor: the recordings of one person over weeks, as trends with intervals."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.markup import escape

from affuse.cli.analyze import check_workers, expanded, failure, note_skipped, one_line, print_failed
from affuse.cli.console import Device, Quiet, Threads, Whole, choose_device, note, output, progress
from affuse.cli.monitor_table import print_monitor

if TYPE_CHECKING:
    from affuse.core.monitor import Monitor
    from affuse.inference.history import Found, History

FOLDER = ".affuse-monitor"  # below the person's folder; hidden, so that it is not searched for recordings
PAGE, PICTURES = "monitor.html", ("monitor.png", "monitor.svg")
Failures = dict[str, dict[str, Any]]


def run(
    subject_folder: Path,
    *,
    model: str = "affuse-base",
    dates: Literal["mtime"] | None = None,
    picture: Literal["png", "svg"] | None = None,
    out: Path | None = None,
    forget: Annotated[bool, Parameter(negative="")] = False,
    workers: Annotated[int, Whole] = 1,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> int:
    """Follow ONE person over weeks: SUBJECT_FOLDER holds their recordings, with the date in each name.

    Prints and writes (monitor.html) the trend of each emotion with intervals, coverage and change points. The same
    command later analyses new and changed recordings only. This is not a diagnosis: a model estimates how a person
    appears, and does not measure how they feel.

    Parameters
    ----------
    model
        The shipped model, or a run folder; one history holds the numbers of one model.
    dates
        mtime: a recording without a date in its name or container gets that of its file (default: it is no part of
        the trend).
    picture
        Also write monitor.png or monitor.svg.
    out
        Folder of the history and the page (default: .affuse-monitor in SUBJECT_FOLDER).
    forget
        Delete the history and the pages made of it, and nothing else.
    workers
        Processes for several recordings.
    """
    from affuse.inference.history import fingerprint, open_history
    from affuse.inference.monitoring import follow

    subject, out = Path(os.path.expanduser(subject_folder)), expanded(out)
    folder = out or subject / FOLDER
    if forget:
        return _forget(folder)
    check_workers(workers)
    if picture:
        from affuse.reporting.monitor_picture import check

        check()
    clips = _clips(subject, folder, quiet)
    name, made = fingerprint(model)
    failures: Failures = {}
    with open_history(folder, name, made) as history:
        found, notes = _look(history, clips, subject, dates == "mtime", failures)
        left = history.left(found)
        if len(left) < len(found):
            note(f"{len(found) - len(left)} of {len(found)} recordings are in the history already", quiet)
        if left:
            _analyze(history, left, model, choose_device(device, threads), workers, quiet, failures)
        kept = history.recordings()
    notes += [f"failed: {failure(clip, error)}" for clip, error in failures.items()]
    gone = len(kept.keys() - {f.content for f in found})
    if gone:
        notes.append(f"{gone} of {len(kept)} recordings are no longer in the folder: their numbers are kept")
    shown = follow(list(kept.values()), subject.resolve().name, name, notes)
    print_monitor(shown)
    _write(shown, folder, picture, quiet)
    for clip, error in failures.items():
        print_failed(clip, error)
    return 1 if failures else 0


def _clips(subject: Path, folder: Path, quiet: bool) -> list[str]:
    """The clips below the person's folder. Raises MissingFile where there is none, and no history either."""
    from affuse.core.errors import MissingFile
    from affuse.inference.clips import find_clips
    from affuse.inference.history import NAME

    remedy = "give the folder with the recordings of one person"
    if not subject.is_dir():
        raise MissingFile(f"{subject} is no folder", remedy)
    skipped: set[str] = set()
    clips = [clip for clip in find_clips([str(subject)], skipped) if clip != str(subject)]
    if not clips and not (folder / NAME).exists():
        raise MissingFile(f"there is no recording in {subject}", remedy)
    note_skipped({path for path in skipped if not Path(path).is_relative_to(folder)}, quiet)
    return clips


def _look(
    history: History, clips: Sequence[str], subject: Path, mtime: bool, failures: Failures
) -> tuple[list[Found], list[str]]:
    """The recordings, each content once, in order of time; and which files are the same as others."""
    from affuse.core.errors import AffuseError

    found: list[Found] = []
    for clip in clips:
        try:
            found.append(history.look(clip, subject, mtime))
        except AffuseError as error:
            failures[clip] = error.to_dict()
    first: dict[str, Found] = {}
    doubled = []
    for f in sorted(found, key=lambda f: f.when):
        if first.setdefault(f.content, f) is not f:
            doubled.append(f"{f.file} is the same recording as {first[f.content].file}: counted once")
    return list(first.values()), doubled


def _analyze(
    history: History, left: Sequence[Found], model: str, device: str, workers: int, quiet: bool, failures: Failures
) -> None:
    """Add the numbers of each recording to the history as soon as it is analysed."""
    from affuse.core.errors import BadConfig
    from affuse.core.memory import keep_flat
    from affuse.inference.clips import Job, analyze_clips
    from affuse.inference.monitoring import summarise
    from affuse.inference.recognizer import load

    keep_flat()
    recognizer = load(model, device)
    if recognizer.task.kind == "values":
        message = f"{recognizer.name} predicts values ({', '.join(recognizer.labels)}), not emotions"
        raise BadConfig(message, "give a model whose leading task has classes, such as affuse-base")
    by_clip = {f.clip: f for f in left}
    with progress(quiet or len(left) < 2) as bar:
        task = bar.add_task("recordings", total=len(left))
        for timeline in analyze_clips(recognizer, Job(model, device=device), list(by_clip), workers):
            if timeline.error is not None:
                failures[timeline.clip] = timeline.error
            else:
                history.add(by_clip[timeline.clip], summarise(timeline))
            bar.advance(task)


def _write(shown: Monitor, folder: Path, picture: str | None, quiet: bool) -> None:
    """Write the page and the picture, for their owner only."""
    from affuse.core.io import atomic
    from affuse.reporting.monitor_page import page

    files = {PAGE: page(shown).encode()}
    if picture:
        from affuse.reporting.monitor_picture import render

        files[f"monitor.{picture}"] = render(shown, picture)
    for name, content in files.items():
        with atomic(folder / name, 0o600) as aside:
            aside.write_bytes(content)
        note(escape(one_line(f"{folder / name}")), quiet)


def _forget(folder: Path) -> int:
    """Delete the history and what was made of it, and say which files these were."""
    from affuse.inference.history import BESIDE, NAME

    files = [folder / name for name in (*(f"{NAME}{end}" for end in BESIDE), PAGE, *PICTURES)]
    there = [file for file in files if os.path.lexists(file)]
    for file in there:
        file.unlink()
        output.print(f"deleted {one_line(str(file))}", soft_wrap=True, markup=False)
    if not there:
        output.print(f"there is no history in {one_line(str(folder))}", soft_wrap=True, markup=False)
    if folder.name == FOLDER and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return 0
