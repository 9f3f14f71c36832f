"""Models as files: a description in JSON and the weights, read without the code for training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from affuse.core import io, run_files
from affuse.core.errors import BadConfig, BadRun
from affuse.core.tasks import Task, read_space
from affuse.core.types import StreamSpec
from affuse.models.build import Architecture
from affuse.models.model import Model


def describe(model: Model) -> dict[str, Any]:
    """What `load_model` needs in addition to the weights: parts, streams, tasks, as JSON values."""
    return {
        "parts": model.parts.to_dict(),
        "streams": [vars(s) | {"shape": list(s.shape)} for s in model.streams],
        "tasks": {name: task.to_dict() for name, task in model.tasks.items()},
    }


def upgraded(described: Mapping[str, Any]) -> dict[str, Any]:
    """A description in the current form; older ones have label spaces for tasks, and finer classes among the parts."""
    if "tasks" in described:
        return dict(described)
    rest = {k: v for k, v in described.items() if k != "spaces"}
    finer = described["parts"].get("refined", {})
    tasks = {
        name: Task(name, read_space(space), finer=tuple(finer.get(name, ()))).to_dict()
        for name, space in described["spaces"].items()
    }
    return {**rest, "parts": {k: v for k, v in described["parts"].items() if k != "refined"}, "tasks": tasks}


def load_model(described: Mapping[str, Any], weights: Path | str | Mapping[str, Tensor]) -> Model:
    """A model from its description (`describe`) and a safetensors file, or its tensors, in eval mode.

    Raises BadRun when the weights do not belong to the description.
    """
    config = upgraded(described)
    streams = [StreamSpec(**{**s, "shape": tuple(s["shape"])}) for s in config["streams"]]
    tasks = {name: Task.from_dict(name, values) for name, values in config["tasks"].items()}
    model = Model(Architecture.from_dict(config["parts"]), streams, tasks)
    try:
        model.load_state_dict(weights if isinstance(weights, Mapping) else io.read_tensors(weights))
    except RuntimeError as error:
        name = "its state" if isinstance(weights, Mapping) else weights
        raise BadRun(f"{name} does not fit its configuration: {error}", "train the run again") from error
    return model.eval()


def start_encoder(model: Model, stream: str, folder: Path) -> None:
    """Start a stream's encoder from the encoder of the same modality in a run or fold; BadConfig where they differ."""
    described = io.read_json(folder / run_files.DESCRIPTION)
    modality = model.modality[stream]
    donors = [s["name"] for s in described["streams"] if s["modality"] == modality]
    if not donors:
        raise BadConfig(f"{folder} has no encoder for {modality}", f"give streams.{stream}.init a run that has one")
    prefix = f"encoders.{donors[0]}."
    tensors = io.read_tensors(folder / run_files.WEIGHTS)
    own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    try:
        model.encoders[stream].load_state_dict(own)
    except RuntimeError as error:
        remedy = f"give streams.{stream}.encoder the options of {described['parts']['streams'][donors[0]]}"
        raise BadConfig(f"the encoder of {folder} does not fit stream '{stream}': {error}", remedy) from error
