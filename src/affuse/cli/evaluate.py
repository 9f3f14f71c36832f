"""affuse evaluate: score a run under its protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from affuse.cli.console import Device, Quiet, Threads, choose_device, note


def run(
    run: Path,
    *,
    corpus: Path,
    split: str = "test",
    missing: str | None = None,
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
    workers
        Processes for extracting features that are not there yet.
    """
    from affuse.cli.extract import extract_into
    from affuse.cli.train import print_scores
    from affuse.corpora.manifest import Corpus
    from affuse.evaluation.protocol import evaluate
    from affuse.reporting.report import write_report
    from affuse.training.run import missing_stores, open_run

    chosen = choose_device(device, threads)
    opened = Corpus.open(corpus)
    _, recipe, _ = open_run(run)
    for name, parameters in missing_stores(recipe, opened).items():
        extract_into(opened, name, parameters, workers, quiet)
    result = evaluate(run, opened, split, missing, chosen)
    if (run / "evaluation.json").is_file():
        note(f"report: {write_report(run)}", quiet)
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print_scores(result)
    return 0
