"""One self-contained page per run: report.html, in the folder of the numbers that it shows."""

from __future__ import annotations

from pathlib import Path

from affuse.core import run_files
from affuse.core.io import atomic
from affuse.reporting.folder import read
from affuse.reporting.page import page


def write_report(run: Path) -> Path:
    """Write `run`/report.html from the files in the run folder, nothing else; returns its path.

    Raises MissingFile (no such folder) and BadRun (an empty folder, or a damaged file).
    """
    run = Path(run)
    document = page(read(run))
    target = run / run_files.REPORT
    with atomic(target) as aside:
        aside.write_text(document, encoding="utf-8", errors="replace")
    return target
