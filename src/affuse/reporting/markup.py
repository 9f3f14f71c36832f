"""The words of a report: numbers, names and grids as escaped markup, one way of saying each."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from html import escape
from typing import Any, NamedTuple

from affuse.reporting import plots
from affuse.reporting.folder import Folder, integer, number

NAMES = {
    "uar": "UAR",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "ccc": "CCC",
    "mae": "MAE",
    "pearson": "Pearson r",
    "mer_score": "MER score",
    "acc7": "Acc-7",
    "acc5": "Acc-5",
    "acc2_nonneg": "Acc-2 (negative / non-negative)",
    "acc2_nonzero": "Acc-2 (zeros left out)",
    "acc2_positive": "Acc-2 (zero is negative)",
    "weighted_f1_nonneg": "weighted F1 (negative / non-negative)",
    "weighted_f1_nonzero": "weighted F1 (zeros left out)",
    "weighted_f1_positive": "weighted F1 (zero is negative)",
}


class Metric(NamedTuple):
    """One metric as evaluation.json has it; None where it has null."""

    value: float | None
    low: float | None
    high: float | None
    n: int | None


class Absent(NamedTuple):
    """A section that cannot be drawn, and why, as markup."""

    title: str
    why: str


def metric(value: Any) -> Metric:
    """The metric in `value`: {value, low, high, n} or a bare number."""
    if not isinstance(value, dict):
        return Metric(number(value), None, None, None)
    return Metric(
        number(value.get("value")), number(value.get("low")), number(value.get("high")), integer(value.get("n"))
    )


def text(value: Any) -> str:
    """Any JSON value as escaped text; null is a dash."""
    if value is None or value == "" or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return "–" if number(value) is None else f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(text(v) for v in value)
    if isinstance(value, dict):
        return ", ".join(f"{escape(str(k))} {text(v)}" for k, v in value.items()) or "–"
    return escape(str(value))


def metric_name(key: str) -> str:
    """A metric's name for people, not escaped."""
    return NAMES.get(key, key.replace("_", " "))


def three(value: float | None) -> str:
    """A score with three decimals; a dash where there is none."""
    return "–" if value is None else plots.decimals(value)


def span(found: Metric) -> str:
    """An interval as text, empty where there is none."""
    return "" if found.low is None or found.high is None else plots.between(found.low, found.high)


def listing(words: list[str]) -> str:
    """a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def duration(seconds: float) -> str:
    """Seconds as 48 s, 5 min 21 s or 3 h 02 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def moment(value: Any) -> str:
    """An ISO date as 2026-01-12 09:30 UTC, anything else as it is."""
    try:
        return escape(datetime.fromisoformat(str(value)).strftime("%Y-%m-%d %H:%M %Z").strip())
    except ValueError:
        return text(value)


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A grid of (name, markup) pairs without the empty ones; long values take a whole line."""
    kept = [(name, value) for name, value in pairs if value not in ("", "–")]
    cells = "".join(
        f'<div class="{"wide" if len(value) > 36 and "<" not in value else "short"}"><dt>{escape(name)}</dt>'
        f"<dd>{value}</dd></div>"
        for name, value in kept
    )
    return f'<dl class="facts">{cells}</dl>' if cells else ""


def section(title: str, lead: str, body: str) -> str:
    """A titled section; `lead` and `body` are markup."""
    words = f'<p class="lead">{lead}</p>' if lead else ""
    return f"<section><h2>{escape(title)}</h2>{words}{body}</section>"


def no_evaluation(folder: Folder) -> str:
    """The beginning of a sentence on what the evaluation does not have."""
    return "There is no evaluation.json, hence no" if folder.evaluation is None else "evaluation.json holds no"


def scrolling(label: str, body: str) -> str:
    """A box that scrolls sideways by itself, reachable by keyboard."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{body}</div>'
