"""Checkpoints: everything a run needs to go on exactly, as safetensors + JSON (no pickle)."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from affuse.core import io, run_files
from affuse.core.errors import BadRun
from affuse.models.model import Model
from affuse.training.teacher import Teacher


@dataclass
class Progress:
    """Where a run stands after an epoch; thresholds: those of the best epoch, by multi-label task."""

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = float("-inf")
    seconds: float = 0.0
    stopped: bool = False
    scores: dict[str, float] = field(default_factory=dict)
    thresholds: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class TrainState:
    """All that changes while a model is trained; it saves and loads itself.

    auxiliary: the objectives and the balancer, with what they train; best: the weights that are kept so far.
    """

    model: Model
    auxiliary: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Any
    teacher: Teacher | None = None
    progress: Progress = field(default_factory=Progress)
    best: dict[str, Tensor] | None = None

    def save(self, run: Path, randomness: list[dict[str, Any]]) -> None:
        """Write the state after an epoch in one atomic file; randomness: the `random_state` of every process."""
        tensors = _named("model", self.model.state_dict()) | _named("auxiliary", self.auxiliary.state_dict())
        state = self.optimizer.state_dict()
        for i, slots in state["state"].items():
            tensors |= {f"optim.{i}.{k}": torch.as_tensor(v) for k, v in slots.items()}
        if self.teacher is not None:
            tensors |= _named("teacher", self.teacher.state_dict())
        if self.best is not None:
            tensors |= _named("best", self.best)
        meta = {
            "progress": asdict(self.progress),
            "groups": [{k: v for k, v in g.items() if k != "params"} for g in state["param_groups"]],
            "schedule": self.schedule.state_dict(),
            "teacher_steps": self.teacher.steps if self.teacher else 0,
            "random": randomness,
        }
        io.write_tensors(run / run_files.CHECKPOINT, tensors, {"meta": json.dumps(meta)})

    def load(self, run: Path) -> list[dict[str, Any]] | None:
        """Restore what `save` wrote; the randomness of every process, or None where there is no checkpoint.

        Raises BadRun for the checkpoint of another model, or of an affuse that wrote it otherwise.
        """
        path = run / run_files.CHECKPOINT
        if not path.exists():
            return None
        from safetensors import safe_open

        tensors = io.read_tensors(path)
        with safe_open(path, framework="pt") as file:
            meta = json.loads(file.metadata()["meta"])
        remedy = "choose another --out or delete the run"
        try:
            self.model.load_state_dict(_under("model", tensors))
            self.auxiliary.load_state_dict(_under("auxiliary", tensors))
            if self.teacher is not None:
                self.teacher.load(_under("teacher", tensors), meta["teacher_steps"])
        except (RuntimeError, KeyError) as error:
            message = f"{path} belongs to another model, or to another version of affuse: {error}"
            raise BadRun(message, remedy) from error
        self._load_optimizer(tensors, meta["groups"])
        self.schedule.load_state_dict(meta["schedule"])
        self.best = _under("best", tensors) or None
        self.progress = Progress(**meta["progress"])
        randomness: list[dict[str, Any]] = meta["random"]
        return randomness

    def _load_optimizer(self, tensors: dict[str, Tensor], written: list[dict[str, Any]]) -> None:
        state = self.optimizer.state_dict()
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in _under("optim", tensors).items():
            index, name = key.split(".", 1)
            slots.setdefault(int(index), {})[name] = value
        groups = [old | new for old, new in zip(state["param_groups"], written, strict=True)]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})


def random_state(device: torch.device) -> dict[str, Any]:
    """Where this process' generators stand, as JSON values."""
    kind, words, *rest = np.random.get_state(legacy=True)
    generators = {"python": random.getstate(), "numpy": [kind, np.asarray(words).tolist(), *rest]}
    state: dict[str, Any] = generators | {"torch": torch.get_rng_state().tolist()}
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
