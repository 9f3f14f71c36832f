"""The one training loop: seeded, resumable, the same on one process or many."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from affuse.balance.balancer import Control, Epoch, Step
from affuse.core import io, registry
from affuse.core.config import Recipe
from affuse.core.errors import BadConfig, BadCorpus, BadFeatures
from affuse.core.seed import seed_all
from affuse.core.types import Batch
from affuse.metrics import fitting, value
from affuse.models.model import Model
from affuse.models.predict import predict
from affuse.training import checkpoint, distributed
from affuse.training.augment import augment, modality_dropout
from affuse.training.balancing import make_balancer, make_step, see, shared_weights
from affuse.training.data import Dataset
from affuse.training.optim import Average, make_optimizer, make_schedule
from affuse.training.sampling import conversation_batches, epoch_batches, share

Report = Callable[[dict[str, Any]], None]


@dataclass
class Progress:
    """Where a run stands after an epoch."""

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = float("-inf")
    seconds: float = 0.0
    stopped: bool = False
    scores: dict[str, float] = field(default_factory=dict)


class Trainer:
    """Trains one model on one split: build it, then `run()`; what it needs to go on lies in the run folder."""

    def __init__(
        self,
        model: Model,
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
        self.model = model.to(device)
        if device.type == "cuda" and self.world > 1:
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)  # type: ignore[assignment]
        self.objectives = make_objectives(recipe, train, model).to(device)
        self.balancer = make_balancer(recipe, train, model).to(device)
        self.beside = nn.ModuleDict({"objectives": self.objectives, "balancer": self.balancer})
        self.modalities = [s.modality for s in model.streams]
        self.lengths = stream_lengths(train)
        self.labels = _known_labels(train) if self.config.sampling == "balanced" else None
        self.conversation = train.conversation if model.conversational else None
        if model.conversational and recipe.augment.mixup > 0:
            raise BadConfig("augment.mixup mixes utterances of different conversations", "set augment.mixup=0 with a context")
        self.steps = self.config.epochs * len(self._epoch(0)) * self.balancer.turns
        self.optimizer = make_optimizer(self.model, self.beside, recipe)
        self.schedule = make_schedule(self.optimizer, recipe.optim, self.steps)
        self.average = Average(self.model, self.config.ema) if self.config.ema > 0 else None
        self.amp = self.config.amp == "on" or (self.config.amp == "auto" and device.type == "cuda")
        self.progress = Progress()
        self.best: dict[str, Tensor] | None = None

    def run(self) -> Progress:
        """Train to the end (from the last checkpoint where there is one); the model holds the kept weights."""
        self._resume()
        if self.progress.epoch == 0:
            fit_normalisation(self.model, self.train, self.device)
            torch.manual_seed(self.config.seed + self.rank)  # other noise on other processes, the same start
        while self.progress.epoch < self.config.epochs and not self.progress.stopped:
            started = time.perf_counter()
            loss, terms, traces = self._train_epoch()
            scores = distributed.gather(self._validate(), self.world)[0]  # one verdict: statistics may differ between processes
            self.progress.epoch += 1
            self._keep_best(scores)  # first: what was scored, before the balancer may change encoders
            self.balancer.epoch_end(Epoch(self.progress.epoch - 1, self.config.epochs, self.model.encoders, self._seen))  # type: ignore[arg-type]
            self.progress.seconds += time.perf_counter() - started
            balance = {"balance": traces} if traces else {}
            self._record({"loss": loss, "terms": terms, "valid": scores, "seconds": time.perf_counter() - started} | balance)
        if self.best is not None:
            self.model.load_state_dict(self.best)
        self.model.eval()
        return self.progress

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        if self.conversation is not None:
            return conversation_batches(self.conversation, self.config.batch_size, self.config.seed, epoch, self.labels)
        return epoch_batches(self.lengths, self.config.batch_size, self.config.seed, epoch, self.labels)

    def _train_epoch(self) -> tuple[float, dict[str, float], dict[str, float]]:
        """One pass over the training split; the mean loss per item, its terms, and the means of what the balancer traced.

        The terms add up to the loss: a step without one has 0 of it.
        """
        self.model.train()
        losses, parts, traces = [], [], []
        batches = self._epoch(self.progress.epoch)
        for step, rows in enumerate(batches, start=1):
            for turn in range(self.balancer.turns):
                loss, terms, trace = self._step(rows, turn)
                losses.append(loss)
                parts.append(terms)
                traces.append(trace)
            self.report({"epoch": self.progress.epoch + 1, "step": step, "steps": len(batches)})
        terms = {k: sum(t.get(k, 0.0) for t in parts) / len(parts) for k in dict.fromkeys(k for t in parts for k in t)}
        means = {k: float(np.mean([t[k] for t in traces if k in t])) for k in sorted({k for t in traces for k in t})}
        return float(np.mean(losses)), terms, means

    def _step(self, rows: np.ndarray, turn: int = 0) -> tuple[float, dict[str, float], dict[str, float]]:
        """One optimiser step on an effective batch, run in pieces whose loss is divided by the whole batch's weight."""
        pieces = self._pieces(rows)
        weight = total_weight(self.objectives, pieces, self.device, self.world)
        self.optimizer.zero_grad(set_to_none=True)
        loss, terms = torch.zeros((), device=self.device), dict[str, Tensor]()
        for piece in pieces:
            part, named = self._piece(piece, weight, turn)
            loss += part
            terms |= {k: v + terms.get(k, 0.0) for k, v in named.items()}
        parameters = list(self.model.parameters()) + list(self.beside.parameters())
        distributed.sum_gradients(parameters, self.world)
        values = distributed.total(torch.stack([loss, *terms.values()]), self.world).tolist()
        if not np.isfinite(values[0]):
            raise BadFeatures(f"the loss is {values[0]} in epoch {self.progress.epoch + 1}", "lower optim.lr; check the features for NaN")
        control = self._control(turn)
        self.balancer.gradients(control)
        if self.recipe.optim.clip > 0:  # what a balancer trains of its own must not shorten the model's step
            for module in (nn.ModuleList([self.model, self.objectives]), self.balancer):
                if trained := list(module.parameters()):
                    nn.utils.clip_grad_norm_(trained, self.recipe.optim.clip)
        self.optimizer.step()
        self.balancer.stepped(control)
        control.restore()
        self.schedule.step()
        if self.average is not None:
            self.average.update(self.model)
        return values[0], dict(zip(terms, values[1:], strict=True)), control.trace

    def _pieces(self, rows: np.ndarray) -> list[Batch]:
        """This process' pieces of an effective batch, as many as every other has: norms sum over processes in each."""
        classes = {task: len(space) for task, space in self.train.spaces.items()}
        parts = share(rows, self.rank, self.world, self.config.accumulate, self.conversation)
        batches = [self.train.batch(part) if len(part) else without_content(self.train.batch(rows[:1])) for part in parts]
        return [augment(batch.to(self.device), self.recipe.augment, classes) for batch in batches]

    def _control(self, turn: int) -> Control:
        parameters = {s: [p for p in e.parameters() if p.requires_grad] for s, e in self.model.encoders.items()}
        return Control(
            parameters, self.optimizer, self.balancer.acts(self.recipe.balance["apply"]), lambda x: distributed.total(x, self.world),
            self.progress.epoch, self.config.epochs, turn, shared_weights(self.model),
        )  # fmt: skip

    def _piece(self, batch: Batch, weight: dict[str, Tensor], turn: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Forward and backward of one piece; its share of the effective batch's loss, and of the loss' terms."""
        with torch.autocast(self.device.type, torch.bfloat16) if self.amp else nullcontext():
            encoded = self.model.encode(batch)
            encoded = modality_dropout(encoded, self.modalities, self.recipe.augment.modality_dropout)
            step = make_step(self.model, self.objectives, self.recipe, encoded, batch, weight)
            step = replace(step, epoch=self.progress.epoch, epochs=self.config.epochs, turn=turn)
            step = step.with_features(self.balancer.features(step))
            loss = self.balancer.loss(step)
        self.balancer.backward(loss, step)
        return loss.detach(), step.terms

    def _seen(self, split: str) -> Step | None:
        """All of `train` or `valid` after the encoders, labelled as for training."""
        data = {"train": self.train, "valid": self.valid}[split]
        if data is None:
            return None
        for name, task in self.recipe.tasks.items():
            if task.refine and split == "valid":
                data = data.refined(name, task.refine, self.train.spaces[name])
        return see(self.model, self.objectives, self.recipe, data, self.device)

    def _validate(self) -> dict[str, float]:
        """Selection scores with the weights that would be kept; none without a selection split."""
        if self.valid is None:
            return {}
        own = {k: v.clone() for k, v in self.model.state_dict().items()} if self.average else None
        if self.average is not None:
            self.model.load_state_dict(self.average.state)
        task = next(iter(self.model.spaces))
        target, known = self.valid.labels(task)
        predicted = predict(self.model, self.valid, self.device)[task]
        scores = score(self.config.selection, target[known].numpy(), predicted[known.numpy()], self.model, task)
        if own is not None:
            self.model.load_state_dict(own)
        return scores

    def _keep_best(self, scores: dict[str, float]) -> None:
        """Remember the weights of the best epoch, and stop when none was better for `patience` epochs."""
        name, now = self.config.selection, self.progress
        sign = 1 if registry.cards("metrics")[name]["better"] == "higher" else -1
        better = bool(scores) and sign * scores[name] > now.best_score
        if better:
            now.best_score, now.best_epoch = sign * scores[name], now.epoch
        if better or self.config.keep == "last":
            state = self.average.state if self.average is not None else self.model.state_dict()
            self.best = {k: v.detach().clone() for k, v in state.items()}
        now.scores = scores
        now.stopped = 0 < self.config.patience <= now.epoch - now.best_epoch

    def _record(self, row: dict[str, Any]) -> None:
        """metrics.jsonl, then the checkpoint; only the first process writes."""
        row = {"epoch": self.progress.epoch, "lr": self.schedule.get_last_lr()[0], **row}
        randomness = distributed.gather(checkpoint.random_state(self.device), self.world)
        if self.rank == 0:
            io.append_jsonl(self.folder / "metrics.jsonl", row)
            checkpoint.save(
                self.folder, self.model, self.optimizer, self.schedule, self.average, self.beside,
                asdict(self.progress), self.best, randomness,
            )  # fmt: skip
        self.report(row)

    def _resume(self) -> None:
        """Continue from the checkpoint; lines of metrics.jsonl that are newer than it are taken back.

        Exact with as many processes as wrote it; with another number, each draws numbers of its own from there on.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        found = checkpoint.load(self.folder, self.model, self.optimizer, self.schedule, self.average, self.beside)
        lines = io.read_jsonl(self.folder / "metrics.jsonl") if self.rank == 0 else []
        if found is not None:
            self.progress, self.best, randomness = Progress(**found[0]), *found[1:]
            if len(randomness) == self.world:
                checkpoint.restore_random_state(randomness[self.rank], self.device)
            else:
                seeds = np.random.SeedSequence([self.config.seed, self.progress.epoch, self.rank])
                seed_all(int(seeds.generate_state(1)[0]))
        kept = [line for line in lines if line["epoch"] <= self.progress.epoch]
        if len(kept) != len(lines):
            (self.folder / "metrics.jsonl").unlink()
            for line in kept:
                io.append_jsonl(self.folder / "metrics.jsonl", line)


def _known_labels(train: Dataset) -> np.ndarray:
    """Class numbers [N] of the first task, -1 where there is none."""
    target, known = train.labels(next(iter(train.columns)))
    return np.where(known.numpy(), target.numpy(), -1)


def make_objectives(recipe: Recipe, train: Dataset, model: Model) -> nn.ModuleDict:
    """The recipe's objectives, their class weights fitted on the training labels; misfits are refused."""
    made = {}
    for name, options in recipe.objectives.items():
        task = options.get("task", "emotion")
        if task not in model.spaces:
            raise BadConfig(f"objective '{name}' is for task '{task}'", f"the recipe's tasks are {', '.join(model.spaces)}")
        space = train.spaces[task]
        if space.kind not in registry.cards("objectives")[name]["tasks"]:
            fitting = [n for n, card in registry.cards("objectives").items() if space.kind in card["tasks"]]
            raise BadConfig(f"objective '{name}' is not for {space.kind}", f"choose one of {', '.join(fitting)}, such as 'objectives={{{fitting[0]}: {{}}}}'")
        objective = registry.build("objectives", name, len(space), **{k: v for k, v in options.items() if k != "weight"})
        target, known = train.labels(task)
        if not known.any():
            raise BadCorpus(f"no training utterance is labelled for '{task}'", f"name its column as tasks.{task}.column, or import the labels")
        if hasattr(objective, "fit"):
            objective.fit(target[known])
        made[name] = objective
    return nn.ModuleDict(made)


def without_content(batch: Batch) -> Batch:
    """The batch with no stream and no label: its loss is 0, and it goes through the same steps as any other."""
    unknown = {task: torch.zeros_like(known) for task, known in batch.target_mask.items()}
    return replace(batch.without({s.name for s in batch.streams}), target_mask=unknown)


def total_weight(
    objectives: nn.ModuleDict, pieces: list[Batch], device: torch.device, world: int
) -> dict[str, Tensor]:
    """Sum of the items' weights per objective over all pieces of all processes; at least a tiny number."""
    sums = {}
    for name, objective in objectives.items():
        mine = sum((objective.weights(b).sum() for b in pieces), torch.zeros((), device=device))  # type: ignore[operator]
        sums[name] = distributed.total(mine, world).clamp_min(1e-12)
    return sums


def fit_normalisation(model: Model, train: Dataset, device: torch.device) -> None:
    """Fit every encoder's normalisation on the training split."""
    model.eval()
    for spec in model.streams:
        model.fit(spec.name, ((b.x[spec.name], b.mask[spec.name]) for b in (b.to(device) for b in train.batches(32))))


def stream_lengths(dataset: Dataset) -> np.ndarray:
    """Longest stream of every utterance in steps, to bucket batches by length. [N]"""
    ids = dataset.table["id"].tolist()
    return np.max([[store.length(i) for i in ids] for store in dataset.stores.values()], axis=0)


def score(selection: str, truth: np.ndarray, predicted: np.ndarray, model: Model, task: str) -> dict[str, float]:
    """The selection metric and accuracy (or MAE) of predictions on the selection split."""
    kind = model.spaces[task].kind
    if selection not in fitting(model.spaces[task]):
        raise BadConfig(f"train.selection = '{selection}' does not fit a task of {kind}", f"choose one of {', '.join(fitting(model.spaces[task]))}")
    names = dict.fromkeys([selection, "accuracy" if kind == "classes" else "mae"])
    return {n: value(n, truth, predicted) for n in names}
