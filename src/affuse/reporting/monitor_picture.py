"""PNG, SVG: the course of each emotion over days as a figure, through matplotlib (extra `plot`)."""

from __future__ import annotations

from datetime import timedelta
from io import BytesIO
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from affuse.core.errors import MissingDependency
from affuse.core.monitor import Monitor
from affuse.core.registry import available
from affuse.reporting import monitor_words as words
from affuse.reporting.monitor_charts import scale, span
from affuse.reporting.style import emotion_colours
from affuse.reporting.timeline_slots import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INCHES, TALL, DPI = 7.16, 0.72, 300  # across the two columns of a page; the height of an emotion
GREY, INK = "#b9c4cd", "#141a21"
TEXT: dict[Any, Any] = {"font.family": "sans-serif", "font.size": 7.0, "svg.fonttype": "none"}


def check() -> None:
    """Raise MissingDependency without matplotlib."""
    if not available({"packages": ["matplotlib"]}):
        raise MissingDependency("--picture needs matplotlib", "pip install 'affuse[plot]'")


def render(monitor: Monitor, format: str) -> bytes:
    """The figure as the bytes of a png (300 dpi) or svg file."""
    import matplotlib
    from matplotlib.dates import AutoDateLocator
    from matplotlib.figure import Figure

    labels, drawn = monitor.labels or ["no answer"], BytesIO()
    with matplotlib.rc_context(TEXT):
        figure = Figure(figsize=(INCHES, 0.9 + TALL * len(labels)), layout="constrained")
        figure.suptitle(printable(f"{monitor.subject}: {words.headline(monitor)}"), fontsize=8, parse_math=False)
        panels = figure.subplots(len(labels), sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, (label, colour) in zip(panels, emotion_colours(labels).items(), strict=True):
            _panel(axes, monitor, label, colour)
        panels[-1].xaxis.set_major_locator(AutoDateLocator(maxticks=7))
        if monitor.recordings:
            first, last = span(monitor.recordings)
            panels[-1].set_xlim(first - timedelta(days=1), last + timedelta(days=1))
        figure.supxlabel(words.NO_DIAGNOSIS, fontsize=5, color="#53606d", wrap=True)
        figure.savefig(drawn, dpi=DPI, format=format)
    return drawn.getvalue()


def _panel(axes: Axes, monitor: Monitor, label: str, colour: str) -> None:
    """One emotion: points with intervals, gaps in grey, changes dashed, the trend where it is clear."""
    from matplotlib.dates import date2num

    axes.set_ylabel(label, rotation=0, ha="right", va="center", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(0, scale(monitor).ticks[-1])
    for answered, group in groupby(monitor.recordings, key=lambda r: r.answered):
        part = list(group)
        dates: Any = [r.date for r in part]
        if not answered:
            axes.vlines(dates, 0, 1, transform=axes.get_xaxis_transform(), color=GREY, linewidth=3)
            continue
        values = np.array([r.summary.shares[label] for r in part])
        spread = np.nan_to_num(np.abs(values[:, 1:] - values[:, :1]).T)
        axes.errorbar(dates, values[:, 0], spread, fmt="o-", color=colour, markersize=3, linewidth=1)
    for change in monitor.changes_of(label):
        axes.axvline(date2num(change.middle), color=INK, linestyle="--", linewidth=0.8)
