"""Checkpoints: everything a run needs to go on exactly, as safetensors + JSON (no pickle)."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from affuse.core import io
from affuse.core.errors import BadRun
from affuse.training.optim import Average

NAME = "checkpoint.safetensors"


def save(
    run: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Any,
    average: Average | None,
    beside: nn.Module,
    progress: dict[str, Any],
    best: dict[str, Tensor] | None,
    randomness: list[dict[str, Any]],
) -> None:
    """Write the state after an epoch in one atomic file; randomness: the `random_state` of every process."""
    tensors = _named("model", model.state_dict()) | _named("beside", beside.state_dict())
    state = optimizer.state_dict()
    for i, slots in state["state"].items():
        tensors |= {f"optim.{i}.{k}": torch.as_tensor(v) for k, v in slots.items()}
    if average is not None:
        tensors |= _named("average", average.state)
    if best is not None:
        tensors |= _named("best", best)
    meta = {
        "progress": progress,
        "groups": [{k: v for k, v in g.items() if k != "params"} for g in state["param_groups"]],
        "schedule": schedule.state_dict(),
        "average_steps": average.steps if average else 0,
        "random": randomness,
    }
    io.write_tensors(run / NAME, tensors, {"meta": json.dumps(meta)})


def load(
    run: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Any,
    average: Average | None,
    beside: nn.Module,
) -> tuple[dict[str, Any], dict[str, Tensor] | None, list[dict[str, Any]]] | None:
    """Restore what `save` wrote; returns (progress, best weights, randomness), or None where there is no checkpoint."""
    path = run / NAME
    if not path.exists():
        return None
    from safetensors import safe_open

    tensors = io.read_tensors(path)
    with safe_open(path, framework="pt") as file:
        meta = json.loads(file.metadata()["meta"])
    try:
        model.load_state_dict(_under("model", tensors))
        beside.load_state_dict(_under("beside", tensors))
    except RuntimeError as error:
        raise BadRun(f"{path} belongs to another model: {error}", "choose another --out or delete the run") from error
    state = optimizer.state_dict()
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in _under("optim", tensors).items():
        index, name = key.split(".", 1)
        slots.setdefault(int(index), {})[name] = value
    groups = [old | new for old, new in zip(state["param_groups"], meta["groups"], strict=True)]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    schedule.load_state_dict(meta["schedule"])
    if average is not None:
        average.state = {k: v.to(average.state[k].device) for k, v in _under("average", tensors).items()}
        average.steps = meta["average_steps"]
    best = _under("best", tensors)
    return meta["progress"], best or None, meta.get("random", [])


def random_state(device: torch.device) -> dict[str, Any]:
    """Where this process' generators stand, as JSON values."""
    kind, words, *rest = np.random.get_state(legacy=True)
    state = {"python": random.getstate(), "numpy": [kind, np.asarray(words).tolist(), *rest], "torch": torch.get_rng_state().tolist()}
    return state | ({"cuda": torch.cuda.get_rng_state(device).tolist()} if device.type == "cuda" else {})


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put this process' generators back to a `random_state`."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(torch.tensor(state["cuda"], dtype=torch.uint8), device)


def _named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{k}": v for k, v in tensors.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = len(prefix) + 1
    return {k[start:]: v for k, v in tensors.items() if k.startswith(f"{prefix}.")}
