"""affuse train: a recipe on a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.markup import escape

from affuse.cli.console import Device, Quiet, Threads, choose_device, metric_cell, note, output, progress
from affuse.core.types import Modality

if TYPE_CHECKING:
    import numpy as np

    from affuse.core.config import Recipe
    from affuse.corpora.manifest import Corpus


def run(
    recipe: str,
    *overrides: str,
    corpus: Path,
    out: Path | None = None,
    folds: int | None = None,
    only: Annotated[list[Modality] | None, Parameter(consume_multiple=True, negative="")] = None,
    workers: int = 1,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
    score: Annotated[bool, Parameter(help="score the test split when training is done")] = True,
) -> int:
    """Train RECIPE (a name or a YAML file) with key=value OVERRIDES; resumes, scores, reports, prints the run folder.

    Parameters
    ----------
    corpus
        Folder of an imported corpus.
    out
        Run folder (default: runs/RECIPE-CORPUS-HASH).
    folds
        Number of folds; no speaker and no source crosses them (split.group_by), every utterance is tested once.
    only
        Train with the streams of these modalities only.
    workers
        Processes for extracting features that are not there yet.
    """
    order = Order(recipe, overrides, corpus, out, folds, only or (), workers)
    return carry_out(order, device, threads, quiet, score)


@dataclass(frozen=True)
class Order:
    """What is trained on which corpus, into which folder; `labelled`: off for the stage without labels."""

    recipe: str
    overrides: Sequence[str]
    corpus: Path
    out: Path | None
    folds: int | None
    only: Sequence[Modality]
    workers: int
    labelled: bool = True

    @property
    def name(self) -> str:
        """What the run is called."""
        return ("" if self.labelled else "pretrain-") + Path(self.recipe).stem


def carry_out(order: Order, device: str, threads: int | None, quiet: bool, score: bool = False) -> int:
    """Check, extract what is missing, train, score if asked; prints the run folder."""
    from affuse.cli.extract import extract_into
    from affuse.core.config import load_recipe, pretraining
    from affuse.core.errors import BadConfig
    from affuse.corpora.manifest import Corpus
    from affuse.training import distributed
    from affuse.training.binding import bind, check, missing_stores
    from affuse.training.train import init_hashes, record_attempt

    folds = order.folds
    if folds is not None and folds < 2:
        raise BadConfig(f"--folds {folds}", "give at least 2, or leave it out")
    opened = Corpus.open(order.corpus)
    loaded = load_recipe(order.recipe, order.overrides)
    bound = bind(loaded if order.labelled else pretraining(loaded), opened, order.only)
    chosen = choose_device(device, threads)
    splits = check(bound, opened, folds, order.labelled)
    init_hashes(bound)  # before the long part: runs to start from that are not there
    _, world = distributed.start(chosen)
    if distributed.is_first():
        note_split(bound, opened, splits, folds, quiet)
        for stream, parameters in missing_stores(bound, opened).items():
            extract_into(opened, stream, parameters, order.workers, quiet, needed=False)
        record_attempt(opened, order.name, bound, folds)
    distributed.wait(world)
    folder = order.out or default_folder(order.name, bound, opened, folds)
    still = quiet or not distributed.is_first()
    train_with_progress(bound, order.name, opened, folder, folds, chosen, still, order.labelled)
    if bound.control and order.labelled:
        train_control(bound, order.name, opened, folder, folds, chosen, still)
    distributed.finish()
    if distributed.is_first():
        if score:
            report(folder, opened, chosen, quiet)
        output.print(str(folder), soft_wrap=True, markup=False)
    return 0


def train_control(
    recipe: Recipe, name: str, corpus: Corpus, folder: Path, folds: int | None, device: str, quiet: bool
) -> None:
    """Train the model that the recipe's `control` asks for, in a folder of its own within the run's."""
    from affuse.core import run_files
    from affuse.training.binding import control

    alone = control(recipe, corpus)
    modalities = " and ".join(recipe.control)
    if alone is None:
        note(f"no model of {modalities} alone is trained beside it: the streams are those", quiet)
        return
    note(f"beside it, a model of {modalities} alone:", quiet)
    train_with_progress(alone, f"{name}-control", corpus, folder / run_files.CONTROL, folds, device, quiet)


def note_split(recipe: Recipe, corpus: Corpus, splits: Sequence[np.ndarray], folds: int | None, quiet: bool) -> None:
    """Note how many utterances each part of the split has, and what crosses them."""
    from affuse.corpora.crossing import crossing, describe

    sizes = {part: [int((split == part).sum()) for split in splits] for part in ("train", "valid", "test")}
    parts = ", ".join(f"{part} {' / '.join(map(str, n))}" for part, n in sizes.items() if any(n))
    rows = crossing(corpus.table, splits)
    note(f"split: {parts} utterances, grouped by {escape(recipe.split.group_by)}", quiet)
    crossed = escape(describe(rows, corpus.table, folds, recipe.split.group_by))
    note(("[yellow]take care[/]: " if rows else "") + crossed, quiet and not rows)


def default_folder(name: str, recipe: Recipe, corpus: Corpus, folds: int | None) -> Path:
    """runs/RECIPE-CORPUS-HASH: the same command finds its own folder again."""
    from affuse.core.io import digest

    return Path("runs") / f"{name}-{corpus.name}-{digest([recipe.to_dict(), corpus.hash, folds])[:8]}"


def train_with_progress(
    recipe: Recipe,
    name: str,
    corpus: Corpus,
    folder: Path,
    folds: int | None,
    device: str,
    quiet: bool,
    labelled: bool = True,
) -> None:
    """Train under a progress bar with one line per fold."""
    from affuse.training.train import train

    with progress(quiet) as bar:
        tasks: dict[Any, Any] = {}

        def show(row: dict[str, Any]) -> None:
            if "note" in row:
                note(escape(row["note"]), quiet)
                return
            name = "training" if row["fold"] is None else f"fold {row['fold']}"
            if recipe.train.models > 1:
                name += f" member {row['member']}"
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=recipe.train.epochs)
            if "step" in row:
                bar.update(tasks[name], completed=row["epoch"] - 1 + row["step"] / row["steps"])
            else:
                scores = ", ".join(f"{k} {v:.3f}" for k, v in row["valid"].items())
                several = row["terms"].items() if len(row["terms"]) > 1 else ()
                terms = ", ".join(f"{term.removeprefix('balance.')} {loss:.3f}" for term, loss in several)
                shown = "; ".join(filter(None, [scores, terms])) or f"loss {row['loss']:.3f}"
                bar.update(tasks[name], completed=row["epoch"], description=f"{name} ({shown})")

        train(recipe, name, corpus, folder, folds, device, show, labelled)


def report(folder: Path, corpus: Corpus, device: str, quiet: bool) -> None:
    """Score the test split once, write report.html, print the table."""
    from affuse.core.errors import ProtocolError
    from affuse.evaluation.protocol import evaluate
    from affuse.reporting.report import write_report

    try:
        result = evaluate(folder, corpus, device=device)
    except ProtocolError as error:  # a withheld test set
        note("[yellow]not scored[/]: " + escape(f"{error.message}; {error.remedy}"))
        return
    page = write_report(folder)
    if not quiet:
        print_scores(result)
    note(escape(f"report: {page}"), quiet)


def print_scores(result: dict[str, Any]) -> None:
    """The metrics of an evaluation as a table on stderr, a column per row; then those of other tasks."""
    from affuse.cli.console import console

    _print_task(result, result["task"])
    for name, part in {**result.get("tasks", {}), "utterances": result.get("per_utterance")}.items():
        if part:
            _print_task(result | part, name)
    if control := result.get("control"):
        console.print(escape(against(control)), soft_wrap=True)


def against(control: dict[str, Any]) -> str:
    """What the full model adds to the one that was trained beside it, in a line."""
    gap = control["difference"]
    interval = "no interval" if gap["p"] is None else f"[{gap['low']:+z.3f}, {gap['high']:+z.3f}]"
    return f"{control['metric']} {gap['value']:+z.3f} {interval} against {control['name']}"


def _print_task(result: dict[str, Any], name: str) -> None:
    from rich.table import Table

    from affuse.cli.console import console

    several = "tasks" in result or "per_utterance" in result
    about = f"{name}: " if several else ""
    title = escape(f"{about}{result['corpus']['name']}, {result['split']}, n = {result['n']}")
    grid = Table(box=None, pad_edge=False, header_style="bold", title=title)
    grid.add_column(overflow="fold")
    for row in result["rows"]:
        grid.add_column(escape(row["name"]), overflow="fold")
    for key in result["metrics"]:
        grid.add_row(key, *[escape(metric_cell(row["metrics"][key])) for row in result["rows"]])
    console.print(grid)
    console.print(f"[dim]{result['protocol']['interval']}; selection: {result['protocol']['selection']}[/]")
    if meaning := result["protocol"].get("interval_means"):
        console.print(f"[dim]{escape(meaning)}[/]", soft_wrap=True)
