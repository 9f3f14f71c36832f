"""A queue of runs: every setting with every arm and seed, each in its run folder, and a ledger of how they ended."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from affuse.core import config, io, registry, run_files
from affuse.core.config import Recipe, load_recipe
from affuse.core.errors import AffuseError, BadConfig, UnknownName
from affuse.core.processes import CRASH, spread
from affuse.core.seed import set_threads
from affuse.core.tasks import selected
from affuse.core.types import Modality
from affuse.corpora.manifest import Corpus, make_splits
from affuse.evaluation.protocol import evaluate
from affuse.stores.store import FeatureStore
from affuse.training import binding
from affuse.training import train as training

LEDGER = "ledger.jsonl"


@dataclass
class Arm:
    """One way to train: overrides of the setting's recipe (a bare list in the file) or of its own.

    `note`: for the page. `only`: the modalities that it is trained on (empty: all). `pretrain`: overrides of the stage
    without labels that comes before (as `affuse pretrain` does it), [] for the recipe's own; null for none. Arms with
    the same stage share its runs.
    """

    overrides: list[str] = field(default_factory=list)
    recipe: str = ""
    only: list[Modality] = field(default_factory=list)
    pretrain: list[str] | None = None
    note: str = ""


@dataclass
class Setting:
    """What the arms are tried on; `overrides` come before the arm's. No `arms`: all; no `seeds`: the suite's number.

    `utterances`: arms that answer per frame are scored by their answers per utterance. `corpus` and a recipe given as
    a file are relative to the working folder, like paths on the command line.
    """

    recipe: str
    corpus: Path
    folds: int | None = None
    overrides: list[str] = field(default_factory=list)
    arms: list[str] = field(default_factory=list)
    seeds: int | None = None
    utterances: bool = False
    note: str = ""


@dataclass
class Suite:
    """A suite file: the arms are paired against `baselines` by the first of `metrics`; seeds are 0 .. `seeds` - 1."""

    name: str
    arms: dict[str, Arm]
    settings: dict[str, Setting]
    baselines: list[str]
    metrics: list[str] = field(default_factory=lambda: ["uar", "accuracy", "macro_f1"])
    seeds: int = 5
    note: str = ""

    def arms_of(self, setting: str) -> list[str]:
        """Names of a setting's arms, in the suite's order."""
        return [a for a in self.arms if a in (self.settings[setting].arms or self.arms)]


@dataclass(frozen=True)
class Before:
    """The stage without labels of a run, which other runs may share."""

    recipe: Recipe
    folder: Path


@dataclass(frozen=True)
class Job:
    """One run of the queue; `config` is the digest of all that it depends on; `before` the run that it starts from."""

    setting: str
    arm: str
    seed: int
    recipe: Recipe
    name: str
    corpus: Path
    folds: int | None
    folder: Path
    config: str
    before: Before | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        """(setting, arm, seed)."""
        return self.setting, self.arm, self.seed


def load_suite(path: Path) -> Suite:
    """A suite from its YAML file. Raises UnknownName (closest keys, arms, metrics), BadConfig or MissingFile."""
    data = config.read_yaml(path, "suite")
    arms = data.get("arms")
    if isinstance(arms, dict):
        data["arms"] = {name: {"overrides": arm} if isinstance(arm, list) else arm for name, arm in arms.items()}
    suite: Suite = config.fill(Suite, data)
    named = {f"settings.{s}.arms": setting.arms for s, setting in suite.settings.items()}
    named["baselines"] = suite.baselines
    for where, names in named.items():
        for name in names:
            if name not in suite.arms:
                raise UnknownName.among(f"arm in {where}:", name, suite.arms)
    for name in suite.metrics:
        if name not in registry.cards("metrics"):
            raise UnknownName.among("metric", name, registry.cards("metrics"))
    for count in (suite.seeds, *(s.seeds for s in suite.settings.values() if s.seeds is not None)):
        if count < 1:
            raise BadConfig(f"{path}: seeds = {count}", "give a number of seeds from 1 on")
    if not (suite.arms and suite.settings and suite.baselines and suite.metrics):
        raise BadConfig(f"{path} has no arms, settings, baselines or metrics", "give at least one of each")
    return suite


def plan(suite: Suite, out: Path, only: Sequence[str] = ()) -> list[Job]:
    """The queue: seeds outermost, arms interleaved, so that a part of it is a fair table.

    `only`: SETTING/ARM, or SETTING, with * for any; all where empty. All recipes are checked. Raises UnknownName for an
    `only` that fits nothing.
    """
    pairs = [(s, a) for s in suite.settings for a in suite.arms_of(s)]
    for pattern in only:
        if not any(_fits(pair, pattern) for pair in pairs):
            raise UnknownName.among("SETTING/ARM", pattern, ["/".join(p) for p in pairs])
    chosen = [p for p in pairs if not only or any(_fits(p, pattern) for pattern in only)]
    corpora = {s: Corpus.open(suite.settings[s].corpus) for s, _ in chosen}
    found = [job for pair in chosen for job in _jobs(suite, *pair, corpora[pair[0]], out)]
    return sorted(found, key=lambda job: job.seed)


def _fits(pair: tuple[str, str], pattern: str) -> bool:
    return fnmatch("/".join(pair), pattern) or fnmatch(pair[0], pattern)


def _jobs(suite: Suite, name: str, arm: str, corpus: Corpus, out: Path) -> Iterator[Job]:
    """The seeds of one arm."""
    setting = suite.settings[name]
    source = suite.arms[arm].recipe or setting.recipe
    try:
        loaded = load_recipe(source, [*setting.overrides, *suite.arms[arm].overrides])
    except AffuseError as error:
        raise type(error)(f"{name}/{arm}: {error.message}", error.remedy) from error
    recipe = binding.bind(loaded, corpus, suite.arms[arm].only)
    binding.check(recipe, corpus, setting.folds)
    task = selected(binding.tasks_of(recipe, corpus), recipe.train.task)
    for metric in suite.metrics:
        if metric not in task.metrics():
            message = f"{name}/{arm}: {metric} is no metric for a task of {task.kind}"
            raise BadConfig(message, f"choose among {', '.join(task.metrics())}")
    stores = {s: corpus.store_path(s) for s in recipe.streams}
    made = {s: FeatureStore(path).hash for s, path in stores.items() if (path / "card.json").is_file()}
    starts = training.init_hashes(recipe)
    stage = _stage(suite.arms[arm], setting, source, corpus)
    for seed in range(setting.seeds or suite.seeds):
        own = replace(recipe, train=replace(recipe.train, seed=seed))
        values = [own.to_dict(), corpus.hash, made, setting.folds, *([starts] if starts else [])]
        before = None
        if stage is not None:
            seeded = replace(stage, train=replace(stage.train, seed=seed))
            made_before = io.digest([seeded.to_dict(), corpus.hash, setting.folds])
            before = Before(seeded, (out / "before" / io.digest([made_before, made])[:12]).resolve())
            values.append(made_before)
            own = replace(own, init=str(before.folder))
        folder, digest = out / name / arm / f"seed{seed}", io.digest(values)
        yield Job(name, arm, seed, own, Path(source).stem, corpus.path, setting.folds, folder, digest, before)


def _stage(arm: Arm, setting: Setting, source: str, corpus: Corpus) -> Recipe | None:
    """The recipe of an arm's stage without labels, bound to the corpus; None where it has none."""
    if arm.pretrain is None:
        return None
    loaded = config.pretraining(load_recipe(source, [*setting.overrides, *arm.overrides, *arm.pretrain]))
    bound = binding.bind(loaded, corpus, arm.only)
    binding.check(bound, corpus, setting.folds, labelled=False)
    return bound


def outcomes(jobs: Sequence[Job], out: Path) -> list[dict[str, Any]]:
    """Per job its last line in the ledger, or {"status": "open"}: no line with today's configuration, or no scores."""
    last = {(row["setting"], row["arm"], row["seed"]): row for row in io.read_jsonl(out / LEDGER)}

    def of(job: Job) -> dict[str, Any]:
        row = last.get(job.key, {})
        there = row.get("status") == "failed" or (job.folder / run_files.PREDICTIONS).is_file()
        return row if row.get("config") == job.config and there else {"status": "open"}

    return [of(job) for job in jobs]


def conduct(
    jobs: Sequence[Job],
    out: Path,
    workers: int = 1,
    device: str = "cpu",
    threads: int | None = None,
    report: Callable[[dict[str, Any], int], None] = lambda row, total: None,
) -> list[dict[str, Any]]:
    """Train and score what is not done yet, in this process or in `workers` > 1; the new lines of the ledger.

    Each run is one line of `ledger.jsonl`, and `report` is called with it and the number of runs; one that fails is a
    line too, and the others go on.
    """
    with io.exclusive(out, "another affuse bench writes there"):
        todo = [job for job, row in zip(jobs, outcomes(jobs, out), strict=True) if row["status"] != "done"]
        for job in {(job.setting, job.arm): job for job in todo}.values():
            training.record_attempt(Corpus.open(job.corpus), job.name, job.recipe, job.folds)
        first = list({job.before.folder: job for job in todo if job.before}.values())
        if workers > 1:
            for _ in spread(partial(prepare, device=device), first, workers, set_threads, (threads or 1,)):
                pass  # one that fails is told by the runs that start from it
        work = partial(perform, device=device)
        one_by_one = ((job, work(job)) for job in todo)
        ended = spread(work, todo, workers, set_threads, (threads or 1,)) if workers > 1 else one_by_one
        rows = []
        for job, row in ended:
            rows.append(row or _line(job, 0.0, {"status": "failed", "error": CRASH}))
            io.append_jsonl(out / LEDGER, rows[-1])
            report(rows[-1], len(todo))
    return rows


def prepare(job: Job, device: str = "cpu") -> None:
    """Train the stage that a run starts from, if it is not there yet."""
    if job.before is not None:
        corpus = Corpus.open(job.corpus)
        name = f"pretrain-{job.name}"
        training.train(job.before.recipe, name, corpus, job.before.folder, job.folds, device, labelled=False)


def perform(job: Job, device: str = "cpu") -> dict[str, Any]:
    """Train and evaluate one run, as `affuse train` and `affuse evaluate --missing each` do; its line of the ledger."""
    started = time.perf_counter()
    end: dict[str, Any] = {"status": "done"}
    try:
        corpus = Corpus.open(job.corpus)
        prepare(job, device)
        training.train(job.recipe, job.name, corpus, job.folder, job.folds, device)
        if not (job.folder / run_files.PREDICTIONS).is_file():
            evaluate(job.folder, corpus, missing="each", device=device)
    except AffuseError as error:
        end = {"status": "failed", "error": str(error)}
    except Exception as error:  # noqa: BLE001 whatever breaks in one arm is a line in the ledger, and the others go on
        end = {"status": "failed", "error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    return _line(job, time.perf_counter() - started, end)


def _line(job: Job, seconds: float, end: dict[str, Any]) -> dict[str, Any]:
    where = {"setting": job.setting, "arm": job.arm, "seed": job.seed, "config": job.config}
    return where | {"seconds": round(seconds, 1), **end}


def expected_items(job: Job) -> set[str]:
    """Ids of all labelled items that a job's test split holds, over all of its folds."""
    corpus = Corpus.open(job.corpus)
    how, task = job.recipe.split, selected(binding.tasks_of(job.recipe, corpus), job.recipe.train.task)
    splits = make_splits(corpus.table, how.group_by, how.valid, how.test, job.folds, how.seed)
    tested = sum((split == "test").astype(int) for split in splits) > 0
    known = binding.labelled_rows(corpus, job.recipe.tasks[task.name], task)
    return set(corpus.table["id"][tested & known])
