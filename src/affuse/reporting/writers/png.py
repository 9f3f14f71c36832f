"""PNG, PDF, SVG: one clip's timeline as a figure for a paper, through matplotlib (extra `plot`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from affuse.core.errors import BadConfig, BadMedia
from affuse.core.timeline import Timeline
from affuse.reporting import timeline_media as media
from affuse.reporting.plots import shorten
from affuse.reporting.style import emotion_colours, ink_on
from affuse.reporting.timeline_slots import Lane, Slots, clock, headline, joined, length, printable, runs, slots, ticks

CARD = {
    "summary": "the timeline as a figure for a paper, 300 dpi",
    "source": "made by affuse with matplotlib",
    "licence": "Apache-2.0",
    "entry": "render",
    "suffix": ".png",
    "packages": ["matplotlib"],
    "extra": "plot",
}
INCHES = 7.16  # across the two columns of a page
DPI = 300
CLASSES, PEOPLE = 9, 4  # lanes at most
MOST = 500  # slots: what print can resolve
FORMATS = (".png", ".pdf", ".svg")
GREY, CONFLICT = "#5f6b76", "#a1560c"
TEXT: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 7.0,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "hatch.linewidth": 0.4,
}


class Panel(NamedTuple):
    """One lane of the figure: name, height (inches), how it is drawn into its axes."""

    name: str
    height: float
    draw: Callable[[Any], None]


def render(timeline: Timeline, *, suffix: str = ".png") -> bytes:
    """The figure (7.16 inches wide, 300 dpi) as a file of this suffix: .png, .pdf or .svg.

    Emotion, a lane per class, pictures and sound (while the clip is there), each modality alone, faces and speakers.
    Raises BadMedia for a timeline that holds an error or no segment and for a damaged clip, BadConfig for another
    suffix.
    """
    if suffix.lower() not in FORMATS:
        raise BadConfig(f"cannot draw a timeline as '{suffix}'", f"name the file {' or '.join(FORMATS)}")
    if timeline.error is not None or not timeline.segments:
        lacking = {"message": f"{timeline.clip} has no segment to draw", "remedy": "analyse it without its subtitles"}
        found = timeline.error or lacking
        raise BadMedia(found["message"], found.get("remedy", ""))
    import matplotlib

    drawn = BytesIO()
    with matplotlib.rc_context(TEXT):
        figure = _figure(timeline, _panels(timeline))
        figure.savefig(drawn, dpi=DPI, format=suffix[1:].lower())
    return drawn.getvalue()


def _figure(timeline: Timeline, panels: Sequence[Panel]) -> Any:
    """Panels under each other on one time axis; made without pyplot, which would keep global state."""
    from matplotlib.figure import Figure

    top, bottom, gap, left = 0.26, 0.36, 0.045, 0.95
    height = top + bottom + sum(p.height + gap for p in panels)
    figure = Figure(figsize=(INCHES, height))
    figure.text(left / INCHES, 1 - 0.16 / height, _title(timeline), fontsize=8, fontweight="bold", parse_math=False)
    at, total = height - top, length(timeline)
    for number, panel in enumerate(panels):
        at -= panel.height
        box = (left / INCHES, at / height, 1 - (left + 0.28) / INCHES, panel.height / height)
        axes = figure.add_axes(box)
        at -= gap
        axes.set(xlim=(0, total), ylim=(0, 1), yticks=[])
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set(color=GREY, linewidth=0.5)
        name = shorten(printable(panel.name), 16)
        axes.text(-0.008, 0.5, name, transform=axes.transAxes, ha="right", va="center", parse_math=False)
        panel.draw(axes)
        _time(axes, total, last=number == len(panels) - 1)
    return figure


def _title(timeline: Timeline) -> str:
    return printable(f"{shorten(Path(timeline.clip).name, 48)}: {headline(timeline)}")


def _time(axes: Any, total: float, last: bool) -> None:
    found = ticks(total, 12)
    fraction = 1 if found[1:] and found[1] < 1 else 0
    axes.set_xticks(found, [clock(t, fraction) for t in found] if last else [""] * len(found))
    axes.tick_params(length=2.5 if last else 0, width=0.5, color=GREY, pad=2)
    if last:
        axes.set_xlabel("time (min:s)" if total < 3600 else "time (h:min:s)", labelpad=1)


def _panels(timeline: Timeline) -> list[Panel]:
    colours, name = list(emotion_colours(timeline.labels).values()), next(iter(timeline.tasks), "")
    found = slots(timeline.of_task(name) if timeline.values else timeline, MOST)
    panels = _values(timeline.steps(), name) if timeline.values else _emotions(timeline, found, colours)
    panels += [panel for name in timeline.other_tasks for panel in _values(timeline, name)]
    panels += _clip(timeline.file, length(timeline)) if timeline.file is not None else []
    panels += [Panel(f"{m} alone", 0.2, _modality(found, one, colours)) for m, one in found.modalities.items()]
    if timeline.speech is not None:
        panels.append(Panel("speech", 0.1, _spans([(timeline.speech, GREY)], length(timeline))))
    return panels + _faces_and_speakers(timeline)


def _emotions(timeline: Timeline, found: Slots, colours: Sequence[str]) -> list[Panel]:
    """The winning class, where modalities disagree with it, and the probability of each class, step by step."""
    fine = timeline.steps()
    curve = slots(fine, MOST) if fine is not timeline else found
    fused = curve.fused
    mass = (fused.probabilities * np.diff(curve.edges)[:, None]).sum(axis=0)
    most = np.sort(np.argsort(-mass, kind="stable")[: CLASSES if fused.known.any() else 0])
    panels = [Panel("emotion", 0.26, lambda axes: _emotion(axes, curve, timeline.labels, colours))]
    if any(s.conflict for s in timeline.segments):
        against = [(s.start, s.end) for s in timeline.segments if s.conflict]
        panels.append(Panel("disagreement", 0.1, _spans([(against, CONFLICT)], length(timeline))))
    return panels + [Panel(timeline.labels[k], 0.2, _class(curve, int(k), colours[k])) for k in most]


def _values(timeline: Timeline, task: str) -> list[Panel]:
    """A panel per label of a task: its probability, or its value within the range of the scale."""
    part, info = timeline.of_task(task), timeline.tasks[task]
    if not part.segments:
        return []
    found, ends = slots(part, MOST), (f"{info.low:g}", f"{info.high:g}")
    return [Panel(label, 0.2, _class(found, k, GREY, ends)) for k, label in enumerate(part.labels[:CLASSES])]


# ---- answers ---------------------------------------------------------------------------------------------------


def _stairs(axes: Any, slots: Slots, values: np.ndarray, **look: Any) -> None:
    axes.stairs(values, slots.edges, fill=True, linewidth=0, **look)


def _hatch(axes: Any, slots: Slots, found: Lane) -> None:
    """Where a segment was judged by nothing; blank where there is no segment."""
    gap = slots.analysed & ~found.known
    spans = [(slots.edges[a], slots.edges[b] - slots.edges[a]) for a, b in runs(gap) if gap[a]]
    if spans:
        axes.broken_barh(spans, (0, 1), facecolor="white", edgecolor="#9aa4ad", hatch="//////", linewidth=0)


def _emotion(axes: Any, slots: Slots, labels: Sequence[str], colours: Sequence[str]) -> None:
    """The winning class, named where its name has room."""
    _hatch(axes, slots, slots.fused)
    winner, total = slots.fused.winner, slots.edges[-1]
    for a, b in runs(winner):
        k, start, end = int(winner[a]), slots.edges[a], slots.edges[b]
        if k < 0:
            continue
        axes.broken_barh([(start, end - start)], (0, 1), facecolor=colours[k], edgecolor="white", linewidth=0.3)
        if (end - start) / total * (INCHES - 1.23) > 0.053 * len(labels[k]) + 0.06:  # inches
            ink = ink_on(colours[k])
            axes.text((start + end) / 2, 0.47, labels[k], color=ink, ha="center", va="center", parse_math=False)


def _class(slots: Slots, k: int, colour: str, ends: tuple[str, str] = ("0", "1")) -> Callable[[Any], None]:
    """The probability of one class over time, in full colour where it wins; `ends`: what the scale goes from and to."""

    def draw(axes: Any) -> None:
        _hatch(axes, slots, slots.fused)
        p = slots.fused.probabilities[:, k]
        _stairs(axes, slots, p, color=colour, alpha=0.4)
        _stairs(axes, slots, np.where(slots.fused.winner == k, p, 0.0), color=colour)
        for y, where in ((0, "bottom"), (1, "top")):
            axes.text(1.004, y, ends[y], transform=axes.transAxes, va=where, fontsize=5, color=GREY)

    return draw


def _modality(slots: Slots, found: Lane, colours: Sequence[str]) -> Callable[[Any], None]:
    """Coloured by its own winner, opaque by confidence, as tall as its coverage."""

    def draw(axes: Any) -> None:
        _hatch(axes, slots, found)
        level = np.ceil(found.confidence * 5) / 5
        for k in np.unique(found.winner[found.winner >= 0]):
            for strength in np.unique(level[found.winner == k]):
                where = (found.winner == k) & (level == strength)
                height = np.where(where, np.maximum(found.coverage, 0.02), 0.0)
                _stairs(axes, slots, height, color=colours[k], alpha=max(0.2, float(strength)))

    return draw


# ---- the clip and who is in it ---------------------------------------------------------------------------------


def _clip(clip: Path, total: float) -> list[Panel]:
    """Pictures and sound. Raises BadMedia where the file cannot be decoded."""
    pictures, (peaks, recorded) = media.thumbnails(clip, 10, 240), media.envelope(clip, 1200)
    panels = []
    if any(image is not None for _, image in pictures):
        panels.append(Panel("picture", 0.42, lambda axes: _pictures(axes, pictures, total)))
    if recorded.any():
        at = np.linspace(0, total, len(peaks) + 1)
        look = {"baseline": 0.5 - peaks / 2, "fill": True, "color": GREY}
        panels.append(Panel("sound", 0.3, lambda axes: axes.stairs(0.5 + peaks / 2, at, **look)))
    return panels


def _pictures(axes: Any, pictures: Sequence[tuple[float, np.ndarray | None]], total: float) -> None:
    """Each picture in the middle of its part of the time, cut to the part's shape at most."""
    part, wide = total / len(pictures), INCHES - 1.23
    axes.spines["bottom"].set_visible(False)
    for time, image in pictures:
        if image is None:
            continue
        room = wide / len(pictures) * 0.97 / 0.42  # width over height of the place
        height, width = image.shape[:2]
        keep = min(width, round(height * room))
        cut = image[:, (width - keep) // 2 : (width - keep) // 2 + keep]
        half = part * 0.97 / 2 * min(1.0, keep / height / room)
        axes.imshow(cut, extent=(time - half, time + half, 0, 1), aspect="auto", interpolation="antialiased")
    axes.set(xlim=(0, total), ylim=(0, 1))


def _spans(rows: Sequence[tuple[Sequence[tuple[float, float]], str]], total: float) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        for k, (found, colour) in enumerate(rows):
            bars = [(a, b - a) for a, b in joined(found, total / 2000)]
            axes.broken_barh(bars, (0.1 + 0.15 * k, 0.8 - 0.3 * k), facecolor=colour, linewidth=0)

    return draw


def _faces_and_speakers(timeline: Timeline) -> list[Panel]:
    """Faces (seen light, speaking dark) and named speakers, the first few of each."""
    total = length(timeline)
    panels = [
        Panel(f"face {face.id}", 0.11, _spans([(face.seen, "#b9c4cd"), (face.speaking, "#2b333a")], total))
        for face in timeline.faces[:PEOPLE]
    ]
    who = list(dict.fromkeys(s.speaker for s in timeline.segments if s.speaker))[:PEOPLE]
    spoken = [[(s.start, s.end) for s in timeline.segments if s.speaker == name] for name in who]
    return panels + [Panel(n, 0.11, _spans([(part, "#2b333a")], total)) for n, part in zip(who, spoken, strict=True)]
