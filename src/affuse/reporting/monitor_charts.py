"""The course of emotions over days as inline SVG: horizontal positions are shares of the width, vertical ones px.

So a chart follows the width of the page without scaling its text; colours come from the page's style sheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from itertools import pairwise
from typing import NamedTuple

from affuse.core.monitor import WEEK, Change, Monitor, Recording, Trend
from affuse.core.timeline import UNKNOWN
from affuse.reporting import monitor_words as words
from affuse.reporting.plots import Axis, axis
from affuse.reporting.timeline_slots import printable

TOP, TALL, BELOW = 20, 120, 24  # px: names of change points, the plot, the dates
LANE, BAR = 26, 8  # px: a lane of the coverage, a bar in it
LEFT, RIGHT = 11.0, 3.0  # % of the width left of the first day, for the names of the scale, and right of the last


class Span(NamedTuple):
    """The days of a chart, which all charts of a page share."""

    first: datetime
    last: datetime

    def at(self, date: datetime) -> float:
        """Where a date stands, in % of the width."""
        long = (self.last - self.first).total_seconds()
        return 50.0 if not long else LEFT + (100 - LEFT - RIGHT) * (date - self.first).total_seconds() / long


def span(recordings: Sequence[Recording]) -> Span:
    """From the first recording with a date to the last."""
    dates = [r.date for r in recordings if r.date is not None]
    return Span(min(dates), max(dates))


def scale(monitor: Monitor) -> Axis:
    """The axis of shares, from 0 to the highest end of an interval."""
    tops = [max(v for v in share if v == v) for r in monitor.answered for share in r.summary.shares.values()]
    return axis(tops or [1.0], 3)


def course(monitor: Monitor, label: str, style: str, number: int) -> str:
    """One emotion: a point per recording with its interval, gaps, changes as marks and means, else the clear trend."""
    days, ends, trend = span(monitor.recordings), scale(monitor), monitor.trend(label)
    changes = monitor.changes_of(label)
    points = [_point(r, label, days, ends) for r in monitor.answered]
    line = "" if changes or trend is None or not trend.clear else _trend(trend, days, ends, monitor)
    drawn = _grid(ends) + _gaps(monitor, days) + _line(monitor, label, days, ends) + _changes(changes, days, ends)
    height = TOP + TALL + BELOW
    about = _described(monitor, label)
    return (
        f'<svg class="fluid {style}" height="{height}" role="img" aria-labelledby="t{number} d{number}">'
        f'<title id="t{number}">{escape(label)} over time</title><desc id="d{number}">{escape(about)}</desc>'
        f"{drawn}{line}{''.join(points)}{_dates(days, TOP + TALL + 17)}</svg>"
    )


def _described(monitor: Monitor, label: str) -> str:
    trend = monitor.trend(label)
    parts = [f"{words.moment(r.date)} {words.share(r.summary.shares[label])}" for r in monitor.answered]
    slope = f"{words.moves(trend)}, {words.slope(trend)} points per week. " if trend else ""
    return f"{slope}{'; '.join(parts)}"


def _y(value: float, ends: Axis) -> float:
    return TOP + TALL * (1 - ends.share(value))


def _grid(ends: Axis) -> str:
    lines = "".join(
        f'<line class="grid" x1="0%" x2="100%" y1="{_y(t, ends):.1f}" y2="{_y(t, ends):.1f}"/>' for t in ends.ticks
    )
    names = "".join(
        f'<text class="minor" x="0" y="{_y(t, ends) - 3:.1f}">{100 * t:.0f} %</text>' for t in ends.ticks[1:]
    )
    return lines + names


def _dates(days: Span, y: int) -> str:
    """The first day, the one in the middle and the last."""
    places = {days.first: "middle", days.first + (days.last - days.first) / 2: "middle"}
    if days.last > days.first:
        places[days.last] = "end"
    return "".join(
        f'<text class="minor" x="{100 if anchor == "end" else days.at(date):g}%" y="{y}" text-anchor="{anchor}">'
        f"{words.day(date)}</text>"
        for date, anchor in places.items()
    )


def _point(r: Recording, label: str, days: Span, ends: Axis) -> str:
    """The share with its interval; hollow where there is no interval."""
    assert r.date is not None
    value, low, high = r.summary.shares[label]
    x, known = f"{days.at(r.date):.2f}%", low == low
    bottom, top = _y(low, ends), _y(high, ends)
    bar = f'<line class="spread" x1="{x}" x2="{x}" y1="{bottom:.1f}" y2="{top:.1f}"/>' if known else ""
    title = f"{words.moment(r.date)}: {label} {words.share(r.summary.shares[label])}"
    dot = f'<circle class="{"dot" if known else "dot open"}" cx="{x}" cy="{_y(value, ends):.1f}" r="4"/>'
    return f"<g><title>{escape(title)}</title>{bar}{dot}</g>"


def _line(monitor: Monitor, label: str, days: Span, ends: Axis) -> str:
    """From recording to recording, interrupted at gaps."""
    found = []
    for a, b in pairwise(monitor.recordings):
        if a.answered and b.answered and a.date and b.date:
            found.append(
                f'<line class="step" x1="{days.at(a.date):.2f}%" x2="{days.at(b.date):.2f}%" '
                f'y1="{_y(a.summary.shares[label][0], ends):.1f}" y2="{_y(b.summary.shares[label][0], ends):.1f}"/>'
            )
    return "".join(found)


def _gaps(monitor: Monitor, days: Span) -> str:
    """A grey column with a question mark for each recording that tells nothing."""
    found = []
    for r in monitor.recordings:
        if r.answered or r.date is None:
            continue
        x = f"{days.at(r.date):.2f}%"
        title = printable(f"{words.moment(r.date)}: {UNKNOWN}: {r.summary.gap}")
        found.append(
            f'<g><title>{escape(title)}</title><line class="gap" x1="{x}" x2="{x}" y1="{TOP}" '
            f'y2="{TOP + TALL}"/><text class="minor" x="{x}" y="{TOP + TALL - 5}" text-anchor="middle">?</text></g>'
        )
    return "".join(found)


def _trend(trend: Trend, days: Span, ends: Axis, monitor: Monitor) -> str:
    """The line of a clear trend, from the first answered day to the last."""
    dates = [r.date for r in monitor.answered if r.date]
    weeks = (dates[-1].toordinal() - dates[0].toordinal()) / WEEK
    a, b = trend.first, trend.first + weeks * trend.slope
    at = [f"{days.at(date):.2f}%" for date in (dates[0], dates[-1])]
    return f'<line class="fit" x1="{at[0]}" x2="{at[1]}" y1="{_y(a, ends):.1f}" y2="{_y(b, ends):.1f}"/>'


def _changes(changes: Sequence[Change], days: Span, ends: Axis) -> str:
    """A mark with its date per change, and the mean before and after each."""
    found, since = [], days.first
    for k, c in enumerate(changes):
        x, until = days.at(c.middle), changes[k + 1].middle if k + 1 < len(changes) else days.last
        anchor = "start" if x < 20 else "end" if x > 80 else "middle"
        found.append(
            f'<line class="change" x1="{x:.2f}%" x2="{x:.2f}%" y1="{TOP - 4}" y2="{TOP + TALL}"/>'
            f'<text class="mark" x="{x:.2f}%" y="{TOP - 8}" text-anchor="{anchor}">{words.day(c.first)}</text>'
        )
        for a, b, mean in ((since, c.middle, c.before), (c.middle, until, c.after)):
            y = f"{_y(mean, ends):.1f}"
            found.append(f'<line class="fit" x1="{days.at(a):.2f}%" x2="{days.at(b):.2f}%" y1="{y}" y2="{y}"/>')
        since = c.middle
    return "".join(found)


def coverage(monitor: Monitor) -> str:
    """A lane per modality, a bar per recording as tall as the share of usable time; then the answers."""
    days = span(monitor.recordings)
    lanes = {m: [(r, r.summary.coverage.get(m, 0.0)) for r in monitor.recordings] for m in monitor.modalities}
    lanes["answers"] = [(r, r.summary.answered / max(r.summary.seconds, 1e-9)) for r in monitor.recordings]
    rows = "".join(
        f'<div class="strip"><span>{escape(name)}</span><svg class="fluid" height="{LANE}" role="img" '
        f'aria-labelledby="c{k} e{k}"><title id="c{k}">{escape(name)}: coverage of each recording</title>'
        f'<desc id="e{k}">{escape(_covered(found))}</desc>{"".join(_bar(r, v, days) for r, v in found)}</svg></div>'
        for k, (name, found) in enumerate(lanes.items())
    )
    dates = f'<svg class="fluid" height="{BELOW}" aria-hidden="true">{_dates(days, 17)}</svg>'
    return f'{rows}<div class="strip"><span></span>{dates}</div>'


def _covered(found: Sequence[tuple[Recording, float]]) -> str:
    return "; ".join(f"{words.moment(r.date)} {100 * share:.0f} %" for r, share in found)


def _bar(r: Recording, share: float, days: Span) -> str:
    assert r.date is not None
    x, tall = f"{days.at(r.date):.2f}%", (LANE - 4) * share
    title = f"<title>{words.moment(r.date)}: {100 * share:.0f} %</title>"
    place = f'x="{x}" width="{BAR}" transform="translate({-BAR / 2:g} 0)"'
    return (
        f'<g>{title}<rect class="rest" {place} y="2" height="{LANE - 4}"/>'
        f'<rect class="covered" {place} y="{LANE - 2 - tall:.1f}" height="{tall:.1f}"/></g>'
    )
