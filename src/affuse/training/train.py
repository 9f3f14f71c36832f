"""What `affuse train` does: the models of every fold and member, into a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affuse.core import io, registry, run_files
from affuse.core.config import Recipe
from affuse.core.parts import Part
from affuse.core.seed import seed_all
from affuse.core.tasks import Task, selected
from affuse.corpora.manifest import Corpus, groups_of
from affuse.models.build import Architecture
from affuse.models.model import Model
from affuse.models.saved import start_encoder
from affuse.stores.store import FeatureStore
from affuse.training import distributed, run_folder, start
from affuse.training.binding import check, dataset, standardised, tasks_of, training_set, typical_seconds
from affuse.training.checkpoint import Progress
from affuse.training.data import Dataset
from affuse.training.loop import Report, Trainer
from affuse.training.losses import Losses, make_losses
from affuse.training.run_folder import model_folders, open_run


def train(
    recipe: Recipe,
    name: str,
    corpus: Corpus,
    out: Path,
    folds: int | None = None,
    device: str = "cpu",
    report: Report = lambda row: None,
    labelled: bool = True,
) -> Path:
    """Train `recipe` (bound to the corpus) into the run folder `out`; goes on where it was interrupted.

    `labelled`: off for a recipe whose objectives need no labels; its run can start others, and answers nothing. Raises
    what `check` raises, and BadRun when `out` holds another run or recipe.init one that does not fit. Returns `out`.
    """
    splits = check(recipe, corpus, folds, labelled)
    info = describe_run(recipe, name, corpus, splits, folds)
    info |= {} if labelled else {"pretrained": True}
    info["typical_seconds"] = typical_seconds(corpus, recipe)
    if distributed.is_first():
        run_folder.claim(out, recipe, info)
    for k, split in enumerate(splits):
        own = {**info, "fold": k if folds else None}
        for member, folder in enumerate(model_folders(out, recipe, k if folds else None)):
            if not (folder / run_files.WEIGHTS).is_file():
                _OneModel(recipe, corpus, split, folder, own, member).train(torch.device(device), report)
                distributed.wait(distributed.start(device)[1])  # a specialist reads what the first process has written
    if distributed.is_first():
        _sum_up(out, recipe, folds)
    return out


def _sum_up(out: Path, recipe: Recipe, folds: int | None) -> None:
    """What the run as a whole took, in its run.json."""
    folders = [f for k in (range(folds) if folds else [None]) for f in model_folders(out, recipe, k)]
    parts = [io.read_json(f / run_files.INFO) for f in folders]
    total: dict[str, Any] = {"train_seconds": round(sum(p["train_seconds"] for p in parts), 1), "complete": True}
    total |= {"parameters": parts[0]["parameters"] * recipe.train.models, "n": parts[0]["n"] if not folds else None}
    run_folder.write_info(out, total)


def describe_run(
    recipe: Recipe, name: str, corpus: Corpus, splits: list[np.ndarray], folds: int | None
) -> dict[str, Any]:
    """Everything of run.json that is known before training."""
    stores = {s: FeatureStore(corpus.store_path(s)) for s in recipe.streams}
    tasks = tasks_of(recipe, corpus)
    lead = selected(tasks, recipe.train.task)
    about = {k: corpus.info.get(k) for k in ("synthetic", "note", "licence", "partial")}
    held_out = "valid" if recipe.split.valid > 0 else None
    metric = recipe.train.selection or lead.default_metric
    return {
        "format": run_files.FORMAT,
        "recipe": name,
        "corpus": {"name": corpus.name, "path": str(corpus.path), "hash": corpus.hash} | about,
        "task": {"name": lead.name, "labels": list(lead.space.labels)},
        "tasks": {name: _shown(task, recipe) for name, task in tasks.items()},
        "streams": {s: store.spec.modality for s, store in stores.items()},
        "store_hashes": {s: store.hash for s, store in stores.items()},
        "standardised_by": standardised(recipe),
        "init_hashes": init_hashes(recipe),
        "seed": recipe.train.seed,
        "folds": folds,
        "group_by": recipe.split.group_by,
        "split_hash": io.digest([s.tolist() for s in splits] + corpus.table["id"].tolist()),
        "selection": {"split": held_out, "task": lead.name, "metric": metric, "keep": recipe.train.keep},
        "configurations_tried": configurations_tried(corpus, name, folds),
        "test_openings": 0,
        "versions": run_folder.versions(),
    }


def _shown(task: Task, recipe: Recipe) -> dict[str, Any]:
    """What run.json says of a task."""
    source = recipe.tasks[task.name]
    labelled = {"track": source.track} if source.track else {"column": source.column}
    return {"kind": task.kind, "resolution": task.resolution, "labels": list(task.space.labels), **labelled}


def init_hashes(recipe: Recipe) -> dict[str, str]:
    """Stream -> SHA-256 of the weights that its encoder starts from, of those that start from a run.

    Under the empty name: the digest of all models of the run that the whole recipe starts from.
    """
    found = {
        s: io.file_sha256(open_run(Path(c.init), pretrained=True)[2][0][0] / run_files.WEIGHTS)
        for s, c in recipe.streams.items()
        if c.init
    }
    if recipe.init:
        folders = open_run(Path(recipe.init), pretrained=True)[2]
        found[""] = io.digest([io.file_sha256(members[0] / run_files.WEIGHTS) for members in folders])
    return found


def record_attempt(corpus: Corpus, name: str, recipe: Recipe, folds: int | None) -> None:
    """Count configurations tried on this corpus: one line per distinct recipe (seeds apart) in attempts.jsonl."""
    values = recipe.to_dict()
    values["train"] = {k: v for k, v in values["train"].items() if k != "seed"}
    row = {"recipe": name, "config": io.digest(values), "folds": folds}
    path = corpus.path / "attempts.jsonl"
    if row not in io.read_jsonl(path):
        io.append_jsonl(path, row)


def configurations_tried(corpus: Corpus, name: str, folds: int | None) -> int:
    """Distinct configurations of this recipe trained on this corpus so far (seeds do not count); at least 1."""
    rows = io.read_jsonl(corpus.path / "attempts.jsonl")
    return max(1, sum(row["recipe"] == name and row["folds"] == folds for row in rows))


@dataclass(frozen=True)
class _OneModel:
    """One member of one fold: what it is trained on, and where it goes."""

    recipe: Recipe
    corpus: Corpus
    split: np.ndarray
    folder: Path
    info: dict[str, Any]
    member: int

    def train(self, device: torch.device, report: Report) -> None:
        """Train, and write model.safetensors, model.json, split.parquet, run.json."""
        recipe = replace(
            self.recipe, train=replace(self.recipe.train, seed=self.recipe.train.seed + 1000 * self.member)
        )
        specialist = self.member >= recipe.train.members
        recipe = specialised(recipe) if specialist else recipe
        seed_all(recipe.train.seed)
        tasks = tasks_of(recipe, self.corpus)
        train_set, tasks = training_set(self.corpus, recipe, tasks, self.split == "train")
        more = {"labelled": int(train_set.labelled().sum())}
        window, hop = recipe.train.window, recipe.train.hop
        train_set = train_set.windowed(window, hop)
        coarse = {name: replace(task, finer=()) for name, task in tasks.items()}
        held_out = recipe.split.valid > 0 and not self.info.get("pretrained")
        valid = dataset(self.corpus, recipe, coarse, self.split == "valid") if held_out else None
        valid = valid.windowed(window, hop, scored=True) if valid is not None else None
        model, losses = make_model(recipe, train_set, tasks, not self.info.get("pretrained"))
        seen = {"fold": self.info["fold"], "member": self.member}
        told: Report = lambda row: report({**row, **seen})  # noqa: E731
        more |= self._start(model, told)
        if specialist:
            model.load_state_dict(io.read_tensors(self.folder.with_name("member0") / run_files.WEIGHTS))
        trainer = Trainer(model, losses, train_set, valid, recipe, self.folder, device, told)
        progress = trainer.run()
        if not trainer.rank:
            self._write(recipe, model, coarse, progress, device, more)

    def _start(self, model: Model, report: Report) -> dict[str, Any]:
        """Take over what fits of the run that the recipe starts from; what run.json says of it."""
        if not self.recipe.init:
            return {}
        folder = start.folder_of(Path(self.recipe.init), self.info["fold"], self.info["folds"])
        parts = dict(zip(self.corpus.table["id"], self.split, strict=True))
        start.check_rows(folder, parts, self.corpus.name)
        found = start.start(model, folder)
        report({"note": f"{folder}: {found}"})
        return {"init": {"run": str(folder), **vars(found)}}

    def _write(
        self,
        recipe: Recipe,
        model: Model,
        tasks: Mapping[str, Task],
        progress: Progress,
        device: torch.device,
        more: Mapping[str, Any],
    ) -> None:
        for name, thresholds in progress.thresholds.items():
            model.tasks[name] = replace(model.tasks[name], thresholds=tuple(thresholds))
        groups, split = groups_of(self.corpus.table, recipe.split.group_by), self.split
        train_set = dataset(self.corpus, recipe, tasks, split == "train")
        run_folder.write_info(
            self.folder,
            self.info
            | {
                "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
                "train_seconds": round(progress.seconds, 1),
                **_kept(recipe, progress, selected(tasks, recipe.train.task)),
                "n": {s: int((split == s).sum()) for s in ("train", "valid", "test")},
                "groups": {s: sorted(set(groups[split == s])) for s in ("valid", "test")},
                "baselines": {name: tasks[name].baseline(*train_set.labels(name)) for name in tasks},
                "device": str(device),
                **more,
                "complete": True,
            },
        )
        streams = recipe.to_dict()["streams"]
        described = {
            "extractors": {n: s["extractor"] for n, s in streams.items()},
            "grids": {n: s["how"] for n, s in streams.items() if s["rate"]},
            "standardised_by": standardised(recipe),
            "lead": selected(tasks, recipe.train.task).name,
        }
        table = self.corpus.table[["id", "source", "speaker"]].assign(split=split)
        run_folder.write_model(self.folder, model, described, table)


def make_model(
    recipe: Recipe, train_set: Dataset, tasks: Mapping[str, Task], labelled: bool = True
) -> tuple[Model, Losses]:
    """The model of a recipe and the terms of its loss, which may ask for heads of single streams."""
    losses = make_losses(recipe, train_set, labelled)
    model = Model(architecture(recipe, losses), train_set.specs, tasks)
    for name, stream in recipe.streams.items():
        if stream.init:
            start_encoder(model, name, open_run(Path(stream.init), pretrained=True)[2][0][0])
        if stream.frozen:
            model.freeze(name)
    losses.setup(model)
    return model, losses


def architecture(recipe: Recipe, losses: Losses) -> Architecture:
    """The recipe's parts of the model."""
    streams = {name: stream.encoder for name, stream in recipe.streams.items()}
    return Architecture(streams, recipe.fusion, tuple(recipe.context), "unimodal" in losses.needs)


def specialised(recipe: Recipe) -> Recipe:
    """The recipe of the second stage: rare classes drawn as often as others, at a lower rate.

    Whole conversations can only lean that way, so that there the loss is weighted by rarity too.
    """
    weights = {"class_weights": "balanced" if recipe.context else "none"}
    balanced = {
        name: replace(o, part=Part(o.part.name, o.part.options | weights)) if "class_weights" in o.part.options else o
        for name, o in recipe.objectives.items()
    }
    train = replace(recipe.train, sampling="balanced")
    optim = replace(recipe.optim, lr=recipe.optim.lr * recipe.train.specialist_lr)
    return replace(recipe, objectives=balanced, train=train, optim=optim)


def _kept(recipe: Recipe, progress: Progress, task: Task) -> dict[str, Any]:
    """Which epoch's weights were kept, and their score on the held-out groups (None: nothing was held out)."""
    name = recipe.train.selection or task.default_metric
    if recipe.train.keep == "last":
        return {"best_epoch": progress.epoch, "best_score": progress.scores.get(name)}
    sign = 1 if registry.cards("metrics")[name]["better"] == "higher" else -1
    return {"best_epoch": progress.best_epoch, "best_score": sign * progress.best_score}
