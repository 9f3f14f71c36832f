"""CSV: a row per segment, or per step of a model that answers per frame."""

from __future__ import annotations

from affuse.core.timeline import Timeline

CARD = {
    "summary": "a row per segment, or per step of a model per frame: probabilities, coverage, speakers, words",
    "source": "RFC 4180",
    "licence": "Apache-2.0",
    "entry": "render",
    "suffix": ".csv",
    "stdout": True,
}


def render(timeline: Timeline, *, header: bool = True) -> str:
    """The rows of `Timeline.to_frame`, or of `to_frames` where there are curves; names first unless `header` is off."""
    rows = timeline.to_frames() if timeline.curves else timeline.to_frame()
    return rows.to_csv(index=False, header=header)
