"""affuse evaluate: score a run under its protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.markup import escape

from affuse.cli.console import Device, Quiet, Threads, by_modality, choose_device, console, metric_cell, note
from affuse.core import run_files

if TYPE_CHECKING:
    from affuse.corpora.manifest import Corpus


def run(
    run: Path,
    *,
    corpus: Path,
    split: str = "test",
    missing: str | None = None,
    probes: Annotated[bool, Parameter(negative="")] = False,
    alone: Annotated[list[str] | None, Parameter(negative="")] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="one JSON object on stdout")] = False,
    include_seen: Annotated[bool, Parameter(negative="")] = False,
    out: Path | None = None,
    workers: int = 1,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> int:
    """Score RUN (a run folder, or a shipped model: affuse-base) on a split of CORPUS.

    Metrics with intervals, of all modalities, of every single one, and of the majority class.

    Parameters
    ----------
    corpus
        The run's own corpus, or another one: labels are then mapped by name, and the scores and their report go to
        RUN/on-NAME.
    missing
        `each` for every subset of modalities, or the modalities to take away (audio, vision, audio+text).
    probes
        Also score a linear probe of every modality's frozen encoder.
    alone
        MODALITY=RUN, repeatable: a run that was trained on that modality alone; the difference of the probes is the
        gap.
    include_seen
        Also score utterances of another corpus that RUN was trained on (by id, source or speaker), and mark them; else
        they are left out where there are others.
    out
        Where the scores of a shipped model go (default: runs/MODEL-on-CORPUS).
    workers
        Processes for extracting features that are not there yet.
    """
    from affuse.cli.extract import extract_into
    from affuse.cli.train import print_scores
    from affuse.core.errors import BadConfig
    from affuse.corpora.manifest import Corpus
    from affuse.evaluation.protocol import evaluate, scores_folder
    from affuse.reporting.report import write_report
    from affuse.training.binding import missing_stores
    from affuse.training.run_folder import open_run

    paths = {modality: Path(path) for modality, path in by_modality("--alone", alone or [], "RUN").items()}
    chosen = choose_device(device, threads)
    opened = Corpus.open(corpus)
    if not run.exists():
        if probes or paths:
            raise BadConfig("a shipped model has no probes", "leave out --probes and --alone")
        result = _shipped(run, opened, out, split, missing, include_seen, workers, chosen, quiet)
    else:
        if out is not None:
            remedy = "--out is for shipped models: the scores of a run go into its folder"
            raise BadConfig(f"{run} is a run folder", remedy)
        info, recipe, _ = open_run(run)
        for name, parameters in missing_stores(recipe, opened).items():
            extract_into(opened, name, parameters, workers, quiet, needed=False)
        result = evaluate(run, opened, split, missing, chosen, paths if probes or paths else None, include_seen)
        if ((folder := scores_folder(run, info, opened)) / run_files.EVALUATION).is_file():
            note(escape(f"report: {write_report(folder)}"), quiet)
    note_protocol(result["protocol"], quiet)
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print_scores(result)
        print_balance(result)
    return 0


def _shipped(
    name: Path, corpus: Corpus, out: Path | None, split: str, missing: str | None,
    include_seen: bool, workers: int, device: str, quiet: bool,
) -> dict[str, Any]:  # fmt: skip
    """Score a shipped model, after extracting the features that it needs."""
    from affuse.cli.extract import extract_into
    from affuse.core.config import shipped
    from affuse.evaluation.shipped import evaluate_shipped, stores_of
    from affuse.reporting.report import write_report

    model = shipped(name)
    for store, parameters in stores_of(model, corpus).values():
        if not (corpus.store_path(store) / "failures.json").is_file():
            extract_into(corpus, store, parameters, workers, quiet, needed=False)
    folder = out or Path("runs") / f"{model.name}-on-{corpus.name}"
    result = evaluate_shipped(model, corpus, folder, split, missing, device, include_seen)
    note(escape(f"report: {write_report(folder)}"), quiet)
    return result


def note_protocol(protocol: dict[str, Any], quiet: bool) -> None:
    """What of the scored corpus was trained on, and which of its labels the model lacks."""
    shared = bool(protocol.get("crossing") or protocol.get("seen_in_training"))
    for line in protocol["overlap"]:
        note(("[yellow]take care[/]: " if shared else "") + escape(line), quiet and not shared)
    if lacking := (protocol["mapping"] or {}).get("model_lacks"):
        named = escape(", ".join(lacking))
        note(f"[yellow]the model cannot predict[/] {named}: utterances with such labels count as wrong")


def print_balance(result: dict[str, Any]) -> None:
    """What every modality carries, as a table on stderr: its Shapley value, and its probes."""
    from rich.table import Table

    shapley, probes = result.get("shapley", {}), result.get("probes", {})
    columns = {f"Shapley value ({result['imbalance']['metric']})": shapley} if shapley else {}
    for name in ("joint", "alone", "gap"):
        if scored := {m: probe[name] for m, probe in probes.items() if name in probe}:
            columns[f"probe: {name}"] = scored
    if not columns:
        return
    grid = Table("", *columns, box=None, pad_edge=False, header_style="bold")
    for modality in shapley or probes:
        cells = [metric_cell(found[modality]) if modality in found else "" for found in columns.values()]
        grid.add_row(modality, *cells)
    console.print(grid)
