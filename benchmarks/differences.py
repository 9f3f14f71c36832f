"""A picture of a suite: every arm less a baseline, one panel per setting, from the tables beside the pages."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from affuse.core import io
from affuse.evaluation.compare import Sums

CLEAR, OTHER, INK = "#0b6e6e", "#8a8f98", "#222222"
ACROSS = 3  # panels in a row


def draw(tables: Sequence[Path], baseline: str, target: Path) -> None:
    """Write TARGET (SVG): arms down, the difference in the first metric with its 95 % interval across."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sums = {table.stem: Sums.read(table) for table in tables}
    arms = list(dict.fromkeys(arm for found in sums.values() for arm in found.arms if arm != baseline))
    rows = -(-len(sums) // ACROSS)
    metric = next(iter(sums.values())).info["metrics"][0]
    with pyplot.rc_context({"svg.hashsalt": "affuse", "font.size": 9, "svg.fonttype": "none"}):
        size = (3.4 * min(len(sums), ACROSS) + 1.2, rows * (0.24 * len(arms) + 1.0))
        figure, axes = pyplot.subplots(
            rows, min(len(sums), ACROSS), figsize=size, sharex=True, sharey=True, squeeze=False
        )
        for axis, (name, found) in zip(axes.flat, sums.items(), strict=False):
            axis.axvline(0, color=INK, linewidth=0.8)
            for k, arm in enumerate(arms):
                if arm not in found.arms:
                    continue
                gap = found.less(metric, arm, baseline)
                colour = CLEAR if gap.low > 0 or gap.high < 0 else OTHER
                axis.plot([gap.low, gap.high], [k, k], color=colour, linewidth=1.6)
                axis.plot(gap.value, k, "o", color=colour, markersize=4)
            axis.set_title(name, fontsize=9)
            axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        for axis in list(axes.flat)[len(sums) :]:
            axis.set_visible(False)
        axes[0, 0].set_yticks(range(len(arms)), arms)
        axes[0, 0].set_ylim(len(arms) - 0.4, -0.6)
        figure.supxlabel(f"{metric}: arm less {baseline}, 95 % interval (dark: excludes 0)", fontsize=9)
        figure.tight_layout()
        drawn = BytesIO()
        figure.savefig(drawn, format="svg", facecolor="white", metadata={"Date": None})
        pyplot.close(figure)
    io.write_text(target, drawn.getvalue().decode())
