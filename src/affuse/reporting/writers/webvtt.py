"""WebVTT (.vtt): captions with the emotion of each segment, for players."""

from __future__ import annotations

import re
from html import escape

from affuse.core.timeline import Timeline
from affuse.reporting.writers.tiers import answer_of, one_line, require_analysis, span_of

CARD = {
    "summary": "captions for players, with speaker and emotion (never read back as words)",
    "source": "W3C, WebVTT: The Web Video Text Tracks Format",
    "licence": "Apache-2.0",
    "entry": "render",
    "suffix": ".emotion.vtt",
}


def render(timeline: Timeline) -> str:
    """WebVTT: a cue per segment, `<v Speaker><c.label>[label 0.62]</c> words`, in order of start; overlaps stay.

    Raises BadMedia for a clip that could not be analysed.
    """
    require_analysis(timeline)
    cues = ["WEBVTT", f"NOTE affuse, model {escape(one_line(timeline.model), quote=False)}"]
    for number, s in enumerate(sorted(timeline.segments, key=lambda s: s.start), 1):
        start, end = span_of(s)
        who = escape(one_line(s.speaker or ""), quote=False)
        voice = f"<v {who}>" if who else ""
        style = f"<c.{re.sub(r'[^a-z0-9]+', '-', s.label.lower())}>" if s.label else "<c.unknown>"
        words = escape(one_line(s.text or ""), quote=False)
        payload = f"{voice}{style}[{escape(answer_of(s), quote=False)}]</c> {words}".rstrip()
        cues.append(f"{number}\n{_stamp(start)} --> {_stamp(end)}\n{payload}")
    return "\n\n".join(cues) + "\n"


def _stamp(milliseconds: int) -> str:
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"
