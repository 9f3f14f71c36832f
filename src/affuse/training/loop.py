"""The one training loop: seeded, resumable, the same on one process or many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from affuse.balance.balancer import Control, Epoch, Step
from affuse.core import io, registry, run_files
from affuse.core.config import Recipe
from affuse.core.errors import BadConfig, BadFeatures
from affuse.core.parts import Computed
from affuse.core.seed import seed_all
from affuse.core.tasks import selected
from affuse.core.types import Batch
from affuse.models.model import Model
from affuse.models.predict import predict
from affuse.training import checkpoint, distributed
from affuse.training.augment import augment, modality_dropout
from affuse.training.balancing import encode_split, make_balancer
from affuse.training.checkpoint import Progress, TrainState
from affuse.training.data import Dataset, ahead
from affuse.training.losses import Losses
from affuse.training.optim import make_optimizer, make_schedule
from affuse.training.sampling import BUCKETS, FRAME_BUCKETS, conversation_batches, epoch_batches, share
from affuse.training.step import Piece, shared_weights
from affuse.training.teacher import Teacher
from affuse.training.unfreezing import Unfreezing
from affuse.training.validation import Validation, validate

Report = Callable[[dict[str, Any]], None]
Pieces = list[Batch]


class Trainer:
    """Trains one model on one split: build it, then `run()`; what it needs to go on lies in the run folder."""

    def __init__(
        self,
        model: Model,
        losses: Losses,
        train: Dataset,
        valid: Dataset | None,
        recipe: Recipe,
        folder: Path,
        device: torch.device,
        report: Report = lambda row: None,
    ) -> None:
        self.train, self.valid, self.recipe, self.folder, self.report = train, valid, recipe, folder, report
        self.device, self.config = device, recipe.train
        self.rank, self.world = distributed.start(str(device))
        self.task = selected(model.tasks, recipe.train.task)
        self.model = model.to(device)
        if device.type == "cuda" and self.world > 1:
            self.model = cast("Model", nn.SyncBatchNorm.convert_sync_batchnorm(self.model))
        self.losses = losses.to(device)
        self.balancer = make_balancer(recipe, train, model).to(device)
        self.modalities = [s.modality for s in model.streams]
        self.lengths = train.lengths
        self.labels = _known_labels(train, self.task.name) if self.config.sampling == "balanced" else None
        self.conversation = train.conversation if model.conversational else None
        if model.conversational and recipe.augment.mixup > 0:
            raise BadConfig(
                "augment.mixup mixes utterances of different conversations", "set augment.mixup=0 with a context"
            )
        self.batches = len(self._epoch(0))
        steps = self.config.epochs * self.batches * self.balancer.turns
        auxiliary = nn.ModuleDict({"objectives": self.losses, "balancer": self.balancer})
        optimizer = make_optimizer(self.model, auxiliary, recipe)
        self.teacher = (
            Teacher(self.model, self.config.ema, self.config.ema_schedule, steps, self.losses.averaged)
            if self.config.ema > 0
            else None
        )
        schedule = make_schedule(optimizer, recipe.optim, steps)
        self.unfreezing = Unfreezing(self.model, self.config.unfreeze, self.config.epochs)
        self.state = TrainState(self.model, auxiliary, optimizer, schedule, self.teacher)
        self.counts: dict[str, Tensor | float] = {}
        self.amp = self.config.amp == "on" or (self.config.amp == "auto" and device.type == "cuda")

    @property
    def progress(self) -> Progress:
        """Where the run stands."""
        return self.state.progress

    @property
    def scored(self) -> Model:
        """The model that is scored and kept: the trained one, or its moving average."""
        return self.teacher.model if self.teacher is not None and self.config.ema_keeps else self.model

    def run(self) -> Progress:
        """Train to the end (from the last checkpoint where there is one); the model holds the kept weights."""
        self._resume()
        if self.progress.epoch == 0:
            fit_normalisation(self.model, self.train, self.device)
            torch.manual_seed(self.config.seed + self.rank)  # other noise on other processes, the same start
        while self.progress.epoch < self.config.epochs and not self.progress.stopped:
            started = time.perf_counter()
            loss, terms, traces = self._train_epoch()
            found = distributed.gather(self._validate(), self.world)[
                0
            ]  # one for all: statistics may differ between processes
            self.progress.epoch += 1
            self._keep_best(found)  # first: what was scored, before the balancer may change encoders
            epoch = Epoch(
                self.progress.epoch - 1, self.config.epochs, dict(self.model.encoders.items()), self._encoded_split
            )
            self.balancer.epoch_end(epoch)
            self.progress.seconds += time.perf_counter() - started
            row = {"loss": loss, "terms": terms, "valid": found.scores, "seconds": time.perf_counter() - started}
            more = {"valid_terms": found.terms, "balance": traces, "counts": self._counted()}
            self._record(row | {k: v for k, v in more.items() if v})
        if self.state.best is not None:
            self.model.load_state_dict(self.state.best)
        self.model.eval()
        return self.progress

    # ---- an epoch ----------------------------------------------------------------------------------------------

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        if self.conversation is not None:
            return conversation_batches(self.conversation, self.config.batch_size, self.config.seed, epoch, self.labels)
        buckets = FRAME_BUCKETS if self.task.per_frame else BUCKETS
        return epoch_batches(self.lengths, self.config.batch_size, self.config.seed, epoch, self.labels, buckets)

    def _train_epoch(self) -> tuple[float, dict[str, float], dict[str, float]]:
        """One pass over the training split; the mean loss per item, its terms, and the means of what the balancer
        traced.

        The terms add up to the loss: a step without one has 0 of it.
        """
        self.unfreezing.start(self.progress.epoch + 1)
        self.counts = {}
        self._draw_pseudo_labels()
        self.model.train()
        losses, parts, traces = [], [], []
        batches = self._epoch(self.progress.epoch)
        for step, pieces in enumerate(self._read(batches), start=1):
            for turn in range(self.balancer.turns):
                loss, terms, trace = self._step(pieces, step - 1, turn)
                losses.append(loss)
                parts.append(terms)
                traces.append(trace)
            self.report({"epoch": self.progress.epoch + 1, "step": step, "steps": len(batches)})
        terms = {k: sum(t.get(k, 0.0) for t in parts) / len(parts) for k in dict.fromkeys(k for t in parts for k in t)}
        means = {k: float(np.mean([t[k] for t in traces if k in t])) for k in sorted({k for t in traces for k in t})}
        return float(np.mean(losses)), terms, means

    def _draw_pseudo_labels(self) -> None:
        """Give utterances without a label the class that the kept model is sure enough of, for this epoch."""
        sure = self.config.pseudo_labels
        if not sure or self.progress.epoch + 1 < self.config.pseudo_from:
            return
        name = self.task.name
        without = replace(self.train, pseudo={})
        predicted = distributed.gather(predict(self.scored, without, self.device)[name], self.world)[0]
        open_rows = ~without.labels(name)[1].numpy()
        given = np.where(open_rows & (predicted.max(1) >= sure), predicted.argmax(1), -1)
        self.train = replace(without, pseudo={name: given})
        self._count("pseudo_labels", float((given >= 0).sum()) / self.world)
        self._count("pseudo_labels.unlabelled", float(open_rows.sum()) / self.world)

    def _read(self, batches: list[np.ndarray]) -> Iterator[Pieces]:
        """This process' pieces of every effective batch; the next ones are read while the current ones are computed."""
        return ahead(self._pieces, batches)

    def _pieces(self, rows: np.ndarray) -> Pieces:
        """The pieces of an effective batch, as many as every other process has: norms sum over processes in each."""
        parts = share(rows, self.rank, self.world, self.config.accumulate, self.conversation)
        found = [self.train.batch(part) if len(part) else without_content(self.train.batch(rows[:1])) for part in parts]
        return [batch.pinned() for batch in found] if self.device.type == "cuda" else found

    # ---- a step ------------------------------------------------------------------------------------------------

    def _step(self, read: Pieces, number: int, turn: int = 0) -> tuple[float, dict[str, float], dict[str, float]]:
        """One optimiser step on an effective batch, run in pieces whose loss is divided by the whole batch's weight."""
        pieces = [augment(batch.to(self.device), self.recipe.augment, self.train.tasks) for batch in read]
        weight = self.losses.total_weight(pieces, self.device, lambda x: distributed.total(x, self.world))
        self.state.optimizer.zero_grad(set_to_none=True)
        loss, terms = torch.zeros((), device=self.device), dict[str, Tensor]()
        for piece in pieces:
            part, named = self._piece(piece, weight, number, turn)
            loss += part
            terms |= {k: v + terms.get(k, 0.0) for k, v in named.items()}
        distributed.sum_gradients(chain(self.model.parameters(), self.state.auxiliary.parameters()), self.world)
        values = distributed.total(torch.stack([loss, *terms.values()]), self.world).tolist()
        if not np.isfinite(values[0]):
            raise BadFeatures(
                f"the loss is {values[0]} in epoch {self.progress.epoch + 1}",
                "lower optim.lr; check the features for NaN",
            )
        trace = self._update(turn)
        return values[0], dict(zip(terms, values[1:], strict=True)), trace

    def _piece(
        self, batch: Batch, weight: dict[str, Tensor], number: int, turn: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Forward and backward of one piece; its share of the effective batch's loss, and of the loss' terms."""
        with torch.autocast(self.device.type, torch.bfloat16) if self.amp else nullcontext():
            encoded = self.model.encode(batch)
            encoded = modality_dropout(encoded, self.modalities, self.recipe.augment.modality_dropout)
            computed = Computed(self.model, encoded, self._taught(batch), **self._place(number))
            piece = Piece(self.model, self.losses, self.train.tasks[self.task.name], encoded, batch, weight, computed)
            step = piece.step(self.progress.epoch, self.config.epochs, turn)
            loss = self.balancer.loss(step)
        self.balancer.backward(loss, step)
        return loss.detach(), step.terms

    def _taught(self, batch: Batch) -> Any:
        """What the teacher makes of the batch, where an objective asks for it."""
        return self.teacher.taught(batch) if self.teacher is not None and "teacher" in self.losses.needs else None

    def _place(self, number: int) -> dict[str, Any]:
        """Step and epoch, random numbers of the step's own, and rows of all processes."""
        step, generator = self.progress.epoch * self.batches + number, torch.Generator()
        seed = np.random.SeedSequence([self.config.seed, step, self.rank]).generate_state(1)[0]
        generator.manual_seed(int(seed))

        def gather(rows: Tensor) -> Tensor:
            return distributed.gather_rows(rows, self.world)

        place = {"generator": generator, "step": step, "steps": self.config.epochs * self.batches}
        return place | {"epoch": self.progress.epoch, "gather": gather, "count": self._count}

    def _count(self, what: str, number: Tensor | float) -> None:
        """Add to a number of the epoch's row."""
        self.counts[what] = self.counts.get(what, 0.0) + (number.detach() if isinstance(number, Tensor) else number)

    def _counted(self) -> dict[str, float]:
        """What was counted in the epoch, over all processes."""
        mine = {what: float(number) for what, number in self.counts.items()}
        every = distributed.gather(mine, self.world)
        return {what: sum(each.get(what, 0.0) for each in every) for what in sorted(set().union(*every))}

    def _update(self, turn: int) -> dict[str, float]:
        """The optimiser's step with the balancer's hooks around it, then the teacher's; what the balancer traced."""
        control = self._control(turn)
        self.balancer.gradients(control)
        if self.recipe.optim.clip > 0:  # what a balancer trains of its own must not shorten the model's step
            for module in (nn.ModuleList([self.model, self.losses]), self.balancer):
                if trained := list(module.parameters()):
                    nn.utils.clip_grad_norm_(trained, self.recipe.optim.clip)
        self.state.optimizer.step()
        self.balancer.stepped(control)
        self.losses.stepped()
        control.restore()
        self.state.schedule.step()
        if self.teacher is not None:
            self.teacher.update()
        return control.trace

    def _control(self, turn: int) -> Control:
        parameters = {s: [p for p in e.parameters() if p.requires_grad] for s, e in self.model.encoders.items()}
        return Control(
            parameters, self.state.optimizer, self.balancer.acts(self.recipe.balance.options["apply"]),
            lambda x: distributed.total(x, self.world), self.progress.epoch, self.config.epochs, turn,
            shared_weights(self.model),
        )  # fmt: skip

    # ---- after an epoch ----------------------------------------------------------------------------------------

    def _encoded_split(self, split: str) -> Step | None:
        """All of `train` or `valid` after the encoders, labelled as for training."""
        data = {"train": self.train, "valid": self.valid}[split]
        return (
            None
            if data is None
            else encode_split(self.model, self.losses, self.task.name, self._refined(data), self.device)
        )

    def _refined(self, data: Dataset) -> Dataset:
        """The rows labelled as for training: by finer classes where the recipe says so."""
        for name, task in self.recipe.tasks.items():
            if task.refine and data is self.valid:
                data = data.refined(name, task.refine, self.train.tasks[name].space)
        return data

    def _validate(self) -> Validation:
        """Scores and terms on the selection split with the weights that would be kept; none without that split."""
        if self.valid is None:
            return Validation()
        metric = self.config.selection or self.task.default_metric
        return validate(
            self.scored, self.losses, self.valid, self._refined(self.valid), self.task.name, metric, self.device
        )

    def _keep_best(self, found: Validation) -> None:
        """Remember the weights of the best epoch, and stop when none was better for `patience` epochs."""
        name, now = self.config.selection or self.task.default_metric, self.progress
        sign = 1 if registry.cards("metrics")[name]["better"] == "higher" else -1
        better = bool(found.scores) and sign * found.scores[name] > now.best_score
        if better:
            now.best_score, now.best_epoch = sign * found.scores[name], now.epoch
        if better or self.config.keep == "last":
            now.thresholds = found.thresholds
            self.state.best = {k: v.detach().clone() for k, v in self.scored.state_dict().items()}
        now.scores = found.scores
        now.stopped = 0 < self.config.patience <= now.epoch - now.best_epoch

    def _record(self, row: dict[str, Any]) -> None:
        """metrics.jsonl, then the checkpoint; only the first process writes."""
        row = {"epoch": self.progress.epoch, "lr": self.state.schedule.get_last_lr()[0], **row}
        randomness = distributed.gather(checkpoint.random_state(self.device), self.world)
        if self.rank == 0:
            io.append_jsonl(self.folder / run_files.METRICS, row)
            self.state.save(self.folder, randomness)
        self.report(row)

    def _resume(self) -> None:
        """Continue from the checkpoint; lines of metrics.jsonl that are newer than it are taken back.

        Exact with as many processes as wrote it; with another number, each draws numbers of its own from there on.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        randomness = self.state.load(self.folder)
        lines = io.read_jsonl(self.folder / run_files.METRICS) if self.rank == 0 else []
        if randomness is not None and len(randomness) == self.world:
            checkpoint.restore_random_state(randomness[self.rank], self.device)
        elif randomness is not None:
            seeds = np.random.SeedSequence([self.config.seed, self.progress.epoch, self.rank])
            seed_all(int(seeds.generate_state(1)[0]))
        kept = [line for line in lines if line["epoch"] <= self.progress.epoch]
        if len(kept) != len(lines):
            (self.folder / run_files.METRICS).unlink()
            for line in kept:
                io.append_jsonl(self.folder / run_files.METRICS, line)


def _known_labels(train: Dataset, task: str) -> np.ndarray:
    """Class numbers [N] of a task, -1 where there is none."""
    target, known = train.labels(task)
    return np.where(known.numpy(), target.numpy(), -1)


def without_content(batch: Batch) -> Batch:
    """The batch with no stream and no label: its loss is 0, and it goes through the same steps as any other."""
    unknown = {task: torch.zeros_like(known) for task, known in batch.target_mask.items()}
    return replace(batch.without({s.name for s in batch.streams}), target_mask=unknown)


def fit_normalisation(model: Model, train: Dataset, device: torch.device) -> None:
    """Fit every encoder's normalisation on the training split; each reads its own stream only."""
    model.eval()
    for spec in model.streams:
        model.fit(spec.name, ((x.to(device), mask.to(device)) for x, mask in train.inputs(spec.name, 32)))
