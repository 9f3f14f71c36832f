"""ELAN (.eaf): the tiers of a Timeline as an annotation document."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

from affuse.core.timeline import Timeline
from affuse.reporting.writers.tiers import Interval, tiers_of, writable

CARD = {
    "summary": "tiers for ELAN (EAF 3.0): emotion, each modality alone, transcript, speaker",
    "source": "ELAN Annotation Format 3.0, Max Planck Institute for Psycholinguistics",
    "licence": "Apache-2.0",
    "entry": "render",
    "suffix": ".eaf",
}
XSI = "http://www.w3.org/2001/XMLSchema-instance"
SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
MIME = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".mpg": "video/mpeg",
    ".wav": "audio/x-wav",
}
CONSTRAINTS = {
    "Time_Subdivision": "Time subdivision of parent annotation's time interval, "
    "no time gaps allowed within this interval",
    "Symbolic_Subdivision": "Symbolic subdivision of a parent annotation. "
    "Annotations refering to the same parent are ordered",
    "Symbolic_Association": "1-1 association with a parent annotation",
    "Included_In": "Time alignable annotations within the parent annotation's time interval, gaps are allowed",
}


def render(timeline: Timeline) -> str:
    """An ELAN document (EAF 3.0): tiers emotion, one per modality, transcript and speaker.

    Raises BadMedia for a clip that could not be analysed.
    """
    tiers = tiers_of(timeline)
    document = ET.Element("ANNOTATION_DOCUMENT", AUTHOR="affuse", DATE=_now(), FORMAT="3.0", VERSION="3.0")
    document.set("xmlns:xsi", XSI)
    document.set("xsi:noNamespaceSchemaLocation", SCHEMA)
    header = ET.SubElement(document, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    path = Path(timeline.clip)
    media = {"MEDIA_URL": _uri(path), "MIME_TYPE": MIME.get(path.suffix.lower(), "unknown")}
    ET.SubElement(header, "MEDIA_DESCRIPTOR", media | {"RELATIVE_MEDIA_URL": f"./{writable(path.name)}"})
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
