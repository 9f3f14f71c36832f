"""The model that was trained beside a run on some modalities alone, as a row of the run's evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from affuse.core import io, run_files
from affuse.evaluation.compare import compare


def with_control(scores: Path, control: Path) -> dict[str, Any]:
    """The evaluation in the folder `scores`, with a row of the control's scores and the paired difference to them.

    Both folders hold an evaluation.json of the same split; that of `scores` is written anew.
    """
    found = io.read_json(scores / run_files.EVALUATION)
    alone = io.read_json(control / run_files.EVALUATION)
    row = next(row for row in alone["rows"] if row["kind"] == "full")
    name = f"{' + '.join(row['modalities'])} trained alone"
    rows = [r for r in found["rows"] if r["kind"] != "control"]
    found["rows"] = [*rows, {**row, "name": name, "kind": "control"}]
    selected = io.read_json(control / run_files.INFO)["selection"]["metric"]
    compared = compare(scores, control, selected if selected in found["metrics"] else None)
    found["control"] = {"name": name} | {k: compared[k] for k in ("metric", "mean", "difference", "interval")}
    io.write_json(scores / run_files.EVALUATION, found)
    return found
