"""Scoring a model that ships with affuse on a corpus with media: by its own extractors and language rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affuse.core import io, registry, run_files
from affuse.core.config import GROUPS, TaskConfig, extractor_of
from affuse.core.errors import BadFeatures, ProtocolError
from affuse.corpora.manifest import Corpus
from affuse.evaluation.predictions import Predictions, foreign, labelled, predictions_of, to_table
from affuse.evaluation.protocol import mapping_of, score
from affuse.evaluation.seen import seen
from affuse.media.english import is_english
from affuse.models.model import Model
from affuse.models.saved import load_model
from affuse.stores.store import FeatureStore, stated
from affuse.training.data import Dataset

TASK = "emotion"


def stores_of(model: Path, corpus: Corpus) -> dict[str, tuple[str, dict[str, Any]]]:
    """Stream -> (store, parameters of its extractor) that the model needs; a new store where the name is taken."""
    wanted = io.read_json(model / run_files.DESCRIPTION)["extractors"]
    parameters = {s: {"name": extractor_of(s, options)[0], **options} for s, options in wanted.items()}
    return {s: (_store(model, corpus, s, options), parameters[s]) for s, options in wanted.items()}


def _store(model: Path, corpus: Corpus, stream: str, options: Mapping[str, Any]) -> str:
    path = corpus.store_path(stream)
    if not (path / "card.json").is_file():
        return stream
    kind, given = extractor_of(stream, options)
    card = FeatureStore(path).card
    wanted = [kind, stated(kind, registry.resolve("extractors", kind, given, stream))]
    same = io.digest(wanted) == io.digest([card["extractor"], card["parameters"]])
    return stream if same else f"{model.name}-{stream}"


def evaluate_shipped(
    model: Path,
    corpus: Corpus,
    out: Path,
    split: str = "test",
    missing: str | None = None,
    device: str = "cpu",
    include_seen: bool = False,
) -> dict[str, Any]:
    """Score a shipped model on a corpus whose stores exist; writes evaluation.json and predictions.parquet into `out`.

    Utterances of what it was trained on are left out, unless there are no others, or with `include_seen`; the protocol
    names them either way. A corpus with splits is scored on `split`, any other as a whole. Every utterance is scored:
    the rules by which `analyze` may abstain do not apply, but words of another language are absent. Raises
    ProtocolError, BadFeatures.
    """
    described = io.read_json(model / run_files.DESCRIPTION)
    net = load_model(described, io.read_tensors(model / run_files.WEIGHTS)).to(device).eval()
    chosen, split = _rows(corpus, split)
    trained = seen(model.name, io.read_json(model / "card.json")["trained_on"], corpus)
    scored = trained.left(chosen, include_seen)
    data = _dataset(model, net, corpus, scored, described["rules"].get("language", ""))
    labels = net.tasks[TASK].space.labels
    predicted = predictions_of([net], data, {TASK: None}, missing, torch.device(device))[TASK]
    found = labelled(data, predicted, GROUPS, own=False)
    if found is None:
        raise ProtocolError(
            f"no utterance of {corpus.name} is labelled for '{TASK}'", "import the corpus with its labels"
        )
    found.table["seen"] = trained.mark(found.table["id"])
    result = {
        "run": model.name,
        "recipe": model.name,
        "corpus": {"name": corpus.name, "path": str(corpus.path), "hash": corpus.hash},
        "split": split,
        "task": TASK,
        **score(found, GROUPS, trained.protocol(chosen, scored), _protocol(found, labels, split)),
    }
    io.write_json(out / run_files.EVALUATION, result)
    io.write_table(out / run_files.PREDICTIONS, to_table(found))
    return result


def _rows(corpus: Corpus, split: str) -> tuple[np.ndarray, str]:
    """The utterances to score, and the name of that part."""
    given = corpus.table["split"].to_numpy(dtype=object)
    if not (given != "").any():
        return np.ones(len(corpus), bool), "all"
    if not (given == split).any():
        there = ", ".join(sorted(set(given) - {""}))
        raise ProtocolError(f"{corpus.name} has no split '{split}'", f"score one of {there}")
    return np.asarray(given == split), split


def _dataset(model: Path, net: Model, corpus: Corpus, chosen: np.ndarray, language: str) -> Dataset:
    table = corpus.table[chosen].reset_index(drop=True)
    stores = {s: FeatureStore(corpus.store_path(name)) for s, (name, _) in stores_of(model, corpus).items()}
    for spec in net.streams:
        store = stores[spec.name]
        if store.spec.shape != spec.shape:
            message = f"store '{spec.name}' has steps of {store.spec.shape}, {model.name} needs {spec.shape}"
            raise BadFeatures(message, f"delete {store.path}")
        if spec.modality == "text" and language == "en":
            stores[spec.name] = store.without(table.loc[~table["text"].map(is_english), "id"])
    return Dataset(table, stores, {TASK: "label"}, foreign({TASK: TaskConfig()}, corpus, net.tasks))


def _protocol(found: Predictions, labels: Sequence[str], split: str) -> dict[str, Any]:
    return {
        "split": split,
        "same_corpus": False,
        "folds": None,
        "selection": "none here: the model came trained",
        "mapping": mapping_of(labels, found.space),
    }
