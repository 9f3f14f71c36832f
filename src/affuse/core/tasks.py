"""Tasks: a Task owns its targets, activation, decision, baseline, metrics, and how frames become one answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from affuse.core import registry
from affuse.core.errors import BadConfig, BadCorpus
from affuse.core.labels import Kind, LabelSpace

Resolution = Literal["utterance", "frame"]
Reduce = Literal["mean_logits", "mean_probabilities", "vote"]
DEFAULT_METRIC: dict[Kind, str] = {"classes": "uar", "multilabel": "label_f1", "values": "ccc"}
EVEN = 0.5  # the threshold of a label before one was chosen
JOIN = "|"  # between the labels of one cell of a table


@dataclass(frozen=True)
class Task:
    """One thing that is predicted: a label space, per utterance or per frame.

    `finer`: the class of every finer class that the head predicts (`tasks.NAME.refine`); their probabilities are added
    up. `reduce`: how the frames of an utterance become its one answer. `thresholds`: per label of a multi-label task
    the least probability that counts as present, chosen on the selection split (empty: 0.5).
    """

    name: str
    space: LabelSpace
    resolution: Resolution = "utterance"
    reduce: Reduce = "mean_probabilities"
    finer: tuple[int, ...] = ()
    thresholds: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.space)

    @property
    def kind(self) -> Kind:
        """Classes that exclude each other, labels that do not, or values on a scale."""
        return self.space.kind

    @property
    def width(self) -> int:
        """Number of logits."""
        return len(self.finer or self.space.labels)

    @property
    def per_frame(self) -> bool:
        """Whether there is an answer for every frame."""
        return self.resolution == "frame"

    # ---- labels ------------------------------------------------------------------------------------------------

    def targets(self, values: Sequence[Any] | np.ndarray) -> tuple[Tensor, Tensor]:
        """(target, known [N]) of the cells of a table.

        Classes: [N] int64 from names ("" or NaN: unlabelled). Values: [N, D] float, unlabelled where one is NaN.
        Labels: [N, C] float, 1 where a number is above 0 or a name stands in a cell "NAME|NAME", NaN where a single one
        is not known; unlabelled where none is known. Raises BadCorpus for names that the space lacks and for no
        numbers.
        """
        if self.kind == "classes":
            names = ["" if v is None or v != v else str(v) for v in values]
            index = torch.tensor([self.space.index(v) if v else -1 for v in names], dtype=torch.int64)
            return index.clamp_min(0), index >= 0
        if self.kind == "multilabel" and not isinstance(values, np.ndarray) and any(isinstance(v, str) for v in values):
            found = torch.from_numpy(np.stack([self._named(v) for v in values]))
        else:
            found = torch.from_numpy(self._numbers(values))
        if self.kind == "values":
            return found, ~found.isnan().any(1)
        return torch.where(found.isnan(), found, (found > 0).float()), ~found.isnan().all(1)

    def _named(self, cell: Any) -> np.ndarray:
        """1 for the labels of a cell such as "happy|surprise", 0 for others; NaN [C] where nothing is said."""
        if not isinstance(cell, str) or not cell:
            return np.full(len(self), np.nan, np.float32)
        found = np.zeros(len(self), np.float32)
        found[[self.space.index(name) for name in cell.split(JOIN)]] = 1
        return found

    def _numbers(self, values: Sequence[Any] | np.ndarray) -> np.ndarray:
        try:
            return np.asarray(values, dtype=np.float32).reshape(len(values), -1)
        except (TypeError, ValueError) as error:
            message = f"the target's values are no numbers for '{self.space.name}': {error}"
            raise BadCorpus(message, f"name the column of numbers as tasks.{self.name}.column") from error

    # ---- answers -----------------------------------------------------------------------------------------------

    def predict(self, logits: Tensor) -> Tensor:
        """Logits [..., width] as what they predict [..., C]: probabilities, or values."""
        if self.kind == "values":
            return logits.float()
        if self.kind == "multilabel":
            return logits.float().sigmoid()
        fine = logits.float().softmax(-1)
        if not self.finer:
            return fine
        classes = torch.tensor(self.finer, device=fine.device)
        return fine.new_zeros(*fine.shape[:-1], len(self)).index_add_(-1, classes, fine)

    def pooled(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Logits [N, T, width] of frames, mask [N, T], as the prediction [N, C] for the utterance (see `reduce`).

        An utterance without any frame gets what a logit of 0 predicts.
        """
        found = self.predict(logits.new_zeros(len(logits), self.width))
        rows = mask.any(1)
        if rows.any():
            code = (rows.cumsum(0) - 1).unsqueeze(1).expand_as(mask)[mask]
            frames = self.from_frames(self.predict(logits[mask]).cpu().numpy(), code.cpu().numpy())
            found[rows] = torch.from_numpy(frames).to(found)
        return found

    def from_frames(self, predicted: np.ndarray, code: np.ndarray) -> np.ndarray:
        """Predictions [M, C] of frames as those of utterances [N, C]; code [M]: of which one, rising."""
        count = np.bincount(code)

        def mean(values: np.ndarray) -> np.ndarray:
            return np.add.reduceat(values, np.cumsum(count) - count) / count[:, None]

        if self.reduce == "vote" and self.kind != "values":
            chosen = self.decide(predicted)
            return mean(np.eye(len(self))[chosen] if self.kind == "classes" else chosen.astype(float))
        predicted = predicted.astype(float)  # half precision has no 1e-12
        if self.reduce == "mean_probabilities" or self.kind == "values":
            return mean(predicted)
        log_p = np.log(np.maximum(predicted, 1e-12))
        if self.kind == "multilabel":
            return np.asarray(1 / (1 + np.exp(-mean(log_p - np.log(np.maximum(1 - predicted, 1e-12))))))
        return np.asarray(torch.from_numpy(mean(log_p)).softmax(-1).numpy())

    def decide(self, predicted: np.ndarray) -> np.ndarray:
        """The decision: the likeliest class [...], 0 or 1 for every label [..., C], values as they are."""
        if self.kind == "classes":
            return np.asarray(predicted.argmax(-1))
        return (self.centred(predicted) >= EVEN).astype(int) if self.kind == "multilabel" else predicted

    def centred(self, predicted: np.ndarray) -> np.ndarray:
        """Probabilities of labels with their odds moved so that every threshold lies at 0.5; anything else as it is.

        What a metric is given: it decides at 0.5, and the order of the items of a label stays.
        """
        return centred(predicted, self.thresholds) if self.kind == "multilabel" and self.thresholds else predicted

    def with_thresholds(self, target: np.ndarray, predicted: np.ndarray) -> Task:
        """The task with the threshold of every label that has the best F1 on these items, [N, C] each; else 0.5.

        Chosen among the midpoints between neighbouring probabilities. Use the selection split only.
        """
        if self.kind != "multilabel":
            return self
        best = [_best_threshold(target[:, c], predicted[:, c]) for c in range(len(self))]
        return replace(self, thresholds=tuple(best))

    def baseline(self, target: Tensor, known: Tensor) -> list[float]:
        """What a model without inputs predicts, [C]: the majority class, each label's prevalence, the mean value."""
        if not known.any():
            return [0.0] * len(self)
        if self.kind == "classes":
            return [float(v) for v in one_hot(torch.bincount(target[known]).argmax(), len(self))]
        return [float(v) for v in target[known].float().nanmean(0).nan_to_num(0.0)]

    # ---- metrics -----------------------------------------------------------------------------------------------

    def metrics(self) -> list[str]:
        """Names of the metrics that fit: of the kind and, where a card names them, of these labels and range."""
        return fitting(self.space)

    @property
    def default_metric(self) -> str:
        """The metric that selects where a recipe names none."""
        return DEFAULT_METRIC[self.kind]

    # ---- JSON --------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        space = vars(self.space) | {"labels": list(self.space.labels)}
        rest = {k: v for k, v in vars(self).items() if k not in ("name", "space")}
        return {"space": space, **{k: list(v) if isinstance(v, tuple) else v for k, v in rest.items()}}

    @classmethod
    def from_dict(cls, name: str, values: Mapping[str, Any]) -> Task:
        """The task that `to_dict` wrote."""
        rest: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k != "space"}
        return cls(name, read_space(values["space"]), **rest)


def read_space(values: Mapping[str, Any]) -> LabelSpace:
    """A label space from its JSON values."""
    return LabelSpace(**{**values, "labels": tuple(values["labels"])})


def with_kind(space: LabelSpace, kind: str, task: str) -> LabelSpace:
    """The space as another kind; BadConfig for a kind that its labels cannot have."""
    if not kind or kind == space.kind:
        return space
    if kind not in get_args(Kind):
        raise BadConfig(f"tasks.{task}.kind = {kind}", f"choose one of {', '.join(get_args(Kind))}")
    if kind == "values" or (kind == "classes" and space.kind == "values"):
        raise BadConfig(f"tasks.{task}.kind = {kind}: '{space.name}' has {space.kind}", "leave tasks.NAME.kind out")
    return replace(space, kind=cast("Kind", kind))


def fitting(space: LabelSpace) -> list[str]:
    """Names of the metrics for a label space: of its kind and, where a card names them, its labels and range."""
    return [name for name, card in registry.cards("metrics").items() if "with" not in card and _fits(card, space)]


def joint_metrics(tasks: Mapping[str, Task], name: str) -> dict[str, str]:
    """Metric -> the task that it reads with the task `name`, of metrics over two tasks (their cards say `with`).

    Both tasks have an answer per utterance.
    """
    whole = {n: task.space for n, task in tasks.items() if not task.per_frame}
    cards = {m: card for m, card in registry.cards("metrics").items() if "with" in card}
    pairs = ((m, n) for m, card in cards.items() for n, space in whole.items() if _fits(card["with"], space))
    return {m: n for m, n in pairs if name in whole and n != name and _fits(cards[m], whole[name])}


def _fits(card: Mapping[str, Any], space: LabelSpace) -> bool:
    limits = {"labels": list(space.labels), "range": [space.low, space.high]}
    return space.kind in card["tasks"] and all(card.get(k, v) == v for k, v in limits.items())


def centred(predicted: np.ndarray, thresholds: Sequence[float] | np.ndarray) -> np.ndarray:
    """Probabilities [..., C] with odds divided by those of thresholds [C] or [..., C]."""
    t = np.clip(np.asarray(thresholds, float), 1e-6, 1 - 1e-6)
    up = predicted * (1 - t)
    return np.asarray(up / np.maximum(up + (1 - predicted) * t, 1e-12))


def _best_threshold(target: np.ndarray, predicted: np.ndarray) -> float:
    known = ~np.isnan(target)
    truth, p = target[known] > 0, predicted[known]
    if not truth.any() or truth.all():
        return EVEN
    order = np.argsort(-p, kind="stable")
    p, hits = p[order], np.cumsum(truth[order])
    count = np.arange(1, len(p) + 1)
    f1 = 2 * hits / (count + truth.sum())
    f1[:-1][p[:-1] == p[1:]] = -1  # a threshold cannot lie between equal probabilities
    k = int(f1.argmax())
    return float((p[k] + p[k + 1]) / 2) if k + 1 < len(p) else float(p[k] / 2)


def selected(tasks: Mapping[str, Task], name: str = "") -> Task:
    """The task that selects and leads reports: the named one, else the first. Raises BadConfig for an unknown name."""
    if name and name not in tasks:
        raise BadConfig(f"train.task = '{name}' is no task", f"the recipe's tasks are {', '.join(tasks)}")
    return tasks[name or next(iter(tasks))]
