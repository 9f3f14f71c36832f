"""affuse analyze: clips to emotion timelines."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from affuse.cli.console import Device, Quiet, Threads, choose_device, output, print_error, progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from affuse.inference.recognizer import Recognizer
    from affuse.inference.timeline import Timeline

Format = Literal["table", "json", "csv"]


def run(
    *clips: str,
    model: Path,
    transcript: Path | None = None,
    window: float | None = None,
    format: Annotated[Format, Parameter(help="table, json (a line per clip) or csv")] = "table",
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> int:
    """Analyse CLIPS with a trained run: segments with label, probabilities and coverage (exit 1 if one failed).

    Parameters
    ----------
    model
        A run folder.
    transcript
        A .srt or .vtt file (default: the one beside the clip).
    window
        Length in seconds of the segments of clips without subtitles (default: as the model was trained).
    """
    from affuse.core.errors import BadConfig
    from affuse.inference.recognizer import load

    if not clips:
        raise BadConfig("no clip given", "affuse analyze CLIP... --model RUN")
    if window is not None and not window > 0:
        raise BadConfig(f"--window {window} is not a length in seconds", "give a number above 0")
    recognizer = load(model, choose_device(device, threads))
    return _answer(recognizer, clips, transcript, window, format, quiet)


def _answer(
    recognizer: Recognizer, clips: Sequence[str], transcript: Path | None, window: float | None, format: Format, quiet: bool
) -> int:
    failed = 0
    with progress(quiet or len(clips) < 2) as bar:
        task = bar.add_task("clips", total=len(clips))
        for number, clip in enumerate(clips):
            timeline = analyze_one(recognizer, clip, transcript, window)
            failed += timeline.error is not None
            emit(timeline, format, first=number == 0)
            bar.advance(task)
    return 1 if failed else 0


def analyze_one(recognizer: Recognizer, clip: str, transcript: Path | None, window: float | None) -> Timeline:
    """The Timeline of a clip; a typed error becomes part of the answer, so that the other clips go on."""
    from affuse.core.errors import AffuseError
    from affuse.inference.timeline import Timeline

    try:
        return recognizer(clip, transcript, window)
    except AffuseError as error:
        return Timeline(clip, 0.0, recognizer.name, recognizer.labels, error=error.to_dict())


def emit(timeline: Timeline, format: Format, first: bool) -> None:
    """Write one answer to stdout."""
    if format == "json":
        sys.stdout.buffer.write(os.fsencode(timeline.to_json() + "\n"))
        sys.stdout.buffer.flush()
    elif timeline.error is not None:
        print_error(f"{timeline.clip}: {timeline.error['message']}", timeline.error["remedy"])
    elif format == "csv":
        sys.stdout.write(timeline.to_frame().to_csv(index=False, header=first))
    else:
        print_table(timeline)


def print_table(timeline: Timeline) -> None:
    """A readable table: one line per segment, a bar for the winning probability, coverage per modality."""
    from rich.table import Table

    modalities = list(timeline.segments[0].modalities) if timeline.segments else []
    title = f"{Path(timeline.clip).name}  {timeline.duration:.2f} s"
    grid = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for column in ("time", "label", "", *modalities, "text"):
        grid.add_column(column)
    for s, label in timeline:
        p = s.probabilities.get(label, 0.0)
        bar = f"{'█' * round(12 * p):<12} {p:.2f}" if s.label else f"({s.reason})"
        coverage = [f"{s.modalities[m].coverage:.0%}" for m in modalities]
        who = f"{s.speaker}: " if s.speaker else ""
        grid.add_row(f"{s.start:.2f}-{s.end:.2f}", label, bar, *coverage, f"{who}{s.text or ''}")
    output.print(grid)
