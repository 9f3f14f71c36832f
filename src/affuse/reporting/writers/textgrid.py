"""Praat (.TextGrid): the tiers of a Timeline, each over the whole clip."""

from __future__ import annotations

from collections.abc import Sequence

from affuse.core.timeline import Timeline
from affuse.reporting.writers.tiers import Interval, tiers_of

CARD = {
    "summary": "tiers for Praat (long TextGrid): emotion, each modality alone, transcript, speaker",
    "source": "Praat manual, TextGrid file formats",
    "licence": "Apache-2.0",
    "entry": "render",
    "suffix": ".TextGrid",
}


def render(timeline: Timeline) -> str:
    """A Praat TextGrid (long form): `tiers_of` the Timeline, each over the whole clip, empty where there is no text.

    Raises BadMedia for a clip that could not be analysed.
    """
    tiers = tiers_of(timeline)
    end = max([round(1000 * timeline.duration), 1, *[i.end for _, intervals in tiers for i in intervals]])
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end / 1000}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, intervals) in enumerate(tiers, 1):
        whole = _filled(intervals, end)
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {_quoted(name)}"]
        lines += ["        xmin = 0", f"        xmax = {end / 1000}", f"        intervals: size = {len(whole)}"]
        for k, i in enumerate(whole, 1):
            lines += [f"        intervals [{k}]:", f"            xmin = {i.start / 1000}"]
            lines += [f"            xmax = {i.end / 1000}", f"            text = {_quoted(i.text)}"]
    return "\n".join(lines) + "\n"


def _filled(intervals: Sequence[Interval], end: int) -> list[Interval]:
    """The intervals with empty ones between them, from 0 to `end`."""
    whole: list[Interval] = []
    at = 0
    for i in [*intervals, Interval(end, end, "")]:
        if i.start > at:
            whole.append(Interval(at, i.start, ""))
        if i.end > i.start:
            whole.append(i)
        at = i.end
    return whole


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
