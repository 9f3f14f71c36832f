"""The terms of the loss: objectives under names of one's own, each for a task and with a weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from affuse.core import registry
from affuse.core.config import ObjectiveConfig, Recipe
from affuse.core.errors import BadConfig, BadCorpus
from affuse.core.parts import Computed, Objective, Pairs, needs
from affuse.core.tasks import Task, selected
from affuse.core.types import Batch, Output
from affuse.training.data import Dataset


class Losses(nn.ModuleDict):
    """A recipe's objectives by name; parameters, buffers and queues are in its state."""

    def __init__(self, chosen: Mapping[str, ObjectiveConfig], tasks: Mapping[str, Task]) -> None:
        self.chosen = dict(chosen)
        super().__init__({name: _make(name, config, tasks) for name, config in chosen.items()})

    def parts(self) -> dict[str, Objective]:
        """The objectives by name."""
        return cast("dict[str, Objective]", dict(self.items()))

    @property
    def needs(self) -> frozenset[str]:
        """What any of them reads: unimodal, tokens, teacher, views."""
        return frozenset().union(*(needs(part) for part in self.values()))

    @property
    def views(self) -> int:
        """How many times contexts and fusion run per batch."""
        return max((getattr(part, "views", 1) for part in self.values()), default=1)

    @property
    def coupled(self) -> list[str]:
        """Those whose loss of an item depends on the other items of the batch."""
        return [name for name, part in self.items() if getattr(part, "couples", False)]

    def fit(self, data: Dataset) -> None:
        """Give every objective the known training labels of its task. Raises BadCorpus where there are none."""
        for name, part in self.items():
            task = self.chosen[name].task
            target, known = data.labels(task)
            if not known.any() and not self.card(name).get("unlabelled"):
                what = f"no training utterance is labelled for '{task}'"
                raise BadCorpus(what, f"name its column as tasks.{task}.column, or import the labels")
            if hasattr(part, "fit"):
                cast("Callable[[Tensor], None]", part.fit)(target[known])

    def setup(self, model: nn.Module) -> None:
        """Make what depends on the model; its own random numbers stay as they are without it.

        Raises BadConfig where one reads what none before it leaves.
        """
        left: list[Any] = []
        with torch.random.fork_rng(devices=[]):
            for name, part in self.items():
                if hasattr(part, "setup"):
                    cast("Callable[[nn.Module], None]", part.setup)(model)
                reads = getattr(part, "reads", None)
                if reads is not None and reads not in left:
                    message = f"objective '{name}' reads the similarities of {' and '.join(reads)}, which none computes"
                    raise BadConfig(message, "put pair_contrastive of these streams before it")
                left.append(getattr(part, "leaves", None))

    @property
    def averaged(self) -> list[tuple[nn.Module, nn.Module]]:
        """(copy, module) of all copies that follow like the teacher."""
        return [pair for part in self.values() for pair in getattr(part, "averaged", ())]

    def stepped(self) -> None:
        """What objectives do after the optimiser's step, such as filling a queue."""
        for part in self.values():
            if hasattr(part, "stepped"):
                cast("Callable[[], None]", part.stepped)()

    def card(self, name: str) -> dict[str, object]:
        """The card of an objective's part."""
        return registry.cards("objectives")[self.chosen[name].part.name]

    def main(self, task: str) -> str:
        """The name of the first objective that trains the task on labels, else of the first one at all."""
        own = (name for name, config in self.chosen.items() if config.task == task)
        return next((name for name in own if not self.card(name).get("auxiliary")), next(iter(self.chosen)))

    def total_weight(
        self, pieces: Sequence[Batch], device: torch.device, total: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Sum of the items' weights by objective over all pieces of all processes; at least a tiny number."""
        sums = {}
        for name, part in self.parts().items():
            mine = sum((part.weights(batch).sum() for batch in pieces), torch.zeros((), device=device))
            sums[name] = total(mine).clamp_min(1e-12)
        return sums

    def terms(
        self,
        output: Output,
        batch: Batch,
        computed: Computed,
        weight: Mapping[str, Tensor],
        share: Tensor | float = 1.0,
    ) -> dict[str, Tensor]:
        """Each objective's part of the whole batch's loss; `share` [N] is a factor of every item's weight."""
        found: dict[str, Tensor] = {}
        pairs: dict[tuple[str, str], Pairs] = {}
        for name, part in self.parts().items():
            items = part.weights(batch)
            of = share if isinstance(share, float) or items.dim() == 1 else share.unsqueeze(1)
            own = replace(computed, pairs=pairs, count=_named(computed.count, name))
            loss = (part(output, batch, own) * items * of).sum()
            found[name] = self.chosen[name].weight * loss / weight[name]
        return found


def _named(count: Callable[[str, Tensor | float], None], name: str) -> Callable[[str, Tensor | float], None]:
    return lambda what, number: count(f"{name}.{what}", number)


def _make(name: str, config: ObjectiveConfig, tasks: Mapping[str, Task]) -> nn.Module:
    if not name or "." in name or hasattr(nn.ModuleDict, name):
        raise BadConfig(f"an objective cannot be named '{name}'", "name it otherwise: letters, digits, _ and -")
    task, card = tasks[config.task], registry.cards("objectives")[config.part.name]
    if task.kind not in card["tasks"]:
        fitting = [n for n, c in registry.cards("objectives").items() if task.kind in c["tasks"]]
        one = f"objectives.{name}={fitting[0]}" if fitting else "another kind of task"
        raise BadConfig(
            f"objective '{config.part.name}' is not for {task.kind}",
            f"choose one of {', '.join(fitting)}, such as '{one}'",
        )
    if task.resolution not in card.get("resolutions", (task.resolution,)):
        message = f"objective '{config.part.name}' is not for a task per {task.resolution} ('{task.name}')"
        raise BadConfig(
            message, f"set tasks.{task.name}.resolution={card['resolutions'][0]}, or choose another objective"
        )
    made: nn.Module = registry.build("objectives", config.part.name, task, **config.part.options)
    return made


def make_losses(recipe: Recipe, train: Dataset, labelled: bool = True) -> Losses:
    """The recipe's objectives, fitted on the training labels.

    Raises BadConfig where none trains the task that selects on labels (unless `labelled` is off), for an objective that
    does not fit its task, that asks for a teacher which the recipe lacks, or that compares the items of a batch which
    is run in parts, and for a queue longer than the training split.
    """
    losses = Losses(recipe.objectives, train.tasks)
    losses.fit(train)
    lead = selected(train.tasks, recipe.train.task).name
    main = losses.main(lead)
    if labelled and (losses.card(main).get("auxiliary") or losses.chosen[main].task != lead):
        raise BadConfig(f"no objective for task '{lead}'", "add one, such as objectives.cross_entropy")
    if "teacher" in losses.needs and recipe.train.ema <= 0:
        asking = next(name for name, part in losses.items() if "teacher" in needs(part))
        raise BadConfig(
            f"objective '{asking}' needs a teacher, and train.ema = 0", "give it a momentum: train.ema=0.995"
        )
    for name, part in losses.items():
        if (queue := getattr(part, "queue_size", 0)) > len(train):
            message = f"the queue of objective '{name}' holds {queue} utterances, of which training has {len(train)}"
            raise BadConfig(message, f"set objectives.{name}.queue={len(train) // 2}")
    if losses.coupled and recipe.train.accumulate > 1:
        what = f"objective '{losses.coupled[0]}' compares the items of a batch"
        message = f"{what}, which train.accumulate = {recipe.train.accumulate} divides"
        raise BadConfig(message, "set train.accumulate=1")
    return losses
