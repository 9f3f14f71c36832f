"""HTML: one clip's timeline as one page that loads nothing from outside."""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

from affuse.core.errors import AffuseError
from affuse.core.timeline import UNKNOWN, ModalityView, Segment, Timeline, in_words
from affuse.reporting import timeline_media as media
from affuse.reporting import timeline_tracks as tracks
from affuse.reporting.markup import duration, section, text
from affuse.reporting.style import emotion_colours, stylesheet
from affuse.reporting.timeline_slots import (
    clock,
    confidence,
    headline,
    length,
    percent,
    shares,
    slots,
    unjudged,
)
from affuse.reporting.timeline_style import RULES, SCRIPT, colours

CARD = {
    "summary": "the timeline as a page: pictures, sound, probabilities, coverage, people, words",
    "source": "made by affuse",
    "licence": "Apache-2.0",
    "entry": "render",
    "suffix": ".html",
}
CHUNK = 50  # rows that a browser lays out together
QUOTED = 240  # characters of a transcript that hovering shows; the table has them all


def render(timeline: Timeline) -> str:
    """The whole document; with pictures and sound while the clip is there.

    For a clip that cannot be decoded the page says so, without an error: the answers are useful without pictures.
    """
    name = Path(timeline.clip).name
    if timeline.error is not None:
        body = _failed(timeline.error)
    else:
        body = _hero(timeline) + _times(timeline) + _rows(timeline) + _script(timeline)
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{_digest(SCRIPT)}'"
    palette = colours(emotion_colours(timeline.labels))
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(name)} · affuse timeline</title><style>{stylesheet()}{RULES}{palette}</style></head>\n"
        f'<body><main><header class="run-line"><h1 dir="auto">{escape(name)}</h1>'
        f'<span class="muted">{_about(timeline)}</span></header>{body}{_footer()}</main></body></html>\n'
    )
    return page.encode("utf-8", "replace").decode()  # the halves of characters that undecodable file names are read as


def _digest(script: str) -> str:
    return b64encode(sha256(script.encode()).digest()).decode()


def _about(timeline: Timeline) -> str:
    long = f"{duration(timeline.duration)}, " if timeline.duration else ""
    return f"{long}analysed with {text(timeline.model)}"


def _footer() -> str:
    return (
        "<footer><p>Estimates of expressed emotion by a statistical model; they are no measurement of what a person "
        "feels. Made by affuse.</p></footer>"
    )


# ---- the answer ------------------------------------------------------------------------------------------------


def _failed(error: dict[str, str]) -> str:
    remedy = f"<p>What to do: {escape(error['remedy'])}.</p>" if error.get("remedy") else ""
    kind = f'<p class="muted">{escape(error["type"])}</p>' if error.get("type") else ""
    return (
        '<div class="box hero"><p class="said-first">This clip could not be analysed</p>'
        f"<p>{escape(error.get('message', ''))}</p>{remedy}{kind}</div>"
    )


def _hero(timeline: Timeline) -> str:
    """The sentence, how sure it is, and the share of time of each label."""
    found, lost = shares(timeline), unjudged(timeline.segments)
    key = {label: k for k, label in enumerate(timeline.labels)}
    judged = 1.0 - lost
    bars = "".join(f'<i class="e{key.get(k, "")}" style="flex:{judged * v:.4f}"></i>' for k, v in found.items())
    bars += f'<i class="unknown" style="flex:{lost:.4f}"></i>' if lost else ""
    items = "".join(
        f'<li><i class="swatch e{key.get(k, "")}"></i>{escape(k)} <b>{percent(v)}</b></li>' for k, v in found.items()
    )
    items += f'<li><i class="swatch"></i>{UNKNOWN} <b>{percent(lost)}</b> of all time</li>' if lost and found else ""
    strip = f'<div class="share" aria-hidden="true">{bars}</div><ul class="keys">{items}</ul>' if found else ""
    sentence = f'<p class="said-first">{escape(headline(timeline))}</p>'
    notes = "".join(f'<p class="muted">{escape(note)}</p>' for note in timeline.notes)
    return f'<div class="box hero">{sentence}<p class="muted">{_sure(timeline)}</p>{strip}{notes}</div>'


def _sure(timeline: Timeline) -> str:
    """How probable the winners are on average, compared with chance."""
    mean, count = confidence(timeline), len(timeline.labels)
    number = len(timeline.segments)
    counted = f"{number:,} segment{'s' if number != 1 else ''}"
    if timeline.values:
        return f"{counted}; the scale goes from {' to '.join(_scale(timeline))}."
    if mean is None:
        return f"{counted}; no emotion is claimed where nothing was usable."
    chance = 1 / max(count, 1)
    doubt = " Read it with care: that is little above chance." if mean < 2 * chance else ""
    return (
        f"{counted}. The winning emotion has a probability of {percent(mean)} on average "
        f"(chance among {count}: {percent(chance)}).{doubt}"
    )


def _scale(timeline: Timeline) -> tuple[str, str]:
    """The ends of the scale of the leading task's values."""
    task = next(iter(timeline.tasks.values()))
    return f"{task.low:g}", f"{task.high:g}"


# ---- over time -------------------------------------------------------------------------------------------------


def _times(timeline: Timeline) -> str:
    """All lanes on one time axis, the numbers under the pointer below them."""
    if not timeline.segments:
        return ""
    wide, total, name = tracks.width(timeline), length(timeline), next(iter(timeline.tasks), "")
    fine = timeline.steps()
    drawn = timeline.of_task(name) if timeline.values else timeline
    found = slots(drawn)
    pictures, sound, problem = _clip(timeline, wide)
    rested = tracks.lane("rested on", "", "", style="rests") if _rests(timeline) else ""
    if timeline.values:
        winners = over_all = ""
        lead = ("Values", tracks.values(fine.of_task(name), timeline.tasks[name]))
    else:
        curve = slots(fine) if fine is not timeline else found
        winners = tracks.emotion(curve, timeline.labels, wide)
        over_all = tracks.emotion(curve, timeline.labels, 0, "whole clip")
        lead = ("Probability of each emotion", tracks.probabilities(curve, timeline.labels, shares(fine)))
    groups = [
        ("", tracks.axis(total, wide) + winners + tracks.conflicts(timeline) + rested),
        lead,
        *((f"Task {escape(name)}", tracks.other(timeline, name)) for name in timeline.other_tasks),
        ("The clip", pictures + sound + tracks.speech(timeline)),
        ("Each modality alone", tracks.alone(found)),
        ("People", tracks.faces_and_speakers(timeline)),
    ]
    lanes = "".join(f'{f"<h3 class=group>{title}</h3>" if title else ""}{body}' for title, body in groups if body)
    fits = "long" if wide > tracks.FITS else "fits narrow" if wide > tracks.NARROW else "fits"
    overview = over_all + tracks.axis(total, 0)
    plot = (
        f'<div class="scroll {fits}"><div class="plot" tabindex="0" role="group" '
        f'aria-label="timeline; arrow keys go from segment to segment" '
        f'style="min-width:calc(var(--names) + {wide if wide > tracks.NARROW else 0}px)">{lanes}'
        f'{tracks.axis(total, wide)}<div class="cursor" hidden></div></div></div>'
    )
    how = "Point at the timeline, tap it, or focus it and use the arrow keys, to read the numbers."
    note = f'<p class="warn">{escape(problem)}</p>' if problem else ""
    top = f'<div class="overview {fits}">{overview}</div>' if fits != "fits" else ""
    numbers = f'<div class="readout" aria-live="polite" hidden><p class="muted">{how}</p></div>'
    box = f'{note}<div class="box times">{top}{plot}{LEGEND}{numbers}</div>'
    return section("Over time", "", box)


LEGEND = (
    '<p class="legend"><span><i class="full"></i>a modality: the more probable, the more solid</span>'
    '<span><i class="half"></i>its height: share of the time it was usable</span>'
    '<span><i class="none"></i>not enough to tell</span>'
    "<span>empty: no segment there</span></p>"
)


def _rests(timeline: Timeline) -> bool:
    """Whether any answer is known to rest on other segments."""
    return any(s.context for s in timeline.segments)


RESTED = (
    '<div class="readout why" aria-live="polite"><p class="muted">Point at a segment, tap it, or focus one and use the '
    "arrow keys, to see on which others its answer rested: how far its probabilities move without each of them."
    "</p></div>"
)


def _clip(timeline: Timeline, wide: int) -> tuple[str, str, str]:
    """Lanes of pictures and of sound, and what kept them away."""
    clip = timeline.file
    if clip is None:
        return "", "", ""
    try:
        many = 36 if wide > tracks.FITS else 12
        found = [(t, media.jpeg(x) if x is not None else None) for t, x in media.thumbnails(clip, many)]
        sound = media.envelope(clip, min(2 * wide, 1600) if wide > tracks.FITS else 700)
    except AffuseError as error:
        return "", "", f"No pictures and no sound of the clip here: {error.message}"
    outline = tracks.waveform(*sound) if sound[1].any() else ""
    return tracks.thumbnails(found, length(timeline)), outline, ""


def _script(timeline: Timeline) -> str:
    """What answers the pointer and the keys; last, so that all it works on is there."""
    if not timeline.segments:
        return ""
    data = _data(timeline, length(timeline))
    return f'<script type="application/json" id="data">{data}</script><script>{SCRIPT}</script>'


def _data(timeline: Timeline, total: float) -> str:
    """Data of the script: per segment times (s), label index, shares and influences in 1/1000; safe in <script>."""
    labels = list(timeline.labels)

    def view(v: ModalityView) -> list[int]:
        best = max(v.probabilities, key=lambda k: v.probabilities[k], default=None) if v.present else None
        share = round(1000 * v.probabilities[best]) if best is not None else 0
        return [round(1000 * v.coverage), labels.index(best) if best in labels else -1, share]

    def row(s: Segment) -> dict[str, Any]:
        found: dict[str, Any] = {"a": round(s.start, 3), "b": round(s.end, 3)}
        found["k"] = labels.index(s.labels[0]) if s.labels and s.labels[0] in labels else -1
        if timeline.values:
            found |= {"v": s.label, "p": [], "m": {}}
        else:
            found["p"] = [round(1000 * s.probabilities.get(label, 0.0)) for label in labels]
            found["m"] = {m: view(v) for m, v in s.modalities.items()}
        quoted = None if s.text is None else s.text if len(s.text) <= QUOTED else s.text[: QUOTED - 1] + "…"
        context = [[c.segment, round(1000 * c.influence)] for c in s.context]
        more = (("w", s.speaker), ("t", quoted), ("r", s.reason), ("x", s.dissent), ("c", context))
        return found | {k: v for k, v in more if v}

    whole = {"total": round(total, 3), "labels": labels, "segments": [row(s) for s in timeline.segments]}
    packed = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
    return packed.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


# ---- every segment ---------------------------------------------------------------------------------------------


def _rows(timeline: Timeline) -> str:
    """Every segment with its numbers and words, in chunks that a browser lays out only when they are seen."""
    if not timeline.segments:
        return ""
    spoken = any(s.text for s in timeline.segments)
    words = "<th>words</th>" if spoken or any(s.speaker for s in timeline.segments) else ""
    columns = '<th class="when">time</th><th class="what">emotion</th><th class="parts">alone</th>'
    head = f"<thead><tr>{columns}{words}</tr></thead>"
    key = {label: k for k, label in enumerate(timeline.labels)}
    parts = [timeline.segments[k : k + CHUNK] for k in range(0, len(timeline.segments), CHUNK)]
    chunks = "".join(
        f'<div class="chunk"><table>{head if number == 0 else ""}<tbody>'
        + "".join(_row(timeline, s, key, bool(words)) for s in part)
        + "</tbody></table></div>"
        for number, part in enumerate(parts)
    )
    title = "Transcript" if spoken else "Segments"
    rest = RESTED if _rests(timeline) else ""
    return section(title, "", f'<div class="box rows">{chunks}{rest}</div>')


def _row(timeline: Timeline, s: Segment, key: dict[str, int], words: bool) -> str:
    part = _values_alone if timeline.values else _part
    parts = "".join(f"<span>{part(m, v, key)}</span>" for m, v in s.modalities.items())
    who = f"<strong><bdi>{escape(s.speaker)}</bdi></strong> " if s.speaker else ""
    text_cell = f'<td class="text" dir="auto">{who}{escape(s.text or "")}</td>' if words else ""
    when = f'<td class="when">{clock(s.start, 1)} – {clock(s.end, 1)}</td>'
    others = "".join(
        f"<small>{escape(task)} {escape(said)}</small>"
        for task in timeline.other_tasks
        if (said := timeline.other_answer(s, task))
    )
    won = escape(s.label) if timeline.values and s.label else _won(s, key)
    return f'<tr>{when}<td class="what">{won}{others}</td><td class="parts">{parts}</td>{text_cell}</tr>'


def _won(s: Segment, key: dict[str, int]) -> str:
    if s.label is None:
        return f'<i class="swatch"></i>{UNKNOWN}<small>{escape(s.reason or "")}</small>'
    order = sorted(s.probabilities, key=lambda k: -s.probabilities[k])
    second = next((k for k in order if k not in s.labels), None)
    after = f" <span class=muted>{escape(second)} {percent(s.probabilities[second])}</span>" if second else ""
    share = s.probability
    style = f"e{key.get(s.labels[0], '')}"
    against = f'<small class="against">but {escape(s.dissent)}</small>' if s.conflict else ""
    return (
        f'<i class="swatch {style}"></i>{escape(s.label)} <b>{percent(share)}</b>{after}'
        f'<span class="bar"><i class="{style}" style="width:{100 * share:.0f}%"></i></span>{against}'
    )


def _part(name: str, view: ModalityView, key: dict[str, int]) -> str:
    if not view.present or not view.probabilities:
        return f'<i class="swatch"></i>{escape(name)} <span class="muted">absent</span>'
    best = max(view.probabilities, key=lambda k: view.probabilities[k])
    covered = "" if view.coverage > 0.995 else f' <span class="muted">covered {percent(view.coverage)}</span>'
    winner = f"{escape(best)} {percent(view.probabilities[best])}"
    return f'<i class="swatch e{key.get(best, "")}"></i>{escape(name)} {winner}{covered}'


def _values_alone(name: str, view: ModalityView, key: dict[str, int]) -> str:
    """The values that a modality predicts by itself."""
    if not view.present or not view.probabilities:
        return _part(name, view, key)
    covered = "" if view.coverage > 0.995 else f' <span class="muted">covered {percent(view.coverage)}</span>'
    return f"{escape(name)} {escape(in_words(view.probabilities))}{covered}"
