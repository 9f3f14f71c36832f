"""affuse submit mer2023, muse-mimic: a run's predictions for a part of a corpus, a row per clip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.markup import escape

from affuse.cli.console import Device, Quiet, Threads, Whole, choose_device, note, output
from affuse.cli.submit_frames import RECORD

if TYPE_CHECKING:
    from affuse.reporting.submissions.clips import ClipChallenge


def mer2023(
    run: Path,
    *,
    corpus: Path,
    out: Path,
    part: Literal["multi", "noise", "semi"] | None = None,
    workers: Annotated[int, Whole] = 1,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> int:
    """Write predictions.csv of MER2023 (name, discrete, valence): what RUN predicts for every clip of a part.

    RUN: a run folder with a task for mer2023-6 and one for mer2023-valence. SEMI needs the first only: without the
    second the valence is -10, as in the release.

    Parameters
    ----------
    corpus
        The corpus that affuse import mer2023 made.
    out
        Folder for predictions.csv, and for submission.json, which says how it was made.
    part
        The part of the test split (default: the only one that the corpus has).
    workers
        Processes for extracting features that are not there yet.
    """
    from affuse.reporting.submissions.clips import MER2023

    return _submit(MER2023, run, corpus, out, part, workers, choose_device(device, threads), quiet)


def muse_mimic(
    run: Path,
    *,
    corpus: Path,
    out: Path,
    part: Literal["test", "devel"] = "test",
    workers: Annotated[int, Whole] = 1,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> int:
    """Write predictions.csv of MuSe-Mimic: what RUN predicts for every clip of a part.

    RUN: a run folder with a task for muse-mimic-3. The columns are filename, Approval_, Disappointment_ and
    Uncertainty_, ids in double quotes as in the release. Values outside 0 to 1 are moved to the nearer end,
    and counted.

    Parameters
    ----------
    corpus
        The corpus that affuse import muse_mimic made.
    out
        Folder for predictions.csv, and for submission.json, which says how it was made.
    part
        The part of the partition.
    workers
        Processes for extracting features that are not there yet.
    """
    from affuse.reporting.submissions.clips import MUSE_MIMIC

    return _submit(MUSE_MIMIC, run, corpus, out, part, workers, choose_device(device, threads), quiet)


def _submit(
    challenge: ClipChallenge,
    run: Path,
    corpus: Path,
    out: Path,
    part: str | None,
    workers: int,
    device: str,
    quiet: bool,
) -> int:
    from affuse.cli.extract import extract_into
    from affuse.core import io
    from affuse.corpora.manifest import Corpus
    from affuse.evaluation.clips import predict_clips
    from affuse.reporting.submissions.clip_files import NAME, write_clips
    from affuse.reporting.submissions.clips import rows_for
    from affuse.training.binding import missing_stores
    from affuse.training.run_folder import open_run, run_model

    opened = Corpus.open(corpus)
    chosen_part, chosen = challenge.rows_of(opened, part)
    info, recipe, folders = open_run(run)
    tasks = challenge.tasks_of(str(run), run_model(folders[0][0]).tasks, chosen_part)
    for name, parameters in missing_stores(recipe, opened).items():
        extract_into(opened, name, parameters, workers, quiet, needed=False)
    found = predict_clips(run, opened, chosen, [task.name for task in tasks if task], device)
    rows, moved = rows_for(challenge, found.ids, tasks, found.by_task)
    write_clips(out / NAME, challenge, chosen_part, rows)
    own = opened.hash == info["corpus"]["hash"]
    record = {
        "challenge": challenge.name,
        "part": chosen_part,
        "model": str(run),
        "corpus": {"name": opened.name, "hash": opened.hash, "trained_on": own},
        "folds": info["folds"],
        "tasks": {",".join(a.columns): task and task.name for a, task in zip(challenge.answers, tasks, strict=True)},
        "rows": len(rows),
        "moved_into_range": moved,
        "without_stream": found.empty,
    }
    io.write_json(out / RECORD, record)
    for line in _remarks(record):
        note(escape(line), quiet)
    output.print(f"{len(rows)} rows of {chosen_part}: {out / NAME}", soft_wrap=True, markup=False)
    return 0


def _remarks(record: Mapping[str, Any]) -> Iterator[str]:
    """What the reader should know of how the rows were made."""
    if empty := record["without_stream"]:
        without = f"{len(empty)} of {record['rows']} clips have no usable stream, such as {empty[0]}"
        yield f"{without}: their rows hold the baseline of the training labels"
    if moved := record["moved_into_range"]:
        yield f"{moved} values outside the range were moved to its nearer end"
    for column in (column for column, task in record["tasks"].items() if task is None):
        yield f"no task answers {column}, which is not scored in {record['part']}: the column holds the unknown value"
    if record["folds"] and record["corpus"]["trained_on"]:
        yield "each clip is predicted by the fold that tests it, whose models were trained on other clips of the corpus"
