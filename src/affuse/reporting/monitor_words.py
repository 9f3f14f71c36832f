"""The recordings of one person in words: what changed, what did not, and what cannot be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from affuse.core.monitor import Change, Interval, Monitor, Recording, Trend
from affuse.core.timeline import UNKNOWN
from affuse.reporting.timeline_slots import percent

NO_DIAGNOSIS = (
    "This is not a diagnosis. A statistical model estimates how a person appears in each recording; it does not "
    "measure how they feel, and says nothing about their health."
)


def headline(monitor: Monitor) -> str:
    """The answer as one sentence without its full stop: what changed, that nothing did, or that it cannot be told."""
    found = findings(monitor)
    if found:
        return found[0] if len(found) == 1 else f"{found[0]}; {len(found) - 1} more"
    if not monitor.answered:
        return f"{UNKNOWN.capitalize()}: no recording has both a date and an answer"
    if monitor.no_trends:
        return f"{UNKNOWN.capitalize()} yet: {monitor.no_trends}"
    return "No change is clear"


def findings(monitor: Monitor) -> list[str]:
    """Every clear change and every clear trend as sentences without their full stop."""
    trends = sorted((t for t in monitor.trends if t.clear), key=lambda t: t.p)
    found = [_changed(c) for c in sorted(monitor.changes, key=lambda c: c.p)]
    return found + [f"{t.label.capitalize()} {moves(t)} by {points(abs(t.slope))} per week" for t in trends]


def _changed(c: Change) -> str:
    between = f"between {day(c.last)} and {day(c.first)}"
    return f"{c.label.capitalize()} changed {between}, from {percent(c.before)} to {percent(c.after)}"


def moves(trend: Trend | None) -> str:
    """rises, falls, or that neither is clear."""
    if trend is None:
        return UNKNOWN
    return ("rises" if trend.slope > 0 else "falls") if trend.clear else "no clear trend"


def shifts(monitor: Monitor, label: str) -> list[str]:
    """The change points of a label, or why there is none."""
    found = [f"{day(c.first)}: {percent(c.before)} to {percent(c.after)}" for c in monitor.changes_of(label)]
    return found or ["too few recordings" if monitor.no_changes else "none found"]


def remarks(monitor: Monitor) -> list[str]:
    """What could not be looked for, what is no point of the trend, and the notes."""
    found = []
    if monitor.no_trends:
        found.append(f"trends: {UNKNOWN}, {monitor.no_trends}")
    if monitor.no_changes:
        found.append(f"change points: too few recordings, {monitor.no_changes}")
    gaps = len(monitor.recordings) - len(monitor.answered)
    if gaps:
        found.append(f"{gaps} of {counted(monitor.recordings)} with a date: {UNKNOWN}")
    if monitor.undated:
        named = "; ".join(f"{r.file} ({r.dated})" for r in monitor.undated)
        found.append(f"{counted(monitor.undated)} without a date, not in the trend: {named}")
    return [*found, *monitor.notes]


def sources(monitor: Monitor) -> str:
    """Where the dates come from: 5 dates from the name, 1 from the container."""
    count = Counter(r.dated for r in monitor.recordings)
    return ", ".join(f"{n} {'dates' if n > 1 else 'date'} from the {source}" for source, n in count.most_common())


def counted(recordings: Sequence[Recording]) -> str:
    """1 recording, 5 recordings."""
    return f"{len(recordings)} recording{'s' if len(recordings) != 1 else ''}"


def period(monitor: Monitor) -> str:
    """From the first day to the last."""
    days = list(dict.fromkeys(day(r.date) for r in (*monitor.recordings[:1], *monitor.recordings[-1:]) if r.date))
    return " to ".join(days) or "no dates"


def day(date: datetime) -> str:
    """2026-11-03."""
    return f"{date:%Y-%m-%d}"


def moment(date: datetime | None) -> str:
    """The day, with the time where there is one."""
    return "" if date is None else day(date) if (date.hour, date.minute) == (0, 0) else f"{date:%Y-%m-%d %H:%M}"


def points(slope: float) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * slope:z.1f} points"


def slope(trend: Trend) -> str:
    """+1.2 [-0.3, +2.1]: percentage points per week with the interval."""
    return f"{100 * trend.slope:+z.1f} [{100 * trend.low:+z.1f}, {100 * trend.high:+z.1f}]"


def share(found: Interval) -> str:
    """42 % [31, 55], or without an interval where there is none."""
    value, low, high = found
    return f"{100 * value:.0f}\u00a0%" + (f" [{100 * low:.0f}, {100 * high:.0f}]" if low == low else "")


def strongest(r: Recording) -> tuple[str, Interval]:
    """The label with the largest share."""
    return max(r.summary.shares.items(), key=lambda item: item[1][0])
