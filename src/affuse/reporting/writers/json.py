"""JSON: one object on one line, with everything that the Timeline holds."""

from __future__ import annotations

from affuse.core.timeline import Timeline

CARD = {
    "summary": "everything: probabilities, each modality alone, coverage, speakers, words; one object on one line",
    "source": "RFC 8259",
    "licence": "Apache-2.0",
    "entry": "render",
    "suffix": ".json",
    "stdout": True,
}


def render(timeline: Timeline) -> str:
    """One JSON object and a line end; a clip that could not be analysed has its `error` there."""
    return timeline.to_json() + "\n"
