"""CSV: a row per segment."""

from __future__ import annotations

from affuse.core.timeline import Timeline

CARD = {
    "summary": "a row per segment: probabilities, coverage, speakers, words",
    "source": "RFC 4180",
    "licence": "Apache-2.0",
    "entry": "render",
    "suffix": ".csv",
    "stdout": True,
}


def render(timeline: Timeline, *, header: bool = True) -> str:
    """The rows of `Timeline.to_frame`, with the names of the columns first unless `header` is off."""
    return timeline.to_frame().to_csv(index=False, header=header)
