"""affuse evaluate: score a run under its protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.markup import escape

from affuse.cli.console import Device, Quiet, Threads, by_modality, choose_device, console, metric_cell, note


def run(
    run: Path,
    *,
    corpus: Path,
    split: str = "test",
    missing: str | None = None,
    probes: Annotated[bool, Parameter(negative="")] = False,
    alone: Annotated[list[str] | None, Parameter(negative="")] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="one JSON object on stdout")] = False,
    workers: int = 1,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> int:
    """Score RUN on a split of CORPUS: metrics with intervals, every single modality, the majority class.

    Parameters
    ----------
    corpus
        The run's own corpus, or another one (labels are then mapped by name).
    missing
        `each` for every subset of modalities, or the modalities to take away (audio, vision, audio+text).
    probes
        Also score a linear probe of every modality's frozen encoder.
    alone
        MODALITY=RUN, repeatable: a run that was trained on that modality alone; the difference of the probes is the gap.
    workers
        Processes for extracting features that are not there yet.
    """
    from affuse.cli.extract import extract_into
    from affuse.cli.train import print_scores
    from affuse.corpora.manifest import Corpus
    from affuse.evaluation.protocol import evaluate
    from affuse.reporting.report import write_report
    from affuse.training.run import missing_stores, open_run

    paths = {modality: Path(path) for modality, path in by_modality("--alone", alone or [], "RUN").items()}
    chosen = choose_device(device, threads)
    opened = Corpus.open(corpus)
    _, recipe, _ = open_run(run)
    for name, parameters in missing_stores(recipe, opened).items():
        extract_into(opened, name, parameters, workers, quiet)
    result = evaluate(run, opened, split, missing, chosen, paths if probes or paths else None)
    if (run / "evaluation.json").is_file():
        note(escape(f"report: {write_report(run)}"), quiet)
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print_scores(result)
        print_balance(result)
    return 0


def print_balance(result: dict[str, Any]) -> None:
    """What every modality carries, as a table on stderr: its Shapley value, and its probes."""
    from rich.table import Table

    shapley, probes = result.get("shapley", {}), result.get("probes", {})
    columns = {f"Shapley value ({result['imbalance']['metric']})": shapley} if shapley else {}
    names = ("joint", "alone", "gap")
    columns |= {f"probe: {n}": {m: p[n] for m, p in probes.items() if n in p} for n in names if any(n in p for p in probes.values())}
    if not columns:
        return
    grid = Table("", *columns, box=None, pad_edge=False, header_style="bold")
    for modality in shapley or probes:
        grid.add_row(modality, *[metric_cell(found[modality]) if modality in found else "" for found in columns.values()])
    console.print(grid)
