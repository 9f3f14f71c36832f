"""Who carries a model: the Shapley value of every modality, and what its encoder learned beside the others.

Both are read off a trained run: Shapley values from its scores with every subset of modalities, on all groups and without each;
probe gaps from linear probes of its frozen encoders and of runs that were trained on one modality alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from affuse.training.data import Dataset
from affuse.training.run import check_stores, dataset, open_run, run_model, spaces_of, split_of

METRICS = {"classes": "accuracy", "values": "ccc"}  # of a task's kind; higher is better
PENALTY = 10.0
PROBES = {
    "classes": f"logistic regression, C = {1 / PENALTY:g}",
    "values": f"ridge regression, alpha = {PENALTY:g}",
}


def shapley_of(found: Predictions, groups: np.ndarray) -> dict[str, Any]:
    """{shapley: {modality: estimate}, imbalance: their largest minus their smallest}; {} where not every subset was scored.

    Without a group, too, the values are those of its scores, so that they add up to the score of all modalities minus
    that of none, which is the baseline's.
    """
    if len(found.full) < 2 or len(found.by_subset) < 2 ** len(found.full) - 1:
        return {}
    name = METRICS[found.space.kind]
    scored = {frozenset[str](): found.baseline} | {frozenset(s): p for s, p in found.by_subset.items()}
    scores = {s: torch.from_numpy(left_out(name, found.truth, p, groups)) for s, p in scored.items()}
    values = {m: v.numpy() for m, v in shapley(scores).items()}
    spread, sizes = np.ptp(list(values.values()), axis=0), sizes_of(groups)
    return {
        "shapley": {m: as_estimate(values[m], sizes).to_dict() for m in found.full},
        "imbalance": {"metric": name, **as_estimate(spread, sizes).to_dict()},
    }


@dataclass(frozen=True)
class Probed:
    """What probes of one modality answered on the scored rows that have it: truth [N] or [N, D], predicted, groups [N]."""

    truth: np.ndarray
    predicted: np.ndarray
    groups: np.ndarray


def probe_modalities(
    run: Path, alone: Mapping[str, Path], corpus: Corpus, split: str, device: torch.device
) -> tuple[dict[str, Any], dict[str, Any]]:
    """({modality: {joint, alone, gap}} of linear probes of a run's frozen encoders, what the protocol says of them).

    `alone`: runs that were trained on one modality, by modality. gap: what its probe scores more than that of the joint
    run, on the same rows; positive where the encoder learned less beside the others. A probe sees the rows that
    have the modality. Raises ProtocolError where the runs do not fit each other.
    """
    info, recipe, folders = open_run(run)
    if corpus.hash != info["corpus"]["hash"] or split == "train":
        what = f"the split 'train' of {corpus.name}" if split == "train" else f"{corpus.name}, which is not the run's corpus"
        raise ProtocolError(f"probes cannot be scored on {what}", "they are fitted on the run's training rows: score its own test split")
    others = {}
    for modality, path in alone.items():
        others[modality] = open_run(path)
        _check_alone(info, others[modality][0], path, modality)
    kind = spaces_of(recipe, corpus)[info["task"]["name"]].kind
    joint = probe(info, recipe, folders, corpus, split, device)
    single = {m: probe(*other, corpus, split, device)[m] for m, other in others.items()}
    words = f"{METRICS[kind]} of a {PROBES[kind]}, on standardised pooled vectors, fitted on each fold's training rows"
    paths = {"alone": {m: str(path) for m, path in alone.items()}} if alone else {}
    probes: dict[str, Any] = {m: _compare(METRICS[kind], joint[m], single.get(m)) for m in MODALITIES if m in joint}
    return probes, {"probe": words, **paths}


def _check_alone(info: Mapping[str, Any], other: Mapping[str, Any], path: Path, modality: str) -> None:
    """Refuse a run that was not trained as `info` says on the streams of this modality, and on nothing else."""
    if modality not in info["streams"].values():
        raise UnknownName.among("modality", modality, info["streams"].values())
    streams = {s: info["store_hashes"][s] for s, m in info["streams"].items() if m == modality}
    differing = [k for k in ("split_hash", "folds", "group_by", "task") if other[k] != info[k]]
    if other["corpus"]["hash"] != info["corpus"]["hash"]:
        message = f"{path} was trained on another corpus, {other['corpus']['name']}"
    elif other["store_hashes"] != streams:
        message = f"{path} was trained on {', '.join(other['store_hashes'])}, not on {', '.join(streams)} alone as it is now"
    elif differing:
        message = f"{path} has another {differing[0]}, {other[differing[0]]}; the joint run has {info[differing[0]]}"
    else:
        return
    raise ProtocolError(message, f"train one like the joint run: affuse train RECIPE --only {modality}, same corpus, split and folds")


def _compare(name: str, joint: Probed, alone: Probed | None) -> dict[str, Any]:
    def score(of: Probed) -> dict[str, float | None]:
        return estimate(name, of.truth, of.predicted, of.groups).to_dict()

    if alone is None:
        return {"joint": score(joint)}
    gap = paired_difference(name, joint.truth, [alone.predicted], [joint.predicted], joint.groups)
    return {"joint": score(joint), "alone": score(alone), "gap": gap.to_dict()}


def probe(
    info: Mapping[str, Any], recipe: Recipe, folders: Sequence[Sequence[Path]], corpus: Corpus, split: str, device: torch.device
) -> dict[str, Probed]:
    """Modality -> answers of its probes: those of every fold on that fold's part of the split, members averaged."""
    folds = [_probe_fold(info, recipe, members, corpus, split, device) for members in folders]
    joined = {m: [fold[m] for fold in folds] for m in folds[0]}
    return {
        m: Probed(*(np.concatenate([getattr(p, field) for p in parts]) for field in ("truth", "predicted", "groups")))
        for m, parts in joined.items()
    }


def _probe_fold(
    info: Mapping[str, Any], recipe: Recipe, members: Sequence[Path], corpus: Corpus, split: str, device: torch.device
) -> dict[str, Probed]:
    """Modality -> answers of probes of one fold's members."""
    models = [run_model(folder).to(device) for folder in members]
    task, space = next(iter(models[0].spaces.items()))
    assigned = split_of(members[0], corpus)
    train, scored = (dataset(corpus, recipe, models[0].spaces, assigned == part) for part in ("train", split))
    check_stores(info, train)
    (x, seen, y), (new, there, truth) = _all_vectors(models, train, task, device), _all_vectors(models, scored, task, device)
    found = {}
    for m in dict.fromkeys(models[0].modality.values()):
        if not seen[m].any() or not there[m].any():
            raise ProtocolError(f"no labelled utterance with {m} in the {'scored' if seen[m].any() else 'training'} rows", "score another split")
        answers = [fit_linear(a[m][seen[m]], y[seen[m]], b[m][there[m]], len(space)) for a, b in zip(x, new, strict=True)]
        groups = scored.table[info["group_by"]].to_numpy()[there[m]]
        found[m] = Probed(truth[there[m]], np.mean(answers, axis=0), groups)
    return found


def _all_vectors(
    models: Sequence[Model], data: Dataset, task: str, device: torch.device
) -> tuple[list[dict[str, np.ndarray]], dict[str, np.ndarray], np.ndarray]:
    """(vectors of each model, by modality the labelled rows that have it, targets)."""
    target, known = (v.numpy() for v in data.labels(task))
    read = [encoded_vectors(model, data, device) for model in models]
    return [x for x, _ in read], {m: there & known for m, there in read[0][1].items()}, target


@torch.inference_mode()
def encoded_vectors(model: Model, data: Dataset, device: torch.device) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """By modality: what the frozen encoders of its streams give, side by side [N, D]; which rows have any of them [N]."""
    seen = [(e.pooled, e.present) for e in (model.encode(batch.to(device)) for batch in data.batches(64))]
    present = torch.cat([p for _, p in seen])
    vectors, there = {}, {}
    for m in dict.fromkeys(model.modality.values()):
        own = [s.modality == m for s in model.streams]
        names = [s.name for s in model.streams if s.modality == m]
        vectors[m] = torch.cat([torch.cat([pooled[s] for s in names], 1) for pooled, _ in seen]).double().cpu().numpy()
        there[m] = present[:, own].any(1).cpu().numpy()
    return vectors, there


def fit_linear(x: np.ndarray, target: np.ndarray, new: np.ndarray, columns: int) -> np.ndarray:
    """Answers [n, columns] for `new` of a linear model of x [N, D], both standardised by x: probabilities, or values."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if target.ndim == 2:
        ridge = make_pipeline(StandardScaler(), Ridge(alpha=PENALTY)).fit(x, target)
        return np.asarray(ridge.predict(new)).reshape(len(new), columns)
    classes = np.unique(target)
    answers = np.zeros((len(new), columns))
    if len(classes) == 1:
        answers[:, classes] = 1
        return answers
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / PENALTY, max_iter=1000))
    answers[:, classes] = model.fit(x, target).predict_proba(new)
    return answers
