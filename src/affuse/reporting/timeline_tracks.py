"""The lanes of a timeline page as SVG: few nodes however long the clip, scaled to the width of the page.

Probabilities are a lane per class, not stacked areas: each class has its own base line, so that its course can be
read and compared, and its name beside it, so that nobody needs to distinguish colours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from affuse.core.timeline import TaskInfo, Timeline
from affuse.reporting.plots import shorten, text_width
from affuse.reporting.timeline_slots import (
    Lane,
    Slots,
    clock,
    joined,
    length,
    percent,
    runs,
    shares,
    slots,
    ticks,
)

WIDE = 10_000  # drawing units of the whole time axis
FITS = 900  # px of time axis on a wide page without scrolling
NARROW = 260  # the same on a phone
LONGEST = 9_600  # px of time axis at most
PER_SEGMENT = 6  # px that a segment needs to be pointed at
CLASSES = 9  # lanes of probabilities at most; the others are summed
PEOPLE = 8  # lanes of faces, and of speakers, at most
LEVELS = 5  # steps of opacity


def width(timeline: Timeline) -> int:
    """px of time axis that the segments need: up to `FITS` the page need not scroll."""
    return min(LONGEST, PER_SEGMENT * len(timeline.segments))


def lane(name: str, drawn: str, label: str, note: str = "", style: str = "", over: str = "") -> str:
    """One row: its name, and `drawn` as SVG content in a box of WIDE x 100, scaled; `over` is markup above it."""
    small = f"<small>{note}</small>" if note else ""
    picture = ""
    if drawn:
        box = f'viewBox="0 0 {WIDE} 100" preserveAspectRatio="none" role="img" aria-label="{escape(label)}"'
        picture = f"<svg {box}>{drawn}</svg>"
    return (
        f'<div class="lane {style}"><span class="name"><bdi>{escape(name)}</bdi>{small}</span>'
        f'<div class="track">{picture}{over}</div></div>'
    )


def axis(total: float, wide: int) -> str:
    """The time axis: round times, every second one dropped on a narrow page that does not scroll."""
    count = max(4 if total >= 3600 else 8 if wide else 6, wide // 90)
    found = ticks(total, count)
    if found[1:] and found[1] < 1:  # tenths of a second are longer to write
        found = ticks(total, count * 2 // 3)
    fraction = 1 if found[1:] and found[1] < 1 else 0
    marks = "".join(
        f'<span class="{_edge(t / total)}{" odd" if i % 2 else ""}" style="left:{100 * t / total:.3f}%">'
        f"{clock(t, fraction)}</span>"
        for i, t in enumerate(found)
    )
    return f'<div class="lane time"><span class="name"></span><div class="track">{marks}</div></div>'


def _edge(share: float) -> str:
    return "first" if share < 0.02 else "last" if share > 0.98 else "inner"


# ---- answers ---------------------------------------------------------------------------------------------------


def emotion(slots: Slots, labels: Sequence[str], wide: int, name: str = "emotion") -> str:
    """The winning class over time, named where there is room for its name."""
    total, found = slots.edges[-1], []
    for a, b in runs(slots.fused.winner):
        share = (slots.edges[b] - slots.edges[a]) / total
        k = int(slots.fused.winner[a])
        if k >= 0 and share * max(wide, FITS) >= text_width(shorten(labels[k]), 13) + 10:
            place = f"left:{100 * slots.edges[a] / total:.2f}%;width:{100 * share:.2f}%"
            found.append(f'<span class="said e{k}" style="{place}"><b></b>{escape(shorten(labels[k]))}</span>')
    fused, full = slots.fused, np.ones(len(slots.analysed))
    drawn = [boxes(slots, fused.winner == k, full, f"e{k}") for k in range(len(labels))]
    boxes_drawn = _gaps(slots, fused) + "".join(drawn)
    return lane(name, boxes_drawn, "winning emotion over time", style="answer", over="".join(found))


def conflicts(timeline: Timeline) -> str:
    """Where a modality disagrees with the answer; empty where none does."""
    total = length(timeline)
    found = joined([(s.start, s.end) for s in timeline.segments if s.conflict], 0.0)
    share = sum(b - a for a, b in found) / total
    label = "when modalities disagree with the answer"
    return lane("disagreement", spans(found, total, "conflict"), label, percent(share), "thin") if found else ""


def probabilities(slots: Slots, labels: Sequence[str], shares: Mapping[str, float]) -> str:
    """A lane per class: the height is its probability, in full colour where the class wins."""
    fused = slots.fused
    if not fused.known.any():
        return ""
    mass = (fused.probabilities * np.diff(slots.edges)[:, None]).sum(axis=0)
    order = [int(k) for k in np.argsort(-mass, kind="stable")]
    shown = sorted(order if len(order) <= CLASSES else order[: CLASSES - 1])
    gaps = _gaps(slots, fused)
    rows = [
        lane(
            labels[k],
            gaps + _steps(fused.probabilities[:, k], slots, f"all e{k}") + _steps(_wins(fused, k), slots, f"e{k}"),
            f"probability of {labels[k]} over time",
            f"wins {percent(shares.get(labels[k], 0.0))}",
            "odds",
        )
        for k in shown
    ]
    rest = [k for k in order if k not in shown]
    if rest:
        drawn = gaps + _steps(fused.probabilities[:, rest].sum(axis=1), slots, "all others")
        rows.append(lane(f"{len(rest)} others", drawn, "probability of the other classes", "their sum", "odds"))
    return "".join(rows)


def other(timeline: Timeline, task: str) -> str:
    """Another task of the model, a lane per label: its probability, or its value within the range of the scale."""
    part, info = timeline.of_task(task), timeline.tasks[task]
    if not part.segments:
        return ""
    if info.kind != "values":
        return probabilities(slots(part), part.labels, shares(part))
    return values(part, info)


def values(part: Timeline, info: TaskInfo) -> str:
    """A lane per value, within the range of its scale."""
    found, rows = slots(part), []
    for k, label in enumerate(part.labels):
        drawn = _gaps(found, found.fused) + _steps(found.fused.probabilities[:, k], found, "all others")
        rows.append(lane(label, drawn, f"{label} over time", f"{info.low:g} to {info.high:g}", "odds"))
    return "".join(rows)


def _wins(found: Lane, k: int) -> np.ndarray:
    return np.where(found.winner == k, found.probabilities[:, k], 0.0)


def _x(edges: np.ndarray) -> np.ndarray:
    return np.round(edges / edges[-1] * WIDE).astype(int)


def _steps(values: np.ndarray, slots: Slots, style: str) -> str:
    """A filled staircase of values 0..1 [K]."""
    x, y = _x(slots.edges), 100 - np.round(100 * values).astype(int)
    found = runs(y)
    if all(y[a] == 100 for a, _ in found):
        return ""
    return f'<path class="{style}" d="M0 100{"".join(f"V{y[a]}H{x[b]}" for a, b in found)}V100z"/>'


def _gaps(slots: Slots, found: Lane) -> str:
    """What covers the hatching of the track: everything but the segments that had nothing to be judged by."""
    gap = slots.analysed & ~found.known
    if not gap.any():
        return ""
    return boxes(slots, ~gap, np.ones(len(gap)), "cover") or '<path class="cover" d=""/>'


def boxes(slots: Slots, where: np.ndarray, height: np.ndarray, style: str) -> str:
    """One path of boxes on the base line, `height` 0..1 [K] tall, over the slots in `where` [K]."""
    x, tall = _x(slots.edges), np.where(where, np.maximum(1, np.round(100 * height)), 0).astype(int)
    parts = [f"M{x[a]} 100V{100 - tall[a]}H{x[b]}V100z" for a, b in runs(tall) if tall[a] and x[b] > x[a]]
    return f'<path class="{style}" d="{"".join(parts)}"/>' if parts else ""


def winners(found: Lane, slots: Slots) -> str:
    """Boxes in the colour of the winning class, as opaque as it is probable, as tall as the coverage."""
    level = np.minimum(np.floor(found.confidence * LEVELS), LEVELS - 1).astype(int)
    key = np.where(found.winner >= 0, found.winner * LEVELS + level, -1)
    drawn = [
        boxes(slots, key == k, found.coverage, f"e{k // LEVELS} o{k % LEVELS}") for k in np.unique(key) if k >= 0
    ]
    return _gaps(slots, found) + "".join(drawn)


def alone(slots: Slots) -> str:
    """A lane per modality: what it predicts by itself."""
    inside, rows = np.diff(slots.edges) * slots.analysed, []
    for name, found in slots.modalities.items():
        covered = float((found.coverage * inside).sum() / inside.sum()) if inside.sum() else 0.0
        drawn = winners(found, slots)
        rows.append(lane(name, drawn, f"what {name} alone says over time", f"{percent(covered)} covered", "modality"))
    return "".join(rows)


# ---- the clip and who is in it ---------------------------------------------------------------------------------


def waveform(peaks: np.ndarray, recorded: np.ndarray) -> str:
    """The outline of the sound; hatched where none was recorded."""
    half = np.round(48 * peaks).astype(int)
    edges = np.linspace(0, 1, len(peaks) + 1)
    x = _x(edges)
    top = "".join(f"L{x[i]} {50 - h}H{x[i + 1]}" for i, h in enumerate(half))
    bottom = "".join(f"L{x[i + 1]} {50 + half[i] + 1}H{x[i]}" for i in range(len(half) - 1, -1, -1))
    nothing = np.zeros((len(peaks), 0))
    sound = Lane(nothing, recorded, peaks)
    gap = _gaps(Slots(edges, np.ones(len(peaks), bool), sound, {}), sound)
    return lane("sound", f'{gap}<path class="wave" d="M0 50{top}{bottom}z"/>', "loudness of the clip", style="sound")


def thumbnails(pictures: Sequence[tuple[float, str | None]], total: float) -> str:
    """Small pictures at their times."""
    share = 100 / max(len(pictures), 1)
    found = "".join(
        f'<img alt="" src="{uri}" style="left:{100 * t / total - share / 2:.3f}%;--w:{share:.3f}%" '
        f'class="t{i % 3}">' if uri else ""
        for i, (t, uri) in enumerate(pictures)
    )
    return lane("picture", "", "", style="pictures", over=found) if found else ""


def speech(timeline: Timeline) -> str:
    """Where a voice was found; nothing where nobody looked for one."""
    if timeline.speech is None:
        return ""
    total = length(timeline)
    share = sum(b - a for a, b in joined(timeline.speech, 0.0)) / total
    return lane("speech", spans(timeline.speech, total, "voice"), "parts with a voice", percent(share), "thin")


def faces_and_speakers(timeline: Timeline) -> str:
    """A lane per face (seen: light, speaking: solid) and per named speaker."""
    total = length(timeline)
    rows = [
        lane(
            f"face {face.id}",
            spans(face.seen, total, "seen") + spans(face.speaking, total, "speaking", 15),
            f"when face {face.id} is seen and speaks",
            _times(face.seen, face.speaking, total),
            "thin",
        )
        for face in timeline.faces[:PEOPLE]
    ]
    rows += _more(len(timeline.faces) - PEOPLE, "faces")
    shown = {f"face {face.id}" for face in timeline.faces}
    speech_of: dict[str, list[tuple[float, float]]] = {}
    for s in timeline.segments:
        if s.speaker and s.speaker not in shown:
            speech_of.setdefault(s.speaker, []).append((s.start, s.end))
    for who in list(speech_of)[:PEOPLE]:
        share = sum(b - a for a, b in joined(speech_of[who], 0.0)) / total
        drawn = spans(speech_of[who], total, "speaking", 15)
        rows.append(lane(shorten(who, 40), drawn, f"when {who} speaks", f"speaks {percent(share)}", "thin"))
    return "".join(rows + _more(len(speech_of) - PEOPLE, "speakers"))


def _times(seen: Sequence[tuple[float, float]], speaking: Sequence[tuple[float, float]], total: float) -> str:
    here, voice = (sum(b - a for a, b in joined(part, 0.0)) / total for part in (seen, speaking))
    return f"{percent(here)}, speaks {percent(voice)}" if voice else percent(here)


def _more(count: int, what: str) -> list[str]:
    return [lane(f"{count} more {what}", "", "", "not drawn", "thin plain")] if count > 0 else []


def spans(found: Sequence[tuple[float, float]], total: float, style: str, inset: int = 0) -> str:
    """Spans (s) as one path of boxes, those that no screen could separate drawn as one."""
    clipped = [(max(a, 0.0), min(b, total)) for a, b in found if b > 0 and a < total]
    parts = [
        f"M{WIDE * a / total:.0f} {inset}H{max(WIDE * b / total, WIDE * a / total + 2):.0f}V{100 - inset}"
        f"H{WIDE * a / total:.0f}z"
        for a, b in joined(clipped, total / 4000)
    ]
    return f'<path class="{style}" d="{"".join(parts)}"/>' if parts else ""
