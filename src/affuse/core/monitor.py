"""What the recordings of one person show over time, as values: they know no file format and no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

WEEK = 7.0  # days
ALPHA = 0.05  # adjusted p up to which something is called clear
Interval = tuple[float, float, float]  # value, low, high; NaN where there is no interval


@dataclass(frozen=True)
class Summary:
    """One recording in numbers.

    `seconds`: those of its segments, of which `answered` have an answer; `shares`: the mean probability of each label
    over these, with its 95 % interval; `coverage`: share of the segments' time in which a modality was usable; `gap`:
    why the recording tells nothing, empty where it does.
    """

    duration: float
    seconds: float
    answered: float
    shares: dict[str, Interval]
    coverage: dict[str, float]
    gap: str = ""


@dataclass(frozen=True)
class Recording:
    """A recording, its file below the person's folder, its date, and where that comes from (why there is none)."""

    file: str
    date: datetime | None
    dated: str
    summary: Summary

    @property
    def answered(self) -> bool:
        """Whether it is a point of the trend, not a gap."""
        return self.date is not None and not self.summary.gap


@dataclass(frozen=True)
class Trend:
    """How the share of a label moves: slope per week with its 95 % interval, the line's value on the first day.

    `p`: of a move in one direction, adjusted for the number of labels.
    """

    label: str
    slope: float
    low: float
    high: float
    first: float
    p: float

    @property
    def clear(self) -> bool:
        """Whether it is significant after the adjustment."""
        return self.p <= ALPHA


@dataclass(frozen=True)
class Change:
    """A change of the mean share of a label between two days with an answer; `p` is adjusted for all tests."""

    label: str
    last: datetime
    first: datetime
    before: float
    after: float
    p: float

    @property
    def middle(self) -> datetime:
        """Half-way between the last day before and the first day after."""
        return self.last + (self.first - self.last) / 2


@dataclass(frozen=True)
class Monitor:
    """The recordings of one person in order of time, those without a date, and what changed.

    `no_trends`, `no_changes`: why trends and changes could not be looked for, empty where they were; `notes`: what was
    left out, doubled or failed.
    """

    subject: str
    model: str
    recordings: Sequence[Recording]
    undated: Sequence[Recording]
    trends: Sequence[Trend] = ()
    changes: Sequence[Change] = ()
    no_trends: str = ""
    no_changes: str = ""
    notes: Sequence[str] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """The emotions, in the model's order."""
        return list(dict.fromkeys(label for r in (*self.recordings, *self.undated) for label in r.summary.shares))

    @property
    def modalities(self) -> list[str]:
        """The modalities that any recording was looked at with."""
        return list(dict.fromkeys(m for r in (*self.recordings, *self.undated) for m in r.summary.coverage))

    @property
    def answered(self) -> list[Recording]:
        """The points of the trend."""
        return [r for r in self.recordings if r.answered]

    def trend(self, label: str) -> Trend | None:
        """The trend of a label; None where there were too few recordings."""
        return next((t for t in self.trends if t.label == label), None)

    def changes_of(self, label: str) -> list[Change]:
        """The changes of a label, in order of time."""
        return [c for c in self.changes if c.label == label]
