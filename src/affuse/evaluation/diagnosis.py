"""Which modality carries a model: the Shapley value of each, and what its encoder learned in joint training.

Both are read off a trained run: Shapley values from its scores with every subset of modalities, on all groups and
without each; probe gaps from linear probes of its frozen encoders and of runs that were trained on one modality alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affuse.balance.shapley import shapley
from affuse.core.config import Recipe
from affuse.core.errors import ProtocolError, UnknownName
from affuse.core.types import MODALITIES
from affuse.corpora.manifest import Corpus
from affuse.evaluation.intervals import as_estimate, estimate, left_out, paired_difference, sizes_of
from affuse.evaluation.predictions import Predictions
from affuse.models.model import Model
from affuse.training.binding import dataset, tasks_of
from affuse.training.data import Dataset
from affuse.training.run_folder import open_run, run_model, split_of

METRICS = {"classes": "accuracy", "multilabel": "label_f1", "values": "ccc"}  # of a task's kind; higher is better
PENALTY = 10.0
PROBES = {
    "classes": f"logistic regression, C = {1 / PENALTY:g}",
    "values": f"ridge regression, alpha = {PENALTY:g}",
}


def shapley_of(found: Predictions, groups: np.ndarray) -> dict[str, Any]:
    """{shapley: {modality: estimate}, imbalance: their largest less their smallest}; {} unless every subset was scored.

    The values without a group are those of the scores without it, so that they, too, add up to the score of all
    modalities minus that of none, which is the baseline's.
    """
    if len(found.full) < 2 or len(found.by_subset) < 2 ** len(found.full) - 1:
        return {}
    name = METRICS[found.space.kind]
    subsets = {frozenset(s): found.decided(p) for s, p in found.by_subset.items()}
    scored = {frozenset[str](): found.decided(found.baseline)} | subsets
    scores = {s: torch.from_numpy(left_out(name, found.truth, p, groups)) for s, p in scored.items()}
    values = {m: v.numpy() for m, v in shapley(scores).items()}
    spread, sizes = np.ptp(list(values.values()), axis=0), sizes_of(groups)
    return {
        "shapley": {m: as_estimate(values[m], sizes).to_dict() for m in found.full},
        "imbalance": {"metric": name, **as_estimate(spread, sizes).to_dict()},
    }


@dataclass(frozen=True)
class Probed:
    """Predictions of a modality's probes on the scored rows that have it; truth [N] or [N, D], groups [N]."""

    truth: np.ndarray
    predicted: np.ndarray
    groups: np.ndarray


def probe_modalities(
    run: Path, alone: Mapping[str, Path], corpus: Corpus, split: str, device: torch.device
) -> tuple[dict[str, Any], dict[str, Any]]:
    """({modality: {joint, alone, gap}} of linear probes of a run's frozen encoders, what the protocol states of them).

    `alone`: runs that were trained on one modality, by modality. gap: what its probe scores more than that of the joint
    run, on the same rows; positive where the encoder learned less in joint training. A probe is given the rows that
    have the modality. Raises ProtocolError where the runs do not fit each other.
    """
    info, recipe, folders = open_run(run)
    if corpus.hash != info["corpus"]["hash"] or split == "train":
        other = f"{corpus.name}, which is not the run's corpus"
        what = f"the split 'train' of {corpus.name}" if split == "train" else other
        remedy = "they are fitted on the run's training rows: score its own test split"
        raise ProtocolError(f"probes cannot be scored on {what}", remedy)
    others = {}
    for modality, path in alone.items():
        others[modality] = open_run(path)
        _check_alone(info, others[modality][0], path, modality)
    task = tasks_of(recipe, corpus)[info["task"]["name"]]
    if task.kind not in PROBES or task.per_frame:
        per = "frames" if task.per_frame else "labels that may hold together"
        raise ProtocolError(f"probes are not made for {per} (task '{task.name}')", "leave --probe out")
    kind = task.kind
    joint = probe(info, recipe, folders, corpus, split, device)
    single = {m: probe(*other, corpus, split, device)[m] for m, other in others.items()}
    words = f"{METRICS[kind]} of a {PROBES[kind]}, on standardised pooled vectors, fitted on each fold's training rows"
    paths = {"alone": {m: str(path) for m, path in alone.items()}} if alone else {}
    probes: dict[str, Any] = {m: _compare(METRICS[kind], joint[m], single.get(m)) for m in MODALITIES if m in joint}
    return probes, {"probe": words, **paths}


def _check_alone(info: Mapping[str, Any], other: Mapping[str, Any], path: Path, modality: str) -> None:
    """Raises ProtocolError for a run that was not trained like `info`, on the streams of this modality alone."""
    if modality not in info["streams"].values():
        raise UnknownName.among("modality", modality, info["streams"].values())
    streams = {s: info["store_hashes"][s] for s, m in info["streams"].items() if m == modality}
    differing = [k for k in ("split_hash", "folds", "group_by", "task") if other[k] != info[k]]
    if other["corpus"]["hash"] != info["corpus"]["hash"]:
        message = f"{path} was trained on another corpus, {other['corpus']['name']}"
    elif other["store_hashes"] != streams:
        trained, wanted = ", ".join(other["store_hashes"]), ", ".join(streams)
        message = f"{path} was trained on {trained}, not on {wanted} alone as it is now"
    elif differing:
        message = f"{path} has another {differing[0]}, {other[differing[0]]}; the joint run has {info[differing[0]]}"
    else:
        return
    command = f"affuse train RECIPE --only {modality}"
    raise ProtocolError(message, f"train one like the joint run: {command}, same corpus, split and folds")


def _compare(name: str, joint: Probed, alone: Probed | None) -> dict[str, Any]:
    def score(of: Probed) -> dict[str, float | None]:
        return estimate(name, of.truth, of.predicted, of.groups).to_dict()

    if alone is None:
        return {"joint": score(joint)}
    gap = paired_difference(name, joint.truth, [alone.predicted], [joint.predicted], joint.groups)
    return {"joint": score(joint), "alone": score(alone), "gap": gap.to_dict()}


def probe(
    info: Mapping[str, Any],
    recipe: Recipe,
    folders: Sequence[Sequence[Path]],
    corpus: Corpus,
    split: str,
    device: torch.device,
) -> dict[str, Probed]:
    """Modality -> predictions of its probes, of every fold on that fold's part of the split, members averaged."""
    folds = [_probe_fold(info, recipe, members, corpus, split, device) for members in folders]
    joined = {m: [fold[m] for fold in folds] for m in folds[0]}
    return {
        m: Probed(*(np.concatenate([getattr(p, field) for p in parts]) for field in ("truth", "predicted", "groups")))
        for m, parts in joined.items()
    }


def _probe_fold(
    info: Mapping[str, Any], recipe: Recipe, members: Sequence[Path], corpus: Corpus, split: str, device: torch.device
) -> dict[str, Probed]:
    """Modality -> predictions of the probes of one fold's members."""
    models = [run_model(folder).to(device) for folder in members]
    task = models[0].tasks[info["task"]["name"]]
    coarse = {task.name: replace(task, finer=())}
    assigned = split_of(members[0], corpus)
    train, scored = (dataset(corpus, recipe, coarse, assigned == part) for part in ("train", split))
    train.check(info["store_hashes"])
    x, fitted, y = _all_vectors(models, train, task.name, device)
    new, there, truth = _all_vectors(models, scored, task.name, device)
    found = {}
    for m in dict.fromkeys(models[0].modality.values()):
        a, b = fitted[m], there[m]
        if not a.any() or not b.any():
            message = f"no labelled utterance with {m} in the {'scored' if a.any() else 'training'} rows"
            raise ProtocolError(message, "score another split")
        each = [fit_linear(old[m][a], y[a], added[m][b], len(task)) for old, added in zip(x, new, strict=True)]
        groups = scored.table[info["group_by"]].to_numpy()[b]
        found[m] = Probed(truth[b], np.mean(each, axis=0), groups)
    return found


def _all_vectors(
    models: Sequence[Model], data: Dataset, task: str, device: torch.device
) -> tuple[list[dict[str, np.ndarray]], dict[str, np.ndarray], np.ndarray]:
    """(vectors of each model, by modality the labelled rows that have it, targets)."""
    target, known = (v.numpy() for v in data.labels(task))
    read = [encoded_vectors(model, data, device) for model in models]
    return [x for x, _ in read], {m: there & known for m, there in read[0][1].items()}, target


@torch.inference_mode()
def encoded_vectors(
    model: Model, data: Dataset, device: torch.device
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """By modality: features of the streams' frozen encoders, side by side [N, D]; which rows have one of them [N]."""
    encoded = [model.encode(batch.to(device)) for batch in data.batches(64)]
    present = torch.cat([e.present for e in encoded])
    vectors, there = {}, {}
    for m in dict.fromkeys(model.modality.values()):
        own = [s.modality == m for s in model.streams]
        names = [s.name for s in model.streams if s.modality == m]
        joined = [torch.cat([e.pooled[s] for s in names], 1) for e in encoded]
        vectors[m] = torch.cat(joined).double().cpu().numpy()
        there[m] = present[:, own].any(1).cpu().numpy()
    return vectors, there


def fit_linear(x: np.ndarray, target: np.ndarray, new: np.ndarray, columns: int) -> np.ndarray:
    """Predictions [n, columns] for `new` by a linear model fitted on x [N, D], both standardised by x."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if target.ndim == 2:
        ridge = make_pipeline(StandardScaler(), Ridge(alpha=PENALTY)).fit(x, target)
        return np.asarray(ridge.predict(new)).reshape(len(new), columns)
    classes = np.unique(target)
    probabilities = np.zeros((len(new), columns))
    if len(classes) == 1:
        probabilities[:, classes] = 1
        return probabilities
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / PENALTY, max_iter=1000))
    probabilities[:, classes] = model.fit(x, target).predict_proba(new)
    return probabilities
