"""What a report reads: the files of one run folder, absent ones as None, and what could not be read as notes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from affuse.core import run_files
from affuse.core.errors import BadRun, MissingFile
from affuse.core.io import read_json

_MODEL = re.compile(r"(?:fold(\d+))?/?(?:member\d+)?(?<=\d)")


class History(NamedTuple):
    """The epochs of one training run: {epoch: line of metrics.jsonl}, and the epoch that was kept."""

    fold: int | None
    epochs: dict[int, dict[str, Any]]
    best: int | None


@dataclass(frozen=True)
class Folder:
    """One run folder as plain values."""

    path: Path
    run: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    histories: list[History]
    config: str | None
    notes: list[str]


def read(path: Path) -> Folder:
    """Read the run folder `path`, or the scores on another corpus that are in one (`RUN/on-NAME`).

    Raises MissingFile (no folder) and BadRun (nothing in it, or a damaged file).
    """
    if not path.is_dir():
        raise MissingFile(f"'{path}' is not a run folder", "give the folder that `affuse train` printed")
    notes: list[str] = []
    home = path.parent if path.name.startswith("on-") and (path.parent / run_files.INFO).is_file() else path
    run, evaluation = _object(home / run_files.INFO), _object(path / run_files.EVALUATION)
    config = home / run_files.CONFIG
    text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else None
    histories = _histories(home, run, notes)
    if run is None and evaluation is None and not histories:
        raise BadRun(
            f"'{path}' holds no run.json, evaluation.json or metrics.jsonl", "give a folder made by affuse train"
        )
    if mapping(run).get("format") not in (None, *run_files.READ):
        raise BadRun(
            f"run.json in '{path}' has format {mapping(run)['format']}, known are {run_files.READ}",
            "use the affuse that wrote it",
        )
    return Folder(path, run, evaluation, histories, text, notes)


def _object(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`, None where there is no such file; BadRun where it is damaged or not an object."""
    if not path.is_file():
        return None
    value = read_json(path)
    if not isinstance(value, dict):
        raise BadRun(f"'{path}' holds a {type(value).__name__}, not an object", "run the command that writes it again")
    return value


def _histories(path: Path, run: dict[str, Any] | None, notes: list[str]) -> list[History]:
    """The histories of the folder itself, by the fold its lines name, and of its models: fold0, fold0/member1, ..."""
    found: dict[str, History] = {}
    for line in _lines(path / run_files.METRICS, notes):
        fold = integer(line.get("fold"))
        best = integer(mapping(run).get("best_epoch")) if fold is None else None
        found.setdefault(f"fold{fold}", History(fold, {}, best)).epochs[line["epoch"]] = line
    for sub in path.glob("**/metrics.jsonl"):
        match = _MODEL.fullmatch(sub.parent.relative_to(path).as_posix())
        if match is None:
            continue
        own = _object(sub.parent / run_files.INFO)
        epochs = {line["epoch"]: line for line in _lines(sub, notes)}
        fold = int(match[1]) if match[1] else None
        found[match[0]] = History(fold, epochs, integer(mapping(own).get("best_epoch")))
    return [history for _, history in sorted(found.items()) if history.epochs]


def _lines(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The epochs in `path`; a line that is not one (a run that was cut off) is named in `notes`."""
    if not path.is_file():
        return []
    lines = []
    for line_number, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        epoch = integer(mapping(line).get("epoch"))
        if epoch is None:
            where = f"{path.parent.name}/" if path.parent.name.startswith("fold") else ""
            notes.append(f"Line {line_number} of {where}{path.name} is not an epoch and is left out.")
        else:
            lines.append({**mapping(line), "epoch": epoch})
    return lines


def number(value: Any) -> float | None:
    """A finite number as float; None for anything else (null, NaN, text)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def integer(value: Any) -> int | None:
    """A finite number as int; None for anything else."""
    found = number(value)
    return None if found is None else int(found)


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is an object, else an empty one: null and absent read alike."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects in the list `value`; empty for null."""
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def sentences(value: Any) -> list[str]:
    """The texts in the list `value`; empty for null."""
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []
