"""A Timeline for the tools that annotate: ELAN (.eaf), Praat (.TextGrid) and players (WebVTT).

Overlapping segments: WebVTT keeps them, its cues may overlap. ELAN and Praat allow none within a tier, so there a
segment that begins before the last one of its tier ended goes to a further tier, "emotion 2", "emotion 3", ...
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from html import escape
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from affuse.core.errors import BadMedia
from affuse.inference.timeline import UNKNOWN, Segment, Timeline

# What XML 1.0 cannot hold, and the halves of characters that undecodable file names are read as.
UNWRITABLE = re.compile("[^\t\n\r -\ud7ff\ue000-�\U00010000-\U0010ffff]")
XSI = "http://www.w3.org/2001/XMLSchema-instance"
SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
MIME = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".mpg": "video/mpeg", ".wav": "audio/x-wav"}
CONSTRAINTS = {
    "Time_Subdivision": "Time subdivision of parent annotation's time interval, no time gaps allowed within this interval",
    "Symbolic_Subdivision": "Symbolic subdivision of a parent annotation. Annotations refering to the same parent are ordered",
    "Symbolic_Association": "1-1 association with a parent annotation",
    "Included_In": "Time alignable annotations within the parent annotation's time interval, gaps are allowed",
}


class Interval(NamedTuple):
    """A stretch in whole milliseconds, start < end, and what is said of it."""

    start: int
    end: int
    text: str


def to_elan(timeline: Timeline) -> str:
    """An ELAN document (EAF 3.0): tiers emotion, one per modality, transcript and speaker.

    Raises BadMedia for a clip that could not be analysed.
    """
    tiers = _tiers(timeline)
    document = ET.Element("ANNOTATION_DOCUMENT", AUTHOR="affuse", DATE=_now(), FORMAT="3.0", VERSION="3.0")
    document.set("xmlns:xsi", XSI)
    document.set("xsi:noNamespaceSchemaLocation", SCHEMA)
    header = ET.SubElement(document, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    path = Path(timeline.clip)
    media = {"MEDIA_URL": _uri(path), "MIME_TYPE": MIME.get(path.suffix.lower(), "unknown")}
    ET.SubElement(header, "MEDIA_DESCRIPTOR", media | {"RELATIVE_MEDIA_URL": f"./{_clean(path.name)}"})
    last = ET.SubElement(header, "PROPERTY", NAME="lastUsedAnnotationId")
    last.text = str(sum(len(intervals) for _, intervals in tiers))
    order = ET.SubElement(document, "TIME_ORDER")
    slots: dict[int, str] = {}
    for time in sorted({t for _, intervals in tiers for i in intervals for t in (i.start, i.end)}):
        slots[time] = f"ts{len(slots) + 1}"
        ET.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=slots[time], TIME_VALUE=str(time))
    _annotations(document, tiers, slots)
    kind = {"GRAPHIC_REFERENCES": "false", "LINGUISTIC_TYPE_ID": "default-lt", "TIME_ALIGNABLE": "true"}
    ET.SubElement(document, "LINGUISTIC_TYPE", kind)
    for name, description in CONSTRAINTS.items():
        ET.SubElement(document, "CONSTRAINT", DESCRIPTION=description, STEREOTYPE=name)
    ET.indent(document)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(document, encoding="unicode")}\n'


def _annotations(document: ET.Element, tiers: Sequence[tuple[str, list[Interval]]], slots: dict[int, str]) -> None:
    number = 0
    for name, intervals in tiers:
        tier = ET.SubElement(document, "TIER", LINGUISTIC_TYPE_REF="default-lt", TIER_ID=name)
        for interval in intervals:
            number += 1
            ends = {"TIME_SLOT_REF1": slots[interval.start], "TIME_SLOT_REF2": slots[interval.end]}
            holder = ET.SubElement(tier, "ANNOTATION")
            one = ET.SubElement(holder, "ALIGNABLE_ANNOTATION", {"ANNOTATION_ID": f"a{number}"} | ends)
            ET.SubElement(one, "ANNOTATION_VALUE").text = interval.text


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _uri(path: Path) -> str:
    return path.absolute().as_uri()


def to_textgrid(timeline: Timeline) -> str:
    """A Praat TextGrid (long form): the tiers of `to_elan`, each covering the whole clip, empty where nothing is said.

    Raises BadMedia for a clip that could not be analysed.
    """
    tiers = _tiers(timeline)
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


def to_webvtt(timeline: Timeline) -> str:
    """WebVTT: a cue per segment, `<v Speaker><c.label>[label 0.62]</c> words`, in order of start; overlaps stay.

    Raises BadMedia for a clip that could not be analysed.
    """
    _checked(timeline)
    cues = ["WEBVTT", f"NOTE affuse, model {escape(_line(timeline.model), quote=False)}"]
    for number, s in enumerate(sorted(timeline.segments, key=lambda s: s.start), 1):
        start, end = _span(s)
        who = escape(_line(s.speaker or ""), quote=False)
        voice = f"<v {who}>" if who else ""
        style = f"<c.{re.sub(r'[^a-z0-9]+', '-', s.label.lower())}>" if s.label else "<c.unknown>"
        words = escape(_line(s.text or ""), quote=False)
        said = f"{voice}{style}[{escape(_answer(s), quote=False)}]</c> {words}".rstrip()
        cues.append(f"{number}\n{_stamp(start)} --> {_stamp(end)}\n{said}")
    return "\n\n".join(cues) + "\n"


def _stamp(milliseconds: int) -> str:
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


# ---- what the formats share ------------------------------------------------------------------------------------


def _tiers(timeline: Timeline) -> list[tuple[str, list[Interval]]]:
    """(name, intervals without overlap) of every tier."""
    _checked(timeline)
    names = dict.fromkeys(m for s in timeline.segments for m in s.modalities)
    said: list[tuple[str, Callable[[Segment], str]]] = [
        ("emotion", _answer),
        *((m, partial(_alone, modality=m)) for m in names),
        ("transcript", lambda s: s.text or ""),
        ("speaker", lambda s: s.speaker or ""),
    ]
    found = []
    for name, words in said:
        rows = [Interval(*_span(s), _line(words(s))) for s in timeline.segments]
        layers = _layers(row for row in rows if row.text)
        found += [(name if k == 0 else f"{name} {k + 1}", layer) for k, layer in enumerate(layers)]
    return found


def _layers(rows: Iterable[Interval]) -> list[list[Interval]]:
    """As few lists without overlap as are needed; each interval takes the first that is free. At least one list."""
    layers: list[list[Interval]] = [[]]
    for row in sorted(rows):
        free = next((layer for layer in layers if not layer or layer[-1].end <= row.start), None)
        if free is None:
            layers.append(free := [])
        free.append(row)
    return layers


def _answer(s: Segment) -> str:
    """The label with its probability and what speaks against it, or why there is none."""
    if s.label is None:
        return _line(f"{UNKNOWN}: {s.reason}") if s.reason else UNKNOWN
    against = f" (but {s.dissent})" if s.conflict else ""
    return _line(f"{s.label} {s.probabilities.get(s.label, 0.0):.2f}{against}")


def _alone(s: Segment, modality: str) -> str:
    view = s.modalities.get(modality)
    if view is None or not view.present or not view.probabilities:
        return ""
    best = max(view.probabilities, key=lambda k: view.probabilities[k])
    return f"{best} {view.probabilities[best]:.2f}, coverage {view.coverage:.2f}"


def _span(s: Segment) -> tuple[int, int]:
    """Milliseconds; a segment too short for one lasts one."""
    start = max(0, round(1000 * s.start))
    return start, max(start + 1, round(1000 * s.end))


def _clean(text: str) -> str:
    return UNWRITABLE.sub("\ufffd", text)


def _line(text: str) -> str:
    """Writable text on one line."""
    return " ".join(_clean(text).split())


def _checked(timeline: Timeline) -> None:
    if timeline.error is not None:
        message = f"{timeline.clip} was not analysed: {timeline.error.get('message', '')}"
        raise BadMedia(message, timeline.error.get("remedy", ""))
