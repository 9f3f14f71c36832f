"""Scoring a run under its protocol: which split, how many items, which intervals, which baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affuse.core import io, run_files
from affuse.core.errors import ProtocolError
from affuse.core.labels import LabelSpace, map_by_name
from affuse.core.tasks import EVEN
from affuse.corpora.crossing import crossed, crossing, describe
from affuse.corpora.manifest import Corpus, groups_of
from affuse.evaluation.clusters import cluster
from affuse.evaluation.control import with_control
from affuse.evaluation.diagnosis import probe_modalities, shapley_of
from affuse.evaluation.intervals import clustered, estimate
from affuse.evaluation.predictions import Predictions, Subset, collect, per_utterance, to_table
from affuse.evaluation.seen import seen, trained_by_run
from affuse.metrics import confusion, label_counts
from affuse.metrics.calibration_error import CalibrationError
from affuse.metrics.mean_average_precision import MeanAveragePrecision
from affuse.training.run_folder import open_run, split_of

BASELINES = {"classes": "majority class", "multilabel": "prevalence", "values": "training mean"}


def evaluate(
    run: Path,
    corpus: Corpus,
    split: str = "test",
    missing: str | None = None,
    device: str = "cpu",
    probes: Mapping[str, Path] | None = None,
    include_seen: bool = False,
) -> dict[str, Any]:
    """Score a run on a split of a corpus; writes evaluation.json and predictions.parquet into `scores_folder`.

    `missing`: "each" for every subset of modalities, or names joined by + to take away. `probes`: probe the encoders
    of every modality, and those of a run trained on it alone where one is given. Another corpus than the run's is
    scored by label name, without the ids, sources and speakers that the run was trained on; these are scored too where
    there are no others, or with `include_seen`. Raises ProtocolError when not every item of the split was scored.
    """
    info, recipe, folders = open_run(run)
    own = corpus.hash == info["corpus"]["hash"]
    _check_columns(info, corpus)
    probed = None
    if probes is not None:
        probed = probe_modalities(run, probes, _grouped(corpus, info["group_by"]), split, torch.device(device))
    known = None if own else seen(run.name, trained_by_run(info, folders), corpus)
    chosen = [_rows(members[0], corpus, split, own) for members in folders]
    rows = [c if known is None else known.left(c, include_seen) for c in chosen]
    overlap = _crossing(info, corpus, folders) if known is None else known.protocol(chosen[0], rows[0])
    found = collect(info, recipe, folders, corpus, rows, missing, torch.device(device))
    scored, whole = {}, {}
    for name, predictions in found.items():
        if known is not None:
            predictions.table["seen"] = known.mark(predictions.table["id"])
        whole[name] = per_utterance(predictions)
        scored[name] = score_task(predictions, whole[name], info, corpus, split, overlap)
    lead = info["task"]["name"] if info["task"]["name"] in scored else next(iter(scored))
    result = {
        "run": str(run),
        "recipe": info["recipe"],
        "corpus": {"name": corpus.name, "path": str(corpus.path), "hash": corpus.hash},
        "split": split,
        "task": lead,
        **scored.pop(lead),
        **({"tasks": scored} if scored else {}),
    }
    if probed is not None:
        result["probes"] = probed[0]
        result["protocol"] |= probed[1]
    if own and split == "test":
        io.write_json(run / run_files.INFO, info | {"test_openings": info.get("test_openings", 0) + 1})
    target, other = scores_folder(run, info, corpus), "" if split == "test" or not own else split
    io.write_json(target / f"evaluation{f'-{other}' if other else ''}.json", result)
    for name in found:
        task = "" if name == lead else name
        for utterances, table in ((False, found[name]), (True, whole[name])):
            if table is not None:
                io.write_table(target / run_files.predictions(task, utterances, other), to_table(table))
    beside = run / run_files.CONTROL
    if not other and (beside / run_files.INFO).is_file():
        evaluate(beside, corpus, split, None, device, include_seen=include_seen)
        return with_control(target, scores_folder(beside, info, corpus))
    return result


def score_task(
    found: Predictions,
    whole: Predictions | None,
    info: Mapping[str, Any],
    corpus: Corpus,
    split: str,
    overlap: Mapping[str, Any],
) -> dict[str, Any]:
    """{kind, resolution, labels, scores, protocol} of one task; with `per_utterance` where frames are put together."""
    about = {"kind": found.task.kind, "resolution": found.task.resolution}
    told = protocol(info, corpus, found, split)
    result = about | score(found, info["group_by"], overlap, told)
    if whole is not None:
        result["per_utterance"] = score(whole, info["group_by"], overlap, told)
    return result


def scores_folder(run: Path, info: Mapping[str, Any], corpus: Corpus) -> Path:
    """Where the scores of a run on this corpus go: the run folder, or for another corpus `on-NAME` in it."""
    return run if corpus.hash == info["corpus"]["hash"] else run / f"on-{corpus.name}"


def _check_columns(info: Mapping[str, Any], corpus: Corpus) -> None:
    for column in info["group_by"].split("+"):
        if column not in corpus.table:
            message = f"{corpus.name} has no column '{column}', which groups the run's utterances"
            raise ProtocolError(message, "import it with that column")


def _grouped(corpus: Corpus, by: str) -> Corpus:
    """The corpus with its groups as a column of that name."""
    return replace(corpus, table=corpus.table.assign(**{by: groups_of(corpus.table, by)}))


def _crossing(info: Mapping[str, Any], corpus: Corpus, folders: Sequence[Sequence[Path]]) -> dict[str, Any]:
    """What crosses the run's own split, as rows and as a sentence."""
    rows = crossing(corpus.table, [split_of(members[0], corpus) for members in folders])
    return {"crossing": rows, "overlap": [describe(rows, corpus.table, info["folds"], info["group_by"])]}


def _rows(folder: Path, corpus: Corpus, split: str, own: bool) -> np.ndarray:
    """Which rows of the corpus are this fold's `split`; all of another corpus without splits."""
    if own:
        return np.asarray(split_of(folder, corpus) == split)
    given = corpus.table["split"].to_numpy(dtype=object)
    return np.asarray(given == split) if (given != "").any() else np.ones(len(corpus), dtype=bool)


def score(found: Predictions, wanted: str, overlap: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """{labels, scores, protocol}: `score_all` by the groups that `cluster` finds for `wanted`, the split's grouping.

    The protocol holds what is `known` of it, what of the scored items was trained on (`overlap`), and what the
    intervals are over.
    """
    found.table, by, meaning = cluster(found.table, wanted, _trained_on(overlap, known["split"]))
    groups = int(found.table[by].nunique())
    interval = {
        "group_by": by,
        "groups": groups,
        "interval": f"95 %, {clustered(by, groups)}",
        "interval_means": meaning,
    }
    return {
        "labels": list(found.space.labels),
        **score_all(found, by),
        "protocol": {**known, **overlap, **interval, "n": len(found.table)},
    }


def _trained_on(overlap: Mapping[str, Any], split: str) -> set[str]:
    """The columns of which scored values were trained on."""
    if "crossing" in overlap:
        return crossed(overlap["crossing"], f"train/{split}")
    return {part["column"] for part in overlap["seen_in_training"]} if overlap["seen_scored"] else set()


def score_all(found: Predictions, group_by: str) -> dict[str, Any]:
    """All metrics with intervals, the rows of subsets and baselines, matrix, per-class scores, calibration."""
    groups = found.table[group_by].to_numpy()
    full = found.by_subset[found.full]
    if len(full) != len(found.table):
        raise ProtocolError(f"{len(full)} predictions for {len(found.table)} items", "evaluate the run again")
    if found.table[["id", *(["frame"] if found.task.per_frame else [])]].duplicated().any():
        message = "the folds share utterances of this split, which count once in a score"
        raise ProtocolError(message, "score what no two folds share: --split test")
    rows = [_row(BASELINES[found.task.kind], "baseline", None, found, groups)]
    for subset in found.by_subset:
        kind = "full" if subset == found.full else "unimodal" if len(subset) == 1 else "subset"
        rows.append(_row(_subset_name(subset, found.full), kind, subset, found, groups))
    metrics = score_metrics(found, found.full, groups)
    result = {"n": len(full), "n_split": len(found.table), "metrics": metrics, "rows": rows}
    if found.joint:
        result["joint"] = {name: joint.other for name, joint in found.joint.items()}
    if found.task.kind == "classes":
        result |= _class_details(found, full, groups)
    if found.task.kind == "multilabel":
        result |= _label_details(found, full)
    return result | shapley_of(found, groups)


def _row(name: str, kind: str, subset: Subset | None, found: Predictions, groups: np.ndarray) -> dict[str, Any]:
    metrics = score_metrics(found, subset, groups)
    return {"name": name, "kind": kind, "modalities": list(subset or ()), "metrics": metrics}


def _subset_name(subset: Subset, full: Subset) -> str:
    if subset == full:
        return "all modalities" if len(full) > 1 else f"{full[0]}"
    return f"{' + '.join(subset)} only"


def score_metrics(found: Predictions, subset: Subset | None, groups: np.ndarray) -> dict[str, Any]:
    """Every metric that fits the task's labels, with its interval, then those over it and another task.

    subset: of modalities; None: the baseline.
    """
    decided = found.decided(found.of(subset))
    own = {n: estimate(n, found.truth, decided, groups) for n in found.task.metrics()}
    pairs = found.joint.items()
    joint = {n: estimate(n, j.both.truth, j.both.of(subset), groups[j.rows]) for n, j in pairs}
    return {name: score.to_dict() for name, score in (own | joint).items()}


def _class_details(found: Predictions, predicted: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    counts = confusion.matrix(confusion.statistics(found.truth, predicted).sum(0))
    scores = confusion.per_class(counts)
    columns = ("precision", "recall", "f1")
    precision = MeanAveragePrecision.each(found.truth, predicted, np.ones((1, len(predicted))))[0]
    return {
        "confusion_matrix": counts.astype(int).tolist(),
        "per_class": [
            {
                "label": label,
                **{c: float(scores[c][i]) for c in columns},
                "average_precision": as_null(precision[i]),
                "support": int(scores["support"][i]),
            }
            for i, label in enumerate(found.space.labels)
        ],
        "calibration": CalibrationError.table(CalibrationError.statistics(found.truth, predicted).sum(0)),
    }


def _label_details(found: Predictions, predicted: np.ndarray) -> dict[str, Any]:
    """Per label: precision, recall, F1, average precision, support, and the mean threshold of the models."""
    decided = found.decided(predicted)
    counts = label_counts.counts(label_counts.statistics(found.truth, decided).sum(0))
    scores = label_counts.per_label(counts)
    precision = MeanAveragePrecision.each(found.truth, decided, np.ones((1, len(decided))))[0]
    limits = np.full(len(found.space), EVEN) if found.thresholds is None else found.thresholds.mean(0)
    return {
        "per_class": [
            {
                "label": label,
                **{c: float(scores[c][i]) for c in ("precision", "recall", "f1")},
                "average_precision": as_null(precision[i]),
                "support": int(counts[i, :2].sum()),
                "threshold": float(limits[i]),
            }
            for i, label in enumerate(found.space.labels)
        ]
    }


def as_null(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return None if np.isnan(value) else float(value)


def protocol(info: Mapping[str, Any], corpus: Corpus, found: Predictions, split: str) -> dict[str, Any]:
    """What the numbers mean: split, selection, folds, label mapping, attempts."""
    own = corpus.hash == info["corpus"]["hash"]
    selection = info["selection"]
    held_out = "groups held out of the training part"
    kept = f"epoch with the best {selection['metric']} on {held_out}"
    if selection["keep"] == "last":
        trained = held_out if selection["split"] else "trained on all of the training part"
        kept = f"none: last epoch of a fixed schedule, {trained}"
    by = ", ".join(f"{stream}: {column}" for stream, column in info.get("standardised_by", {}).items())
    standardised = f"{by}, over all utterances of each, the scored ones too, without labels"
    return {
        "split": split,
        "split_hash": info["split_hash"],
        "same_corpus": own,
        "folds": info["folds"],
        "split_by": info["group_by"],
        "selection": kept,
        "seed": info["seed"],
        "mapping": None if own else mapping_of(_labels(info, found.task.name), found.space),
        **({"frames": "every labelled frame counts once, at the rate of its labels"} if found.task.per_frame else {}),
        **({"thresholds": "per label, best F1 on the selection split"} if found.thresholds is not None else {}),
        **({"standardised_by": standardised} if by else {}),
        "configurations_tried": info.get("configurations_tried"),
    }


def _labels(info: Mapping[str, Any], task: str) -> list[str]:
    """The labels that the run's model has for a task."""
    labels: list[str] = info["tasks"][task]["labels"] if "tasks" in info else info["task"]["labels"]
    return labels


def mapping_of(labels: Sequence[str], scored: LabelSpace) -> dict[str, Any] | None:
    """Which scored classes a model of these labels lacks, which of its labels are never right; None for values."""
    if scored.kind != "classes":
        return None
    _, lacking, extra = map_by_name(LabelSpace("model", tuple(labels)), scored)
    return {"by": "name", "model_lacks": lacking, "never_right": extra}
