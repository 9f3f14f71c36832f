"""Plots as inline SVG: pure functions from numbers to markup; colours come from the page's style sheet.

Horizontal positions of intervals and bars are percentages, so these plots follow the width of the page without
scaling their text; the others have a fixed drawing size and scale or scroll as a whole.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from affuse.reporting.style import HEAT_STEPS

CHARACTER = 7.0  # width in px of a 12 px character in a wide sans-serif; only an estimate can be had without a browser

TALL = (-400, 444)  # vertical reach of grid and band: the style sheet clips it to the height that the name needs


class Row(NamedTuple):
    """One line of the interval plot; `kind` is baseline, unimodal, subset or full."""

    name: str
    kind: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""


class Axis(NamedTuple):
    """A linear axis from `ticks[0]` to `ticks[-1]`."""

    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Where `value` lies between the ends, 0..1."""
        return (min(max(value, self.ticks[0]), self.ticks[-1]) - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])

    def label(self, tick: float) -> str:
        """A tick as text, with the decimals that the step between ticks needs."""
        largest = max(abs(self.ticks[0]), abs(self.ticks[-1]))
        if not 1e-3 <= largest < 1e5:
            return f"{tick:.1e}".replace("e-0", "e-").replace("e+0", "e") if tick else "0"
        return f"{tick:.{max(0, -math.floor(math.log10(self.ticks[1] - self.ticks[0]) + 1e-9))}f}"


def axis(values: Sequence[float], count: int = 5, zero: bool = True) -> Axis:
    """An axis with about `count` round ticks that holds all `values` (and 0)."""
    low, high = min([*values, *[0.0] * zero], default=0.0), max([*values, *[0.0] * zero], default=1.0)
    if high - low < 1e-12 * max(1.0, abs(high)):
        high = low + (abs(low) or 1.0)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(f for f in (1, 2, 5, 10) if f * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(tuple(i * step for i in range(first, last + 1)))


def decimals(value: float) -> str:
    """A score with three decimals, a large number with as many digits as help."""
    return f"{value:z.3f}" if abs(value) < 100 else f"{value:,.0f}" if abs(value) < 1e5 else f"{value:.3g}"


def between(low: float, high: float) -> str:
    """An interval as text: 0.1 – 0.2, or -0.2 to 0.1 where a dash would be taken for a sign."""
    return f"{decimals(low)} {'to' if low < 0 else '–'} {decimals(high)}"


def text_width(text: str, size: float = 12) -> float:
    """Estimated width of `text` in px at a font size of `size` px."""
    return sum(1.75 if unicodedata.east_asian_width(c) in "WF" else 1.0 for c in text) * CHARACTER * size / 12


def shorten(text: str, most: int = 22) -> str:
    """`text`, or its beginning and an ellipsis where it has more than `most` characters."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


# ---- intervals -------------------------------------------------------------------------------------------------


def interval_plot(rows: Sequence[Row], full: Row | None = None) -> str:
    """Forest plot: a point and its interval per row on one axis; the interval of `full` is a band behind all."""
    scale = axis([v for row in rows for v in (row.value, row.low, row.high) if v is not None])
    entries = "".join(_entry(row, scale, full) for row in rows)
    ticks = "".join(
        f'<text class="tick" x="{100 * scale.share(t):.2f}%" y="16" text-anchor="middle">{scale.label(t)}</text>'
        for t in scale.ticks
    )
    bottom = f'<span></span><svg class="fluid" height="22" aria-hidden="true">{ticks}</svg><span></span>'
    return f'<div class="forest">{entries}<div class="entry axis">{bottom}</div></div>'


def _entry(row: Row, scale: Axis, full: Row | None) -> str:
    signed = scale.ticks[0] < 0
    grid = "".join(_vertical("base" if signed and t == 0 else "grid", scale.share(t), *TALL) for t in scale.ticks)
    spread = f" {between(row.low, row.high)}" if row.low is not None and row.high is not None else ""
    kind = row.kind if row.kind in ("baseline", "full") else "part"
    label = escape(f"{row.name}: {decimals(row.value)}{', interval' + spread if spread else ''}")
    note = f"<small>{escape(row.note)}</small>" if row.note else ""
    drawn = f"{_band(full, scale, TALL[0], TALL[1] - TALL[0])}{grid}{_whisker(row, scale, 22)}"
    return (
        f'<div class="entry {kind}"><span class="name">{escape(row.name)}{note}</span>'
        f'<svg class="fluid" height="44" role="img" aria-label="{label}">{drawn}</svg>'
        f'<span class="value">{decimals(row.value)}<small>{spread}</small></span></div>'
    )


def ruler(row: Row, reference: Row | None, ends: tuple[float, float]) -> str:
    """One interval on an axis that includes `ends`, with one labelled reference mark."""
    values = [v for r in (row, reference) if r for v in (r.value, r.low, r.high) if v is not None]
    scale = axis([*ends, *values])
    ticks = "".join(
        _vertical("base", scale.share(t), 27, 33)
        + f'<text class="tick" x="{100 * scale.share(t):.2f}%" y="54" text-anchor="{_anchor(scale.share(t))}">'
        f"{scale.label(t)}</text>"
        for t in scale.ticks
    )
    line = '<line class="base" x1="0%" x2="100%" y1="30" y2="30"/>'
    mark = ""
    if reference is not None:
        at = scale.share(reference.value)
        anchor = "start" if at < 0.5 else "end"
        words = escape(f"{shorten(reference.name, 30)} {decimals(reference.value)}")
        mark = _vertical("ideal", at, 6, 38) + (
            f'<text class="tick" x="{100 * at:.2f}%" y="14" dx="{6 if anchor == "start" else -6}" '
            f'text-anchor="{anchor}">{words}</text>'
        )
    label = escape(
        f"{row.name} {decimals(row.value)} on an axis from {scale.label(scale.ticks[0])} to "
        f"{scale.label(scale.ticks[-1])}"
    )
    return (
        f'<svg class="fluid full" height="60" role="img" aria-label="{label}">{_band(row, scale, 20, 20)}{line}'
        f"{ticks}{mark}{_whisker(row, scale, 30)}</svg>"
    )


def _anchor(share: float) -> str:
    return "start" if share < 0.02 else "end" if share > 0.98 else "middle"


def _vertical(style: str, share: float, top: float, bottom: float) -> str:
    return f'<line class="{style}" x1="{100 * share:.2f}%" x2="{100 * share:.2f}%" y1="{top}" y2="{bottom}"/>'


def _band(row: Row | None, scale: Axis, top: float, height: float) -> str:
    if row is None or row.low is None or row.high is None:
        return ""
    left, right = 100 * scale.share(row.low), 100 * scale.share(row.high)
    return f'<rect class="band" x="{left:.2f}%" width="{max(right - left, 0):.2f}%" y="{top}" height="{height}"/>'


def _whisker(row: Row, scale: Axis, y: float) -> str:
    dot = f'<circle class="dot" cx="{100 * scale.share(row.value):.2f}%" cy="{y}" r="7"/>'
    if row.low is None or row.high is None:
        return dot
    left, right = 100 * scale.share(row.low), 100 * scale.share(row.high)
    return f'<line class="whisker" x1="{left:.2f}%" x2="{right:.2f}%" y1="{y}" y2="{y}"/>{dot}'


# ---- classes ---------------------------------------------------------------------------------------------------


def class_bars(classes: Sequence[tuple[str, Mapping[str, float | None], int | None]]) -> str:
    """Bars of precision, recall and F1, and the average precision (AP), for each (label, values, support)."""
    legend = "".join(f'<span><i class="{key}"></i>{name}</span>' for key, name in BARS)
    return (
        f'<p class="legend">{legend}</p><div class="classes">'
        + "".join(_class(label, values, support) for label, values, support in classes)
        + "</div>"
    )


BARS = (("precision", "precision"), ("recall", "recall"), ("f1", "F1"))


def _class(label: str, values: Mapping[str, float | None], support: int | None) -> str:
    bars = "".join(_bar(key, values.get(key), 16 * i) for i, (key, _) in enumerate(BARS))
    words = ", ".join(f"{name} {_three(values.get(key))}" for key, name in BARS)
    ranked = values.get("average_precision")  # of the ranking by probability, which no bar of a decision shows
    more = [*([] if support is None else [f"n = {support:,}"]), *([] if ranked is None else [f"AP {ranked:.2f}"])]
    count = f"<small>{', '.join(more)}</small>" if more else ""
    return (
        f'<div class="class"><span class="name">{escape(label)}{count}</span><svg class="fluid" height="46" '
        f'role="img" aria-label="{escape(label)}: {words}">{bars}</svg></div>'
    )


def _bar(key: str, value: float | None, y: int) -> str:
    full = 86.0  # per cent of the width; the rest is for the number
    rest = f'<rect class="rest" x="0%" y="{y}" width="{full}%" height="12" rx="2"/>'
    bar = (
        "" if value is None else f'<rect class="{key}" x="0%" y="{y}" width="{full * value:.2f}%" height="12" rx="2"/>'
    )
    return f'{rest}{bar}<text class="minor" x="100%" y="{y + 10}" text-anchor="end">{_three(value)}</text>'


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def confusion_matrix(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Heat map of counts [C, C], rows are the truth; each cell has its count and its share of the row."""
    largest = max(text_width(f"{count:,}", 14) for row in counts for count in row)
    size = max(
        next(s for most, s in ((10, 56), (16, 46), (math.inf, 38)) if len(labels) <= most), math.ceil(largest) + 8
    )
    names = [shorten(label) for label in labels]
    longest = max(text_width(name) for name in names)
    slanted = longest > size - 4
    top = 34 + (longest * 0.71 if slanted else 14)
    side, left, height = size * len(labels), longest + 34, top + size * len(labels) + 4
    width = side + max(48, longest * 0.71 if slanted else 0)
    columns = "".join(
        _column_name(name, label, size * (i + 0.5), top - 8, slanted)
        for i, (name, label) in enumerate(zip(names, labels, strict=True))
    )
    row_names = "".join(
        f'<text x="{left - 10:.1f}" y="{top + size * (i + 0.5) + 4:.1f}" text-anchor="end">'
        f"<title>{escape(label)}</title>{escape(name)}</text>"
        for i, (name, label) in enumerate(zip(names, labels, strict=True))
    )
    cells = "".join(_matrix_row(i, row, labels, top, size) for i, row in enumerate(counts))
    return (
        f'<div class="matrix"><svg class="sides" width="{left:.0f}" height="{height:.0f}" aria-hidden="true">'
        f'<text class="tick" transform="translate(12 {top + side / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f'true</text>{row_names}</svg><svg width="{width:.0f}" height="{height:.0f}" '
        f'role="img" aria-label="confusion matrix of {len(labels)} classes">'
        f'<text class="tick" x="2" y="12">predicted</text>{columns}'
        f'<text class="tick" x="{side + 10}" y="{top - 8:.0f}">n</text>{cells}</svg></div>'
    )


def _column_name(name: str, label: str, x: float, y: float, slanted: bool) -> str:
    at = (
        f'transform="translate({x:.1f} {y:.1f}) rotate(-45)"'
        if slanted
        else f'x="{x:.1f}" y="{y:.1f}" text-anchor="middle"'
    )
    return f"<text {at}><title>{escape(label)}</title>{escape(name)}</text>"


def _matrix_row(i: int, row: Sequence[int], labels: Sequence[str], top: float, size: int) -> str:
    total, y = sum(row), top + size * i
    cells = "".join(
        _cell(count, total, size * j, y, size, f"true {labels[i]}, predicted {labels[j]}", i == j)
        for j, count in enumerate(row)
    )
    return f'{cells}<text class="tick" x="{size * len(row) + 10}" y="{y + size / 2 + 4:.1f}">{total:,}</text>'


def _cell(count: int, total: int, x: float, y: float, size: int, what: str, hit: bool) -> str:
    share = count / total if total else 0.0
    step, large, fine = round(share * HEAT_STEPS), 14 if size > 50 else 12, 11 if size > 40 else 10
    box = f'x="{x + 1}" y="{y + 1:.1f}" width="{size - 2}" height="{size - 2}" rx="3"'
    at = f'class="t{step}" text-anchor="middle" x="{x + size / 2}"'
    words = (
        f'<text {at} y="{y + size / 2 - 1:.1f}" style="font-size:{large}px">{count:,}</text>'
        f'<text {at} y="{y + size / 2 + 13:.1f}" style="font-size:{fine}px">{100 * share:.0f} %</text>'
    )
    edge = f'<rect class="diagonal" {box}/>' if hit else ""
    return (
        f'<g><title>{escape(what)}: {count:,} of {total:,}</title><rect class="h{step}" {box}/>'
        f"{edge}{words if count else ''}</g>"
    )


# ---- calibration -------------------------------------------------------------------------------------


class Bin(NamedTuple):
    """One confidence bin of the reliability diagram."""

    low: float
    high: float
    confidence: float
    accuracy: float
    n: int


def reliability(bins: Sequence[Bin]) -> str:
    """Reliability diagram: accuracy against confidence per bin, over a histogram of the bins' counts."""
    side, left, top, strip = 340, 44, 10, 60
    below = top + side + 14
    most = max(b.n for b in bins)

    def x(value: float) -> float:
        return left + side * value

    parts = []
    for share in (0, 0.2, 0.4, 0.6, 0.8, 1):
        y = top + side * (1 - share)
        parts.append(f'<line class="grid" x1="{left}" x2="{left + side}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{share:.1f}</text>')
        parts.append(
            f'<text class="tick" x="{x(share):.1f}" y="{below + strip + 18}" text-anchor="middle">{share:.1f}</text>'
        )
    for b in bins:
        tall, deep, wide = side * b.accuracy, strip * b.n / most, max(side * (b.high - b.low) - 2, 1)
        at = f'x="{x(b.low) + 1:.1f}" width="{wide:.1f}"'
        parts.append(
            f"<g><title>confidence {b.low:.2f} to {b.high:.2f}: accuracy {b.accuracy:.3f}, n = {b.n}</title>"
            f'<rect class="bin" {at} y="{top + side - tall:.1f}" height="{tall:.1f}"/>'
            f'<rect class="count" {at} y="{below + strip - deep:.1f}" height="{deep:.1f}"/></g>'
        )
    ideal = f'<line class="ideal" x1="{left}" y1="{top + side}" x2="{left + side}" y2="{top}"/>'
    dots = "".join(
        f'<circle class="point" cx="{x(b.confidence):.1f}" cy="{top + side * (1 - b.accuracy):.1f}" r="5"/>'
        for b in bins
    )
    words = (
        f'<text class="tick" transform="translate(12 {top + side / 2}) rotate(-90)" text-anchor="middle">'
        f'accuracy</text><text class="tick" transform="translate(12 {below + strip / 2}) rotate(-90)" '
        f'text-anchor="middle">n</text>'
        f'<text class="tick" x="{left - 8}" y="{below + 10}" text-anchor="end">{most}</text>'
        f'<text class="tick" x="{left + side / 2}" y="{below + strip + 38}" text-anchor="middle">confidence</text>'
    )
    return (
        f'<svg class="scaled" viewBox="0 0 {left + side + 14} {below + strip + 44}" role="img" '
        f'aria-label="reliability diagram, {len(bins)} bins">{"".join(parts)}{ideal}{dots}{words}</svg>'
    )
