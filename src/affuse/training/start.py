"""Where a training starts from: the parts of another run's model, as far as they are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from affuse.core import io, run_files
from affuse.core.errors import BadRun
from affuse.models.model import Model
from affuse.models.saved import upgraded
from affuse.training.run_folder import open_run

Tensors = dict[str, Tensor]


@dataclass
class Started:
    """What came from the other run: `matched` part -> number of tensors, `fresh` part -> why not, `unused` parts."""

    matched: dict[str, int] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        begun = ", ".join(f"{part} ({n} tensors)" for part, n in self.matched.items())
        fresh = "; fresh: " + ", ".join(f"{part} ({why})" for part, why in self.fresh.items()) if self.fresh else ""
        return f"started from it: {begun}{fresh}" + (f"; not used: {', '.join(self.unused)}" if self.unused else "")


def folder_of(run: Path, fold: int | None, folds: int | None) -> Path:
    """The folder of the other run's model for this fold: that of the same fold, or its only model.

    Raises BadRun for another number of folds.
    """
    info, _, folders = open_run(run, pretrained=True)
    if info["folds"] in (None, folds):
        return folders[(fold or 0) if info["folds"] else 0][0]
    message = f"{run} has {info['folds']} folds, this training {folds or 'none'}"
    raise BadRun(message, f"use --folds {info['folds']}, or train it again without")


def check_rows(folder: Path, ids: Mapping[str, str], corpus: str) -> None:
    """Raise BadRun where the other run's model was trained on test utterances of this corpus (id -> part)."""
    info, table = io.read_json(folder / run_files.INFO), io.read_table(folder / run_files.SPLIT)
    if info["corpus"]["name"] != corpus:
        return
    trained = table["id"][table["split"] == "train"]
    crossed = [i for i in trained if ids.get(i) == "test"]
    if crossed:
        message = f"{folder} was trained on {len(crossed)} utterances that are tested here, such as '{crossed[0]}'"
        raise BadRun(message, "train it with the same --folds, split and corpus")


def start(model: Model, folder: Path) -> Started:
    """Give the model the weights of every part that the other run's model has too: same tensors, same shapes.

    Heads are taken over for a task of the same labels only, and not from a run without labels. Raises BadRun where no
    encoder, fusion or context is the same.
    """
    info, described = io.read_json(folder / run_files.INFO), upgraded(io.read_json(folder / run_files.DESCRIPTION))
    theirs, own = _by_part(io.read_tensors(folder / run_files.WEIGHTS)), _by_part(model.state_dict())
    found = Started(unused=[part for part in theirs if part not in own])
    for part, tensors in own.items():
        why = _why_not(part, tensors, theirs.get(part), model, described, bool(info.get("pretrained")))
        if why:
            found.fresh[part] = why
        else:
            found.matched[part] = len(tensors)
    if not any(not _is_head(part) for part in found.matched):
        reasons = "; ".join(f"{part}: {why}" for part, why in found.fresh.items())
        message = f"nothing of {folder} fits this model ({reasons})"
        raise BadRun(message, "give init a run of the same streams, encoders and fusion")
    model.load_state_dict({k: v for part in found.matched for k, v in theirs[part].items()}, strict=False)
    model.fitted = {part.removeprefix("encoders.") for part in found.matched if part.startswith("encoders.")}
    return found


def _by_part(tensors: Mapping[str, Tensor]) -> dict[str, Tensors]:
    """Tensors by part: an encoder, a context, the fusion, a task's head."""
    found: dict[str, Tensors] = {}
    for key, value in tensors.items():
        first, second, *_ = key.split(".")
        found.setdefault(first if first == "fusion" else f"{first}.{second}", {})[key] = value
    return found


def _is_head(part: str) -> bool:
    return part.startswith(("heads.", "stream_heads."))


def _why_not(
    part: str, own: Tensors, theirs: Tensors | None, model: Model, described: Mapping[str, Any], pretrained: bool
) -> str:
    """Why a part cannot be taken over; empty where it can."""
    if theirs is None:
        return "not there"
    if _is_head(part):
        labels = {name: list(task.space.labels) for name, task in model.tasks.items()}
        there = {name: list(task["space"]["labels"]) for name, task in described["tasks"].items()}
        if pretrained or any(labels[name] != there.get(name) for name in labels):
            return "trained without labels" if pretrained else "other labels"
    missing = own.keys() ^ theirs.keys()
    if missing:
        return f"{len(missing)} of {len(own.keys() | theirs.keys())} tensors on one side only"
    other = [key for key, value in own.items() if value.shape != theirs[key].shape]
    if not other:
        return ""
    key = other[0]
    return f"{len(other)} of {len(own)} tensors of another shape, such as {key}: {list(theirs[key].shape)} there"
