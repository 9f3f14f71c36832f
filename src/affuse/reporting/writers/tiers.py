"""Tiers of a Timeline: what the annotation formats (ELAN, Praat, WebVTT) share.

Overlapping segments: WebVTT keeps them, its cues may overlap. ELAN and Praat allow none within a tier, so there a
segment that begins before the last one of its tier ended goes to a further tier, "emotion 2", "emotion 3", ...
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from affuse.core.errors import BadMedia
from affuse.core.timeline import UNKNOWN, Segment, Timeline

# What XML 1.0 cannot hold, and the halves of characters that undecodable file names are read as.
UNWRITABLE = re.compile("[^\t\n\r -\ud7ff\ue000-�\U00010000-\U0010ffff]")


class Interval(NamedTuple):
    """An interval in whole milliseconds, start < end, and its text."""

    start: int
    end: int
    text: str


def tiers_of(timeline: Timeline) -> list[tuple[str, list[Interval]]]:
    """(name, intervals without overlap) of every tier."""
    require_analysis(timeline)
    names = dict.fromkeys(m for s in timeline.segments for m in s.modalities)
    columns: list[tuple[str, Callable[[Segment], str]]] = [
        ("emotion", answer_of),
        *((m, partial(modality_answer, modality=m)) for m in names),
        *((task, partial(timeline.other_answer, task=task)) for task in timeline.other_tasks),
        ("transcript", lambda s: s.text or ""),
        ("speaker", lambda s: s.speaker or ""),
    ]
    found = []
    for name, words in columns:
        rows = [Interval(*span_of(s), one_line(words(s))) for s in timeline.segments]
        layers = layers_of(row for row in rows if row.text)
        found += [(name if k == 0 else f"{name} {k + 1}", layer) for k, layer in enumerate(layers)]
    return found


def layers_of(rows: Iterable[Interval]) -> list[list[Interval]]:
    """As few lists without overlap as are needed; each interval takes the first that is free. At least one list."""
    layers: list[list[Interval]] = [[]]
    for row in sorted(rows):
        free = next((layer for layer in layers if not layer or layer[-1].end <= row.start), None)
        if free is None:
            layers.append(free := [])
        free.append(row)
    return layers


def answer_of(s: Segment) -> str:
    """The label with its probability and the modalities that disagree, or why there is none."""
    if s.label is None:
        return one_line(f"{UNKNOWN}: {s.reason}") if s.reason else UNKNOWN
    against = f" (but {s.dissent})" if s.conflict else ""
    return one_line(f"{s.label} {s.probability:.2f}{against}")


def modality_answer(s: Segment, modality: str) -> str:
    """The label of one modality by itself, with its probability and coverage; empty where it is absent."""
    view = s.modalities.get(modality)
    if view is None or not view.present or not view.probabilities:
        return ""
    best = max(view.probabilities, key=lambda k: view.probabilities[k])
    return f"{best} {view.probabilities[best]:.2f}, coverage {view.coverage:.2f}"


def span_of(s: Segment) -> tuple[int, int]:
    """Milliseconds; a segment too short for one lasts one."""
    start = max(0, round(1000 * s.start))
    return start, max(start + 1, round(1000 * s.end))


def writable(text: str) -> str:
    """The text with a replacement character for each that XML cannot hold."""
    return UNWRITABLE.sub("\ufffd", text)


def one_line(text: str) -> str:
    """Writable text on one line."""
    return " ".join(writable(text).split())


def require_analysis(timeline: Timeline) -> None:
    """Raise BadMedia for a clip that could not be analysed."""
    if timeline.error is not None:
        message = f"{timeline.clip} was not analysed: {timeline.error.get('message', '')}"
        raise BadMedia(message, timeline.error.get("remedy", ""))
