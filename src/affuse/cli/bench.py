"""affuse bench: a suite of settings, arms and seeds, and its result pages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.markup import escape

from affuse.cli.console import Device, Quiet, Threads, choose_device, note, output, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from affuse.evaluation.suite import Job, Suite


def run(
    suite: Path,
    *,
    out: Path | None = None,
    pages: Path | None = None,
    only: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    table: Annotated[bool, Parameter(negative="")] = False,
    metric: str | None = None,
    workers: int = 1,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> int:
    """Train and score every setting, arm and seed of SUITE, and write a page per setting.

    Goes on where it stopped, lists what failed (exit code 1).

    Parameters
    ----------
    suite
        A suite file; with --table also the .parquet of a page.
    out
        Folder of the runs and of ledger.jsonl (default: runs/NAME).
    pages
        Where the pages go (default: OUT, or the folder of the .parquet).
    only
        SETTING or SETTING/ARM, with * for any; the other runs are left as they are.
    table
        Write the pages only: from the runs of SUITE, or that of a .parquet again, from it alone.
    metric
        With --table: the metric in which differences are taken (default: the first of the suite).
    workers
        Processes that train side by side, one run each; 1 trains in this one.
    """
    from affuse.core.errors import BadConfig
    from affuse.evaluation.suite import load_suite
    from affuse.reporting.bench_pages import rewrite

    if workers < 1:
        raise BadConfig(f"--workers {workers}", "give at least 1; --table trains nothing")
    if metric and not table:
        remedy = "name the metrics of a suite in its file, the most important first"
        raise BadConfig(f"--metric {metric} without --table", remedy)
    if table and suite.suffix == ".parquet":
        output.print(str(rewrite(suite, pages or suite.parent, metric)), soft_wrap=True, markup=False)
        return 0
    read = load_suite(suite)
    read = replace(read, metrics=list(dict.fromkeys([metric, *read.metrics]))) if metric else read
    out = out or Path("runs") / read.name
    chosen = choose_device(device, threads)
    return bench(read, out, pages or out, only or (), 0 if table else workers, chosen, threads, quiet)


def bench(
    suite: Suite,
    out: Path,
    pages: Path,
    only: Sequence[str] = (),
    workers: int = 1,
    device: str = "cpu",
    threads: int | None = None,
    quiet: bool = False,
    more: Callable[[Suite, str, Path], str] = lambda suite, setting, out: "",
) -> int:
    """Run the queue (not at all with 0 workers) and write the pages, which end with `more`; the exit code.

    Prints the paths of the pages.
    """
    from affuse.evaluation.suite import conduct, plan
    from affuse.reporting.bench_pages import write_pages

    jobs = plan(suite, out, only)
    failed = []
    if workers:
        _extract(jobs, workers, quiet)
        jobs = plan(suite, out, only)  # once more: features belong to what a run depends on
        with progress(quiet, 3600) as bar:
            task = bar.add_task(suite.name, total=None)

            def show(row: dict[str, Any], total: int) -> None:
                bar.update(task, advance=1, total=total, description=f"{_name(row)} ({row['seconds']:.0f} s)")

            rows = conduct(jobs, out, workers, device, threads, show)
        failed = [row for row in rows if row["status"] == "failed"]
        note(f"{suite.name}: {len(rows) - len(failed)} runs done now, {len(jobs) - len(rows)} before", quiet)
    for row in failed:
        output.print(f"failed: {_name(row)}: {row['error']}", markup=False, soft_wrap=True)
    written = write_pages(suite, out, pages, list(dict.fromkeys(job.setting for job in jobs)), more)
    for path in written:
        output.print(str(path), soft_wrap=True, markup=False)
    if not written:
        note(escape(f"no page: {out}") + " has no complete run of these settings", quiet)
    return 1 if failed else 0


def _name(row: Mapping[str, Any]) -> str:
    """SETTING/ARM/seedN of a line of the ledger."""
    return f"{row['setting']}/{row['arm']}/seed{row['seed']}"


def _extract(jobs: Sequence[Job], workers: int, quiet: bool) -> None:
    """Fill the stores that the corpora lack."""
    from affuse.cli.extract import extract_into
    from affuse.corpora.manifest import Corpus
    from affuse.training.binding import missing_stores

    for job in jobs:
        if job.seed == 0:
            corpus = Corpus.open(job.corpus)
            for stream, parameters in missing_stores(job.recipe, corpus).items():
                extract_into(corpus, stream, parameters, workers, quiet, needed=False)
