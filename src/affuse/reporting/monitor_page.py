"""The page of one person's recordings over time: one file that loads nothing, the answer first."""

from __future__ import annotations

from html import escape

from affuse.core.monitor import Monitor, Recording
from affuse.core.timeline import UNKNOWN
from affuse.reporting import monitor_charts as charts
from affuse.reporting import monitor_words as words
from affuse.reporting.markup import scrolling, section
from affuse.reporting.page import POLICY
from affuse.reporting.style import emotion_colours, stylesheet
from affuse.reporting.timeline_slots import percent, printable
from affuse.reporting.timeline_style import colours

RULES = """
.said-first{font-size:clamp(1.6rem,4.5vw,2.5rem);line-height:1.15;letter-spacing:-.02em;font-weight:700;margin:0 0 12px}
.hero li{margin:2px 0}
.hero ul{margin:0 0 12px;padding-left:20px}
.courses{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:28px 36px}
.courses h3{display:flex;flex-wrap:wrap;gap:0 10px;align-items:baseline;font-size:1rem}
.courses h3 small{font-weight:400}
.swatch{display:inline-block;width:.75em;height:.75em;border-radius:3px;background:var(--c);align-self:center}
svg .dot{fill:var(--c);stroke:var(--surface);stroke-width:1.5}
svg .dot.open{fill:var(--surface);stroke:var(--c);stroke-width:2.5}
.spread{stroke:var(--c);stroke-width:5;stroke-linecap:round;opacity:.38}
.step{stroke:var(--c);stroke-width:1.5}
.fit{stroke:var(--ink);stroke-width:2}
.change{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:5 4}
svg .mark{font-weight:600}
.gap{stroke:var(--line);stroke-width:9}
.covered{fill:var(--accent)}
.strip{display:grid;grid-template-columns:72px minmax(0,1fr);align-items:center;font-size:.88rem;margin-bottom:3px}
.key{display:inline-block;vertical-align:-3px;margin-right:6px;width:16px;overflow:visible}
.when{white-space:nowrap}
th small{display:block;font-size:.8rem;font-weight:400}
.unknown{color:var(--muted);white-space:normal;text-align:left;min-width:230px}
.clear{font-weight:700}
"""


def page(monitor: Monitor) -> str:
    """The whole document."""
    name = escape(printable(monitor.subject))
    palette = colours(emotion_colours(monitor.labels))
    body = "".join(make(monitor) for make in (_hero, _courses, _coverage, _trends, _recordings, _left_out, _how))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{name} · affuse monitor</title><style>{stylesheet()}{palette}{RULES}</style></head>\n"
        f'<body><main><header class="run-line"><h1 dir="auto">{name}</h1>'
        f'<span class="muted">{words.counted(monitor.recordings)}, {words.period(monitor)}, analysed with '
        f"{escape(printable(monitor.model))}</span></header>{body}"
        "<footer>Made by affuse from the history of this person.</footer></main></body></html>\n"
    )


def _hero(monitor: Monitor) -> str:
    """The answer, what else changed, and what it is not."""
    more = "".join(f"<li>{escape(line)}.</li>" for line in words.findings(monitor)[1:])
    return (
        f'<div class="box hero"><p class="said-first">{escape(words.headline(monitor))}</p>'
        f"{f'<ul>{more}</ul>' if more else ''}"
        f"<p><strong>{words.NO_DIAGNOSIS}</strong></p></div>"
    )


def _courses(monitor: Monitor) -> str:
    if not monitor.answered:
        return ""
    found = "".join(_course(monitor, label, k) for k, label in enumerate(monitor.labels))
    lead = "Share of each emotion: its mean probability over the time with an answer, all on one scale."
    return section("Emotions over time", lead, f'<div class="box">{_legend()}<div class="courses">{found}</div></div>')


def _course(monitor: Monitor, label: str, k: int) -> str:
    trend = monitor.trend(label)
    moves = f"{words.moves(trend)}, {words.slope(trend)} points per week" if trend else ""
    head = f'<h3><i class="swatch e{k}"></i>{escape(label)} <small>{moves}</small></h3>'
    return f"<div>{head}{charts.course(monitor, label, f'e{k}', k)}</div>"


def _legend() -> str:
    """What each mark of the charts means."""
    marks = {
        "one recording, with its 95 % interval": '<line class="spread" x1="8" x2="8" y1="1" y2="15"/>'
        '<circle class="dot" cx="8" cy="8" r="4"/>',
        "one segment, so no interval": '<circle class="dot open" cx="8" cy="8" r="4"/>',
        UNKNOWN: '<line class="gap" x1="8" x2="8" y1="0" y2="16"/><text class="minor" x="5" y="12">?</text>',
        "change point": '<line class="change" x1="8" x2="8" y1="0" y2="16"/>',
        "clear trend, or mean before and after a change": '<line class="fit" x1="0" x2="16" y1="8" y2="8"/>',
    }
    keys = "".join(
        f'<span><svg class="key" height="16" style="--c:var(--muted)" aria-hidden="true">{drawn}</svg>{name}</span>'
        for name, drawn in marks.items()
    )
    return f'<p class="legend">{keys}</p>'


def _coverage(monitor: Monitor) -> str:
    if not monitor.recordings:
        return ""
    lead = "How much of each recording could be used: a full bar is all of its segments' time."
    return section("Coverage", lead, f'<div class="box">{charts.coverage(monitor)}</div>')


def _trends(monitor: Monitor) -> str:
    """A line per emotion: trend and change points."""
    if not monitor.labels:
        return ""
    rows = "".join(_trend_row(monitor, label) for label in monitor.labels)
    head = "".join(f"<th>{name}</th>" for name in ("emotion", "points per week", "trend", "change points"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return section("Trends and change points", "", f'<div class="box">{scrolling("Trends", table)}</div>')


def _trend_row(monitor: Monitor, label: str) -> str:
    trend = monitor.trend(label)
    style = ' class="clear"' if trend and trend.clear else ""
    slope = words.slope(trend) if trend else UNKNOWN
    moves = words.moves(trend) if trend else "–"
    return (
        f"<tr><th>{escape(label)}</th><td>{slope}</td><td{style}>{moves}</td>"
        f"<td>{'<br>'.join(words.shifts(monitor, label))}</td></tr>"
    )


def _recordings(monitor: Monitor) -> str:
    """Every recording with a date, as numbers."""
    if not monitor.recordings:
        return ""
    names = ["recording", "answered", *(f"{m} covered" for m in monitor.modalities), *monitor.labels]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = "".join(_recording(monitor, r) for r in monitor.recordings)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    lead = f"{words.sources(monitor)}. Shares with their 95 % intervals."
    return section("Recordings", lead, f'<div class="box">{scrolling("Recordings", table)}</div>')


def _recording(monitor: Monitor, r: Recording) -> str:
    name = f'<span class="when">{words.moment(r.date)}</span><small dir="auto">{escape(printable(r.file))}</small>'
    covered = "".join(f"<td>{percent(r.summary.coverage.get(m, 0.0))}</td>" for m in monitor.modalities)
    told = "".join(f"<td>{words.share(r.summary.shares[label])}</td>" for label in monitor.labels if r.answered)
    if not r.answered and monitor.labels:
        told = f'<td class="unknown" colspan="{len(monitor.labels)}">{UNKNOWN}: {escape(printable(r.summary.gap))}</td>'
    answered = f"{r.summary.answered:.0f} of {r.summary.duration:.0f} s"
    return f"<tr><th>{name}</th><td>{answered}</td>{covered}{told}</tr>"


def _left_out(monitor: Monitor) -> str:
    """What is no point of the trend, and everything else that a reader should know."""
    items = "".join(f"<li>{escape(printable(line))}</li>" for line in words.remarks(monitor))
    return section("Left out, and notes", "", f'<ul class="absent">{items}</ul>') if items else ""


def _how(monitor: Monitor) -> str:
    lines = (
        "An interval of a recording comes from its segments (jackknife, 95 %). It does not know of the model's errors.",
        "A trend is the median slope between days (Theil 1950), with the interval of Sen (1968). It is called clear "
        "where Kendall's test, adjusted for the number of emotions (Holm), has p up to .05.",
        "A change point is a split of the days where the mean shifts, found by binary segmentation and tested by "
        "permutations, adjusted for all tests (Holm). A slow trend can show as a change, and a change as a trend.",
        "Other cameras, rooms, light or microphones change the numbers too. A change on this page can be one of these.",
    )
    return section("How to read this", "", "".join(f"<p>{line}</p>" for line in lines))
