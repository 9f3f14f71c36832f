"""What a model scores on the selection split: metrics, the terms of its loss, and the thresholds of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from affuse.core.errors import BadConfig
from affuse.core.parts import Computed, needs
from affuse.core.tasks import Task, joint_metrics
from affuse.metrics import value
from affuse.models.model import Model
from affuse.models.predict import at_labels, predict
from affuse.training.data import Dataset
from affuse.training.losses import Losses

SECOND = {"classes": "accuracy", "multilabel": "label_accuracy", "values": "mae"}  # beside the metric that selects


@dataclass(frozen=True)
class Validation:
    """scores: the leading task's by metric, others' as TASK.METRIC; terms: of the loss; thresholds by task."""

    scores: dict[str, float] = field(default_factory=dict)
    terms: dict[str, float] = field(default_factory=dict)
    thresholds: dict[str, list[float]] = field(default_factory=dict)


def validate(
    model: Model, losses: Losses, data: Dataset, as_trained: Dataset, lead: str, metric: str, device: torch.device
) -> Validation:
    """Score a model on the selection split; thresholds are chosen there, and nowhere else.

    `metric` is the leading task's, or one over it and another task; every other task has its own default. `as_trained`:
    the rows labelled as for training. Raises BadConfig for a metric that the task cannot have.
    """
    predicted = predict(model, data, device)
    other = joint_metrics(model.tasks, lead).get(metric)
    scores = {metric: joint_score(metric, (lead, other), data, predicted)} if other else {}
    thresholds: dict[str, list[float]] = {}
    for name, task in model.tasks.items():
        target, known = (v.numpy() for v in data.labels(name))
        if not known.any():
            continue
        chosen = task.with_thresholds(target[known], predicted[name][known])
        if chosen.thresholds:
            thresholds[name] = list(chosen.thresholds)
        wanted = metric if name == lead and not other else task.default_metric
        prefix = "" if name == lead else f"{name}."
        found = score(wanted, target[known], predicted[name][known], chosen)
        scores |= {prefix + k: v for k, v in found.items()}
    return Validation(scores, loss_terms(model, losses, as_trained, device), thresholds)


def score(metric: str, truth: np.ndarray, predicted: np.ndarray, task: Task) -> dict[str, float]:
    """The metric that selects and a common one of predictions [N, C]; BadConfig for one that does not fit the task."""
    fitting = task.metrics()
    if metric not in fitting:
        raise BadConfig(
            f"train.selection = '{metric}' does not fit a task of {task.kind}", f"choose one of {', '.join(fitting)}"
        )
    names = dict.fromkeys([metric, SECOND[task.kind]])
    return {n: value(n, truth, task.centred(predicted)) for n in names}


def joint_score(metric: str, names: tuple[str, str], data: Dataset, predicted: Mapping[str, np.ndarray]) -> float:
    """A metric over two tasks, of the items that are labelled for both."""
    labels = [data.labels(name) for name in names]
    both = np.logical_and(*(known.numpy() for _, known in labels))
    truth = np.column_stack([target.numpy()[both] for target, _ in labels])
    return value(metric, truth, np.column_stack([predicted[name][both] for name in names]))


@torch.no_grad()
def loss_terms(model: Model, losses: Losses, data: Dataset, device: torch.device) -> dict[str, float]:
    """The terms of the loss on a split, of objectives that need nothing but the model's answers; mean over its items.

    One term alone is not shown: it is the loss of the epoch's row.
    """
    parts = {
        name: part
        for name, part in losses.parts().items()
        if not {"teacher", "views"} & needs(part) and name not in losses.coupled
    }
    if len(losses) < 2 or not parts:
        return {}
    training = model.training, losses.training
    model.eval()
    losses.eval()
    sums, weights = dict.fromkeys(parts, 0.0), dict.fromkeys(parts, 1e-12)
    for _, batch in data.parts(64, model.conversational):
        batch = batch.to(device)
        encoded = model.encode(batch)
        output = at_labels(model.fuse(encoded, batch), batch)
        for name, part in parts.items():
            items = part.weights(batch)
            sums[name] += float((part(output, batch, Computed(model, encoded)) * items).sum())
            weights[name] += float(items.sum())
    model.train(training[0])
    losses.train(training[1])
    return {name: losses.chosen[name].weight * sums[name] / weights[name] for name in parts}
