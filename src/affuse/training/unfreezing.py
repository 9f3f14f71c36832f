"""Gradual unfreezing: parameters, chosen by name, that stay as they are until an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import nn

from affuse.core.errors import BadConfig


class Unfreezing:
    """Which parameters of a model train in which epoch.

    `stages`: pattern of parameter names, `*` for anything, -> the first epoch (from 1) that trains them; where several
    patterns fit a name the earliest epoch counts. What is frozen for good stays so. BadConfig for a pattern that fits
    no parameter, or an epoch that never comes.
    """

    def __init__(self, model: nn.Module, stages: Mapping[str, int], epochs: int) -> None:
        self.model = model
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.first: dict[str, int] = {}
        for pattern, epoch in stages.items():
            found = [name for name in trained if fnmatchcase(name, pattern)]
            if not found:
                raise BadConfig(
                    f"train.unfreeze: no trained parameter is called {pattern!r}",
                    f"names look like {', '.join(list(trained)[:3])}; * stands for anything",
                )
            if not 1 < epoch <= epochs:
                raise BadConfig(
                    f"train.unfreeze: epoch {epoch} of {pattern!r} is not one from 2 to {epochs}",
                    "the first epoch is 1; for parameters that are never trained set frozen in the stream",
                )
            self.first |= {name: min(epoch, self.first.get(name, epoch)) for name in found}

    def start(self, epoch: int) -> None:
        """Let epoch number `epoch` (from 1) train what is due; other chosen parameters get no gradient."""
        for name, p in self.model.named_parameters():
            if name in self.first:
                p.requires_grad_(epoch >= self.first[name])
