"""affuse pretrain: a recipe's stage before training, on clips without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from affuse.cli.console import Device, Quiet, Threads
from affuse.core.types import Modality


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
) -> int:
    """Train RECIPE as its `pretrain` says, on the training clips without their labels; prints the run folder.

    Go on with: affuse train RECIPE init=RUN --corpus DIR. With --folds every fold has a model of its own, and is gone
    on with by the same fold. Resumes.

    Parameters
    ----------
    corpus
        Folder of an imported corpus; labels are not needed, and not looked at.
    out
        Run folder (default: runs/pretrain-RECIPE-CORPUS-HASH).
    folds
        Number of folds, as for the training that goes on.
    only
        Train with the streams of these modalities only.
    workers
        Processes for extracting features that are not there yet.
    """
    from affuse.cli.train import Order, carry_out

    order = Order(recipe, overrides, corpus, out, folds, only or (), workers, labelled=False)
    return carry_out(order, device, threads, quiet)
