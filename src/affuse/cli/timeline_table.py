"""A timeline in the terminal: the answer as a sentence, then a line per segment with bars in the emotions' colours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from affuse.cli.console import output

if TYPE_CHECKING:
    from rich.text import Text

    from affuse.core.timeline import ModalityView, Segment, Timeline

EIGHTHS = " ▏▎▍▌▋▊▉█"
HEIGHTS = "▁▂▃▄▅▆▇█"
WIDE, MIDDLE = 96, 68  # columns of a terminal without those of the words
WORDS = 34  # columns that the words need


def print_table(timeline: Timeline) -> None:
    """Print the headline and a line per segment; what does not fit a narrow terminal is left to the other formats."""
    from rich.table import Table
    from rich.text import Text

    from affuse.reporting.style import emotion_colours
    from affuse.reporting.timeline_slots import clock, headline, printable

    colours = emotion_colours(timeline.labels)
    modalities = list(dict.fromkeys(m for s in timeline.segments for m in s.modalities))
    spoken = any(s.text or s.speaker or s.reason or s.conflict for s in timeline.segments)
    wide = output.width - (WORDS if spoken else 0)
    name = printable(Path(timeline.clip).name)
    output.print(Text.assemble((name, "bold"), f"  {timeline.duration:.2f} s  ", (printable(timeline.model), "dim")))
    output.print(Text(printable(headline(timeline)), "bold"), "", sep="\n")
    grid = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2 if wide >= MIDDLE else 1, 0, 0))
    grid.add_column("time", justify="right", no_wrap=True, min_width=13 if wide >= MIDDLE else 6)
    grid.add_column("emotion", no_wrap=all(len(s.labels) < 2 for s in timeline.segments))
    grid.add_column("", no_wrap=True)
    for name in modalities:
        grid.add_column(name if wide >= MIDDLE else name[:3], no_wrap=True)
    for name in timeline.other_tasks:
        grid.add_column(name if wide >= MIDDLE else name[:4], no_wrap=True)
    grid.add_column("words" if any(s.text for s in timeline.segments) else "", ratio=1, overflow="fold")
    for s in timeline.segments:
        alone = [_alone(s.modalities.get(m), colours, wide if not timeline.values else MIDDLE) for m in modalities]
        when = f"{clock(s.start, 1)}–{clock(s.end, 1)}" if wide >= MIDDLE else clock(s.start, 1)
        others = [timeline.other_answer(s, name) or "–" for name in timeline.other_tasks]
        won = Text() if timeline.values else _won(s, colours, wide)
        grid.add_row(when, _label(s, wide), won, *alone, *others, _words(s, wide))
    output.print(grid)
    _print_curves(timeline, colours)
    for line in timeline.notes:
        output.print(Text(printable(f"note: {line}"), "dim"))


def _print_curves(timeline: Timeline, colours: dict[str, str]) -> None:
    """A line per label of every curve: its course from the start of the clip to its end."""
    from rich.text import Text

    for task, curve in timeline.curves.items():
        name, info = max(map(len, curve.labels)), timeline.tasks[task]
        width = max(10, min(len(curve.values), output.width - name - 2))
        known = (curve.array() - info.low) / (info.high - info.low)
        cells = np.array_split(known, width) if len(known) else []
        for i, label in enumerate(curve.labels):
            means = [np.nanmean(c[:, i]) if len(c) and not np.isnan(c[:, i]).all() else None for c in cells]
            bars = "".join(" " if m is None else HEIGHTS[min(7, max(0, int(8 * m)))] for m in means)
            output.print(Text.assemble(f"{label:<{name}}  ", (bars, colours.get(label, ""))))


def _label(s: Segment, wide: int) -> Text:
    from rich.text import Text

    from affuse.core.timeline import UNKNOWN

    unknown = Text(UNKNOWN if wide >= MIDDLE else "–", "dim italic")
    return unknown if s.label is None else Text(s.label, "bold")


def _won(s: Segment, colours: dict[str, str], wide: int) -> Text:
    """The probability of the label as a number and as a bar, and the runner-up where there is room."""
    from rich.text import Text

    if s.label is None:
        return Text()
    length = 16 if wide >= WIDE else 10 if wide >= MIDDLE else 5
    p = s.probability
    eighths = round(8 * length * min(max(p, 0.0), 1.0))
    bar = "█" * (eighths // 8) + (EIGHTHS[eighths % 8] if eighths % 8 else "")
    found = Text.assemble(f"{p:.2f} ", (f"{bar:<{length}}", colours.get(s.labels[0], "")))
    second = max((k for k in s.probabilities if k not in s.labels), key=lambda k: s.probabilities[k], default=None)
    if wide >= WIDE and second is not None:
        found.append(f" {s.probabilities[second]:.2f} {second}", "dim")
    return found


def _alone(view: ModalityView | None, colours: dict[str, str], wide: int) -> Text:
    """A modality by itself: its coverage as a column's height and as a number, in the colour of its label."""
    from rich.text import Text

    if view is None or not view.present or not view.probabilities:
        return Text("–", "dim")
    best = max(view.probabilities, key=lambda k: view.probabilities[k])
    height = HEIGHTS[min(7, int(8 * view.coverage))]
    if wide < MIDDLE:
        return Text(height, colours.get(best, ""))
    name = f" {best}" if wide >= WIDE else ""
    return Text.assemble((height, colours.get(best, "")), f" {view.coverage:4.0%}{name}")


def _words(s: Segment, wide: int) -> Text:
    """Speaker and words; the modalities that disagree with the answer; the reason where there is no answer."""
    from rich.text import Text

    from affuse.core.timeline import UNKNOWN
    from affuse.reporting.timeline_slots import printable

    why = f"but {s.dissent}" if s.conflict else ""
    if s.label is None:
        why = s.reason or "" if wide >= MIDDLE else f"{UNKNOWN}: {s.reason}"
    who = f"{s.speaker}: " if s.speaker and s.text else s.speaker or ""
    remark = f"({printable(why)}) " if why else ""
    return Text.assemble((remark, "dim italic"), (printable(who), "bold"), printable(s.text or ""))
