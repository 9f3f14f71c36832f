"""The recordings of one person in the terminal: the answer as a sentence, the emotions, the recordings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from affuse.cli.console import output
from affuse.cli.timeline_table import HEIGHTS

if TYPE_CHECKING:
    from rich.table import Table

    from affuse.core.monitor import Monitor, Recording

MOST = 8  # columns of a course


def print_monitor(monitor: Monitor) -> None:
    """Print all of it within 80 columns."""
    from rich.text import Text

    from affuse.reporting import monitor_words as words
    from affuse.reporting.timeline_slots import printable

    about = f"  {words.counted(monitor.recordings)}, {words.period(monitor)}"
    output.print(Text.assemble((printable(monitor.subject), "bold"), about, (f"  {monitor.model}", "dim")))
    output.print(Text(f"{words.headline(monitor)}.", "bold"))
    for line in words.findings(monitor)[1:]:
        output.print(Text(f"{line}.", "bold"))
    output.print(Text(words.NO_DIAGNOSIS), "", sep="\n")
    if monitor.labels:
        output.print(_emotions(monitor), "", sep="\n")
    if monitor.recordings:
        output.print(_recordings(monitor))
    for line in words.remarks(monitor):
        output.print(Text(printable(f"note: {line}"), "dim"))


def _grid(*columns: str) -> Table:
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns[:-1]:
        grid.add_column(column, no_wrap=True)
    grid.add_column(columns[-1], overflow="fold")
    return grid


def _emotions(monitor: Monitor) -> Table:
    """A line per emotion: its course, mean, trend and changes."""
    from rich.text import Text

    from affuse.core.timeline import UNKNOWN
    from affuse.reporting import monitor_words as words
    from affuse.reporting.style import emotion_colours
    from affuse.reporting.timeline_slots import percent

    colours = emotion_colours(monitor.labels)
    grid = _grid("emotion", "course", "mean", "points per week", "trend", "change points")
    for label in monitor.labels:
        values = [r.summary.shares[label][0] if r.answered else np.nan for r in monitor.recordings]
        mean = percent(float(np.nanmean(values))) if monitor.answered else ""
        trend = monitor.trend(label)
        slope = words.slope(trend) if trend else UNKNOWN
        moves = words.moves(trend) if trend else ""
        course = Text(_course(np.array(values)), colours[label])
        grid.add_row(label, course, mean, slope, moves, "\n".join(words.shifts(monitor, label)))
    return grid


def _course(values: np.ndarray) -> str:
    """Shares [N] as columns from the first recording to the last, NaN as a gap; neighbours are averaged to fit."""
    cells = np.array_split(values, min(len(values), MOST)) if len(values) else []
    means = [None if np.isnan(cell).all() else np.nanmean(cell) for cell in cells]
    return "".join(" " if m is None else HEIGHTS[min(7, int(8 * m))] for m in means)


def _recordings(monitor: Monitor) -> Table:
    """A line per recording: date, seconds with an answer, coverage of each modality, strongest emotion or why none."""
    from rich.text import Text

    from affuse.core.timeline import UNKNOWN
    from affuse.reporting import monitor_words as words
    from affuse.reporting.timeline_slots import percent, printable

    grid = _grid("date", "answered", *(f"{m}\ncovered" for m in monitor.modalities), "strongest emotion")
    for r in monitor.recordings:
        covered = (percent(r.summary.coverage.get(m, 0.0)) for m in monitor.modalities)
        strongest = Text(f"{UNKNOWN}: {printable(r.summary.gap)}", "dim italic")
        if r.answered:
            label, found = words.strongest(r)
            strongest = Text(f"{label} {words.share(found)}")
        grid.add_row(words.moment(r.date), _seconds(r), *covered, strongest)
    return grid


def _seconds(r: Recording) -> str:
    return f"{r.summary.answered:.0f} of {r.summary.duration:.0f} s"
