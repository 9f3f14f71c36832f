"""Run folders: what `affuse train` makes, one model or one per fold."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affuse.core import config, io, registry
from affuse.core.config import Recipe, StreamConfig, extractor_of
from affuse.core.errors import BadConfig, BadCorpus, BadRun, UnknownName
from affuse.core.labels import SPACES, LabelSpace, refine_space
from affuse.core.seed import seed_all
from affuse.corpora.manifest import Corpus, groups_of, make_splits
from affuse.models.model import Model, describe, load_model, start_encoder
from affuse.stores.collate import targets
from affuse.stores.groups import Standardised
from affuse.stores.store import FeatureStore, stated
from affuse.training import distributed
from affuse.training.data import Dataset, open_stores
from affuse.training.loop import Progress, Report, Trainer

FORMAT = 1
EXTRACTORS = "extractors"


def bind(recipe: Recipe, corpus: Corpus, only: Collection[str] = ()) -> Recipe:
    """The recipe for this corpus: `*` replaced by every store of vectors, label spaces filled in.

    `only` keeps the streams of these modalities (all where empty).
    """
    streams = dict(recipe.streams)
    wildcard = streams.pop("*", None)
    if wildcard is not None:
        vectors = [n for n in corpus.stores() if len(FeatureStore(corpus.store_path(n)).spec.shape) == 1]
        if not vectors:
            raise BadCorpus(f"{corpus.path} has no stores of vectors", "import some: affuse import features CORPUS NAME FILE.npz")
        streams |= {n: replace(wildcard, encoder=dict(wildcard.encoder), extractor=_made_by(corpus, n)) for n in vectors if n not in streams}
    if only:
        streams = {n: s for n, s in streams.items() if modality_of(n, corpus, s.extractor) in only}
        if not streams:
            raise BadConfig(f"no stream of the recipe is {' or '.join(only)}", f"its streams: {', '.join(recipe.streams)}")
    tasks = {name: replace(task, space=task.space or corpus.space.name) for name, task in recipe.tasks.items()}
    return replace(recipe, streams=streams, tasks=tasks)


def _made_by(corpus: Corpus, name: str) -> dict[str, Any]:
    """The extractor's options that a store was made with; none for imported features."""
    card = FeatureStore(corpus.store_path(name)).card
    if card["extractor"] not in registry.cards(EXTRACTORS):
        return {}
    return ({"name": card["extractor"]} if card["extractor"] != name else {}) | card["parameters"]


def modality_of(stream: str, corpus: Corpus, options: Mapping[str, Any]) -> str:
    """The modality of a stream: its store's, else its extractor's."""
    path = corpus.store_path(stream)
    if (path / "card.json").is_file():
        return FeatureStore(path).spec.modality
    card = registry.cards(EXTRACTORS).get(extractor_of(stream, options)[0])
    if card is None:
        raise UnknownName.among("stream", stream, [*corpus.stores(), *registry.cards(EXTRACTORS)])
    return str(card["modalities"][0])


def spaces_of(recipe: Recipe, corpus: Corpus) -> dict[str, LabelSpace]:
    """Task -> label space; "custom" is the corpus' own. UnknownName for others, BadConfig for a column that is not there."""
    known = {**SPACES, "custom": corpus.space}
    for name, task in recipe.tasks.items():
        if task.space not in known:
            raise UnknownName.among(f"value of tasks.{name}.space:", task.space, known)
        if task.column not in corpus.table:
            raise BadConfig(f"tasks.{name}.column = {task.column} is no column of {corpus.name}", f"its columns: {', '.join(corpus.table.columns)}")
    return {t: known[c.space] for t, c in recipe.tasks.items()}


def missing_stores(recipe: Recipe, corpus: Corpus) -> dict[str, dict[str, Any]]:
    """Extractor -> parameters of the streams that the corpus has not got completely."""
    missing = {}
    for name, stream in recipe.streams.items():
        path = corpus.store_path(name)
        kind = extractor_of(name, stream.extractor)[0]
        made = kind in registry.cards(EXTRACTORS)
        done = (path / "failures.json").is_file() or ((path / "card.json").is_file() and not made)
        if done:
            _check_parameters(name, stream, FeatureStore(path))
        elif made:
            missing[name] = stream.extractor
        else:
            raise BadConfig(
                f"stream '{name}' is neither an extractor nor a store of {corpus.path}",
                f"stores: {', '.join(corpus.stores()) or 'none'}; extractors: {', '.join(registry.cards(EXTRACTORS))}",
            )
    return missing


def _check_parameters(name: str, stream: StreamConfig, store: FeatureStore) -> None:
    kind, options = extractor_of(name, stream.extractor)
    there = (store.card["extractor"], store.card["parameters"])
    if kind in registry.cards(EXTRACTORS) and io.digest([kind, stated(kind, options)]) != io.digest(there):
        raise BadRun(f"store '{name}' was made by {there}, the recipe wants {kind} with {options}", f"delete {store.path}")


def check(recipe: Recipe, corpus: Corpus, folds: int | None = None) -> list[np.ndarray]:
    """The split of every fold [N], after all is checked that needs no features: options, label spaces, folds and groups.

    Raises BadConfig, BadCorpus or UnknownName.
    """
    spaces, how = spaces_of(recipe, corpus), recipe.split
    _check_options(recipe, next(iter(spaces.values())))
    known = {name: labelled_rows(corpus, task.column, spaces[name]) for name, task in recipe.tasks.items()}
    splits = make_splits(corpus.table, how.group_by, how.valid, how.test, folds, how.seed)
    first = next(iter(known))
    for part, what in {"train": "training", **({"valid": "selection"} if how.valid > 0 else {})}.items():
        if not all((known[first] & (split == part)).any() for split in splits):
            raise BadCorpus(f"no {what} utterance is labelled for '{first}'", f"name its column as tasks.{first}.column, or check the split column")
    return splits


def _check_options(recipe: Recipe, space: LabelSpace) -> None:
    if recipe.split.valid <= 0 and (recipe.train.keep != "last" or recipe.train.patience):
        raise BadConfig("split.valid = 0 leaves nothing to select an epoch on", "set train.keep=last train.patience=0")
    if recipe.train.members < 1 or recipe.train.specialists < 0:
        raise BadConfig(f"train.members = {recipe.train.members}, train.specialists = {recipe.train.specialists}", "give members >= 1, specialists >= 0")
    if min(steps := (recipe.train.epochs, recipe.train.batch_size, recipe.train.accumulate)) < 1:
        raise BadConfig("train.epochs = {}, batch_size = {}, accumulate = {}".format(*steps), "give 1 or more of each")
    if (recipe.train.specialists > 0 or recipe.train.sampling == "balanced") and space.kind != "classes":
        raise BadConfig("balanced sampling and specialists count classes, and the task is of values", "set train.sampling=natural train.specialists=0")


def labelled_rows(corpus: Corpus, column: str, space: LabelSpace) -> np.ndarray:
    """Which utterances [N] have a target in this column. Raises BadCorpus for one that the label space lacks."""
    dimensions = column == "label" and space.kind == "values" and set(space.labels) <= set(corpus.table)
    values = corpus.table[list(space.labels)].to_numpy(np.float32) if dimensions else corpus.table[column]
    return targets(values.tolist(), space)[1].numpy()


def train(
    recipe: Recipe,
    name: str,
    corpus: Corpus,
    out: Path,
    folds: int | None = None,
    device: str = "cpu",
    report: Report = lambda row: None,
) -> Path:
    """Train `recipe` (bound to the corpus) into the run folder `out`; goes on where it was interrupted.

    Raises what `check` raises, and BadRun when `out` holds another run. Returns `out`.
    """
    splits = check(recipe, corpus, folds)
    info = _describe_run(recipe, name, corpus, splits, folds)
    info["typical_seconds"] = typical_seconds(corpus, recipe)
    if distributed.is_first():
        _claim(out, recipe, info)
    for k, split in enumerate(splits):
        own = {**info, "fold": k if folds else None}
        for member, folder in enumerate(model_folders(out, recipe, k if folds else None)):
            if not (folder / "model.safetensors").is_file():
                _train_model(recipe, corpus, split, folder, own, member, torch.device(device), report)
                distributed.wait(distributed.start(device)[1])  # a specialist reads what the first process has written
    if distributed.is_first():
        _sum_up(out, recipe, folds)
    return out


def model_folders(out: Path, recipe: Recipe, fold: int | None) -> list[Path]:
    """Where the models of a fold are: the fold's folder, or one folder per member in it."""
    folder = out if fold is None else out / f"fold{fold}"
    count = recipe.train.models
    return [folder] if count == 1 else [folder / f"member{m}" for m in range(count)]


def _sum_up(out: Path, recipe: Recipe, folds: int | None) -> None:
    """What the run as a whole took, in its run.json."""
    folders = [f for k in (range(folds) if folds else [None]) for f in model_folders(out, recipe, k)]
    parts = [io.read_json(f / "run.json") for f in folders]
    total = {"train_seconds": round(sum(p["train_seconds"] for p in parts), 1), "complete": True}
    _write_run(out, total | {"parameters": parts[0]["parameters"] * recipe.train.models, "n": parts[0]["n"] if not folds else None})


def _describe_run(
    recipe: Recipe, name: str, corpus: Corpus, splits: list[np.ndarray], folds: int | None
) -> dict[str, Any]:
    """Everything of run.json that is known before training."""
    stores = {s: FeatureStore(corpus.store_path(s)) for s in recipe.streams}
    task = next(iter(recipe.tasks))
    return {
        "format": FORMAT,
        "recipe": name,
        "corpus": {"name": corpus.name, "path": str(corpus.path), "hash": corpus.hash}
        | {k: corpus.info.get(k) for k in ("synthetic", "note", "licence", "partial")},
        "task": {"name": task, "labels": list(spaces_of(recipe, corpus)[task].labels)},
        "streams": {s: store.spec.modality for s, store in stores.items()},
        "store_hashes": {s: store.hash for s, store in stores.items()},
        "standardised_by": standardised(recipe),
        "init_hashes": init_hashes(recipe),
        "seed": recipe.train.seed,
        "folds": folds,
        "group_by": recipe.split.group_by,
        "split_hash": io.digest([s.tolist() for s in splits] + corpus.table["id"].tolist()),
        "selection": {"split": "valid" if recipe.split.valid > 0 else None, "metric": recipe.train.selection, "keep": recipe.train.keep},
        "configurations_tried": configurations_tried(corpus, name, folds),
        "test_openings": 0,
        "versions": _versions(),
    }


def init_hashes(recipe: Recipe) -> dict[str, str]:
    """Stream -> SHA-256 of the weights that its encoder starts from, of those that start from a run."""
    return {s: io.file_sha256(open_run(Path(c.init))[2][0][0] / "model.safetensors") for s, c in recipe.streams.items() if c.init}


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


def typical_seconds(corpus: Corpus, recipe: Recipe) -> float | None:
    """Median length of an utterance in seconds, from its times or its timed streams; the window of `analyze`."""
    spans = (corpus.table["end"] - corpus.table["start"]).dropna()
    if len(spans):
        return float(spans.median())
    stores = (FeatureStore(corpus.store_path(s)) for s in recipe.streams)
    timed = [s for s in stores if s.spec.rate > 0]
    lengths = [s.length(i) / s.spec.rate for s in timed[:1] for i in s.ids if s.length(i)]
    return float(np.median(lengths)) if lengths else None


def _claim(out: Path, recipe: Recipe, info: Mapping[str, Any]) -> None:
    """Make the run folder, or check that it holds this very run; one in which nothing was trained yet makes way."""
    text = config.to_yaml(recipe)
    if (out / "corpus.json").is_file():
        raise BadRun(f"{out} is a corpus", "choose another --out")
    if (out / "config.yaml").is_file() and any(out.rglob("metrics.jsonl")):
        old = io.read_json(out / "run.json")
        kept = config.to_yaml(config.load_recipe(str(out / "config.yaml")))  # options that came later have their defaults
        differs = {"recipe": kept != text, "corpus": old["corpus"]["hash"] != info["corpus"]["hash"]}
        differs |= {k: old.get(k, info[k]) != info[k] for k in ("split_hash", "store_hashes", "init_hashes", "folds")}
        if any(differs.values()):
            what = ", ".join(k for k, other in differs.items() if other)
            raise BadRun(f"{out} holds another run (its {what} differs)", "choose another --out, or delete it")
        return
    out.mkdir(parents=True, exist_ok=True)
    _write_run(out, dict(info) | {"complete": False, "created": datetime.datetime.now().isoformat(timespec="seconds")})
    io.write_text(out / "config.yaml", text)


def _write_run(out: Path, values: Mapping[str, Any]) -> None:
    path = out / "run.json"
    io.write_json(path, (io.read_json(path) if path.is_file() else {}) | dict(values))


def _train_model(
    recipe: Recipe,
    corpus: Corpus,
    split: np.ndarray,
    folder: Path,
    info: dict[str, Any],
    member: int,
    device: torch.device,
    report: Report,
) -> None:
    """Train, and write model.safetensors, model.json, split.parquet, run.json."""
    recipe = replace(recipe, train=replace(recipe.train, seed=recipe.train.seed + 1000 * member))
    specialist = member >= recipe.train.members
    recipe = specialised(recipe) if specialist else recipe
    seed_all(recipe.train.seed)
    spaces = spaces_of(recipe, corpus)
    train_set, refined = training_set(corpus, recipe, spaces, split == "train")
    valid_set = dataset(corpus, recipe, spaces, split == "valid") if recipe.split.valid > 0 else None
    model = Model(_parts(recipe) | {"refined": refined}, train_set.specs, spaces)
    for name, stream in recipe.streams.items():
        if stream.init:
            start_encoder(model, name, open_run(Path(stream.init))[2][0][0])
        if stream.frozen:
            model.freeze(name)
    if specialist:
        model.load_state_dict(io.read_tensors(folder.with_name("member0") / "model.safetensors"))
    seen = {"fold": info["fold"], "member": member}
    trainer = Trainer(model, train_set, valid_set, recipe, folder, device, lambda row: report({**row, **seen}))
    progress = trainer.run()
    if trainer.rank:
        return
    table = corpus.table[["id", "source", "speaker"]].assign(split=split)
    io.write_table(folder / "split.parquet", table)
    streams = recipe.to_dict()["streams"]
    described = {"extractors": {n: s["extractor"] for n, s in streams.items()}, "grids": {n: s["how"] for n, s in streams.items() if s["rate"]}}
    described["standardised_by"] = standardised(recipe)
    io.write_json(folder / "model.json", describe(model) | described)
    _write_run(
        folder,
        info
        | {
            "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "train_seconds": round(progress.seconds, 1),
            **_kept(recipe, progress),
            "n": {s: int((split == s).sum()) for s in ("train", "valid", "test")},
            "groups": {s: sorted(set(groups_of(corpus.table, recipe.split.group_by)[split == s])) for s in ("valid", "test")},
            "majority": _majority(dataset(corpus, recipe, spaces, split == "train"), next(iter(spaces))),
            "device": str(device),
            "complete": True,
        },
    )
    io.write_tensors(folder / "model.safetensors", model.state_dict())
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)


def specialised(recipe: Recipe) -> Recipe:
    """The recipe of the second stage: rare classes drawn as often as others, at a lower rate.

    Whole conversations can only lean that way, so that there the loss is weighted by rarity too.
    """
    weights = {"class_weights": "balanced" if recipe.context else "none"}
    balanced = {n: o | (weights if "class_weights" in o else {}) for n, o in recipe.objectives.items()}
    train = replace(recipe.train, sampling="balanced")
    optim = replace(recipe.optim, lr=recipe.optim.lr * recipe.train.specialist_lr)
    return replace(recipe, objectives=balanced, train=train, optim=optim)


def _kept(recipe: Recipe, progress: Progress) -> dict[str, Any]:
    """Which epoch's weights were kept, and their score on the held-out groups (None: nothing was held out)."""
    name = recipe.train.selection
    if recipe.train.keep == "last":
        return {"best_epoch": progress.epoch, "best_score": progress.scores.get(name)}
    sign = 1 if registry.cards("metrics")[name]["better"] == "higher" else -1
    return {"best_epoch": progress.best_epoch, "best_score": sign * progress.best_score}


def _majority(train_set: Dataset, task: str) -> int | list[float]:
    """The most frequent training class, or the mean of continuous targets: the baseline of every report."""
    target, known = train_set.labels(task)
    if target.is_floating_point():
        return [float(v) for v in target[known].mean(0)]
    return int(torch.bincount(target[known]).argmax())


def dataset(corpus: Corpus, recipe: Recipe, spaces: Mapping[str, LabelSpace], chosen: np.ndarray) -> Dataset:
    """The chosen rows with the recipe's stores."""
    columns = {name: task.column for name, task in recipe.tasks.items()}
    table = corpus.table[chosen].reset_index(drop=True)
    stores = open_stores(corpus, {n: (s.rate, s.how) for n, s in recipe.streams.items()})
    for name, by in standardised(recipe).items():
        if by not in corpus.table:
            raise UnknownName.among(f"column in streams.{name}.standardise_by:", by, corpus.table.columns)
        stores[name] = Standardised(stores[name], corpus.table["id"].tolist(), corpus.table[by].fillna("").astype(str).tolist())
    return Dataset(table, stores, columns, spaces)


def standardised(recipe: Recipe) -> dict[str, str]:
    """Stream -> the column by whose groups it is standardised, of those that are."""
    return {name: stream.standardise_by for name, stream in recipe.streams.items() if stream.standardise_by}


def training_set(
    corpus: Corpus, recipe: Recipe, spaces: Mapping[str, LabelSpace], chosen: np.ndarray
) -> tuple[Dataset, dict[str, list[int]]]:
    """The chosen rows, labelled by the finer classes of every task with `refine`, and the class of each of those."""
    data, refined = dataset(corpus, recipe, spaces, chosen), {}
    for name, task in recipe.tasks.items():
        if not task.refine:
            continue
        if task.refine not in data.table or spaces[name].kind != "classes":
            raise BadConfig(f"tasks.{name}.refine = '{task.refine}' does not part classes", f"columns: {', '.join(data.table)}")
        labels, values = data.table[task.column], data.table[task.refine].fillna("").astype(str)
        fine, refined[name] = refine_space(spaces[name], labels.tolist(), values.tolist())
        data = data.refined(name, task.refine, fine)
    return data, refined


def _parts(recipe: Recipe) -> dict[str, Any]:
    unimodal = any(options.get("unimodal", 0.0) > 0 for options in recipe.objectives.values())
    return {
        "streams": {name: stream.encoder for name, stream in recipe.streams.items()},
        "fusion": recipe.fusion,
        "context": recipe.context,
        "unimodal": unimodal,
    }


def open_run(path: Path) -> tuple[dict[str, Any], Recipe, list[list[Path]]]:
    """(run.json, recipe, per fold the folders of its models) of a complete run; BadRun otherwise."""
    if not (path / "run.json").is_file():
        raise BadRun(f"{path} is not a run folder (no run.json)", "train one: affuse train RECIPE --corpus DIR --out RUN")
    info = io.read_json(path / "run.json")
    if info.get("format") != FORMAT:
        raise BadRun(f"{path} has run format {info.get('format')}", f"this affuse reads format {FORMAT}")
    recipe = config.make_recipe(config.read_yaml(path / "config.yaml"))
    folders = [model_folders(path, recipe, k) for k in (range(info["folds"]) if info["folds"] else [None])]
    absent = [f for fold in folders for f in fold if not (f / "model.safetensors").is_file()]
    if absent:
        raise BadRun(f"{absent[0]} has no trained model yet", "run the same affuse train command again: it resumes")
    return info, recipe, folders


def run_model(folder: Path) -> Model:
    """The trained model of a run (or fold) folder, in eval mode."""
    return load_model(io.read_json(folder / "model.json"), folder / "model.safetensors")


def split_of(folder: Path, corpus: Corpus) -> np.ndarray:
    """The part of every row of the run's corpus [N] in the split that a run (or fold) folder was trained on."""
    table = io.read_table(folder / "split.parquet")
    return corpus.table["id"].map(dict(zip(table["id"], table["split"], strict=True))).to_numpy(dtype=object)


def check_stores(info: Mapping[str, Any], data: Dataset) -> None:
    """Refuse stores that are not those which the run was trained on."""
    for name, store in data.stores.items():
        if store.hash != info["store_hashes"][name]:
            raise BadRun(f"store '{name}' changed since the run was trained", "extract it as the run's config.yaml says")


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"python": platform.python_version(), **{p: version(p) for p in ("affuse", "torch", "numpy")}}
