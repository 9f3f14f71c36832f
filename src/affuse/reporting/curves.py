"""Values over epochs as inline SVG: one quantity of many models or streams; colours come from the style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from affuse.reporting.plots import Axis, axis, decimals

LEFT, TOP, WIDE, TALL = 52, 10, 310, 170
HUES, DASHES = 3, 3  # the style sheet has as many colours and dashes of traces


class Frame(NamedTuple):
    """Epochs first to last beside a scale of values."""

    first: int
    last: int
    scale: Axis

    @classmethod
    def around(cls, lines: Sequence[Mapping[int, float]]) -> Frame:
        """The frame that holds all lines."""
        epochs = [e for line in lines for e in line]
        scale = axis([v for line in lines for v in line.values()], 4, zero=False)
        return cls(min(epochs), max(max(epochs), min(epochs) + 1), scale)

    def at(self, epoch: float, value: float) -> tuple[float, float]:
        """Where a value at an epoch stands."""
        return LEFT + WIDE * (epoch - self.first) / (self.last - self.first), TOP + TALL * (1 - self.scale.share(value))

    def trace(self, style: str, line: Mapping[int, float]) -> str:
        """A line over its epochs; a point where there is one epoch."""
        points = [self.at(epoch, value) for epoch, value in sorted(line.items())]
        if len(points) == 1:
            return f'<circle class="point" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3"/>'
        return f'<polyline class="{style}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'

    def panel(self, title: str, drawn: str, values: str = "") -> str:
        """A titled figure of what is drawn over the axes; `values`: the same in words, for screen readers."""
        grid = "".join(
            f'<line class="grid" x1="{LEFT}" x2="{LEFT + WIDE}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{self.scale.label(t)}</text>'
            for t in self.scale.ticks
            for _, y in [self.at(self.first, t)]
        )
        marks = "".join(
            f'<text class="tick" x="{self.at(e, self.scale.ticks[0])[0]:.1f}" y="{TOP + TALL + 18}" '
            f'text-anchor="middle">{e}</text>'
            for e in sorted({self.first, round((self.first + self.last) / 2), self.last})
        )
        return (
            f'<div><h3>{escape(title)}</h3><svg class="scaled" viewBox="0 0 {LEFT + WIDE + 14} {TOP + TALL + 42}" '
            f'role="img" aria-label="{escape(title)} over epochs{escape(values)}">{grid}{marks}{drawn}'
            f'<text class="tick" x="{LEFT + WIDE / 2}" y="{TOP + TALL + 36}" text-anchor="middle">epoch</text>'
            "</svg></div>"
        )


def curves(title: str, lines: Sequence[Mapping[int, float]], chosen: Sequence[int | None]) -> str:
    """Values over epochs: one line per run or fold, their mean over the epochs all of them reached, chosen epochs."""
    frame = Frame.around(lines)
    drawn = "".join(frame.trace("mean" if len(lines) == 1 else "one", line) for line in lines)
    rings = "".join(
        f'<circle class="chosen" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        for line, e in zip(lines, chosen, strict=True)
        if e is not None and e in line
        for x, y in [frame.at(e, line[e])]
    )
    mean = frame.trace("mean", mean_line(lines)) if len(lines) > 1 and mean_line(lines) else ""
    return frame.panel(title, f"{drawn}{mean}{rings}")


def traces(title: str, lines: Mapping[str, Mapping[int, float]], styles: Mapping[str, str]) -> str:
    """Values over epochs, one line per name in the style that `legend` explains; every line has a value."""
    frame = Frame.around(list(lines.values()))
    ends = "; ".join(f"{name} ends at {decimals(line[max(line)])}" for name, line in lines.items())
    return frame.panel(title, "".join(frame.trace(styles[name], line) for name, line in lines.items()), f": {ends}")


def trace_styles(names: Sequence[str]) -> dict[str, str]:
    """A style per name: colours first, then the same ones dashed."""
    return {n: f"trace hue{i % HUES} dash{i // HUES % DASHES}" for i, n in enumerate(names)}


def legend(styles: Mapping[str, str]) -> str:
    """The names beside a piece of their line."""
    keys = "".join(
        '<span><svg class="key" width="28" height="8" aria-hidden="true">'
        f'<polyline class="{style}" points="1,4 27,4"/></svg>{escape(name)}</span>'
        for name, style in styles.items()
    )
    return f'<p class="legend">{keys}</p>'


def mean_line(lines: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """The mean of all lines at the epochs that all of them have."""
    shared = set.intersection(*(set(line) for line in lines))
    return {e: sum(line[e] for line in lines) / len(lines) for e in shared}
