"""What the challenges of ABAW ask for per frame, and how a model's predictions become that.

The head lines and rows are those of the organisers' sample files, as public submissions to ABAW 3 to 8 have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from affuse.core.errors import BadConfig, BadCorpus
from affuse.core.labels import SPACES, LabelSpace, canonical
from affuse.core.tasks import Task

PLACE = "image_location"  # the first column: VIDEO/00001.jpg
DECIMALS = 6  # of values
Row = tuple[float, ...]  # one class index; or 0, 1 per label; or values


@dataclass(frozen=True)
class Challenge:
    """One challenge: its classes, labels or dimensions, and the columns of its file after `image_location`.

    A file of classes holds a single index per row, although its head line names a column per class. `ignored`: classes
    that a model may have and the challenge has not; the best of the others is taken then.
    """

    name: str
    space: LabelSpace
    columns: tuple[str, ...]
    ignored: tuple[str, ...] = ()

    @property
    def head(self) -> str:
        """The first line of the file."""
        return ",".join((PLACE, *self.columns))

    @property
    def default(self) -> Row:
        """The row of a frame about which nothing is known: neutral where there is such a class, else class 0; zeros."""
        if self.space.kind == "classes":
            return (float(self.space.labels.index("neutral") if "neutral" in self.space.labels else 0),)
        return (0.0,) * len(self.space)

    def task_of(self, model: str, tasks: Mapping[str, Task]) -> Task:
        """The first task of a model that answers this challenge.

        Raises BadConfig where none is of this kind, and for one with a class that the challenge has not, without a
        label that it needs, or with another range of values.
        """
        return choose(self.name, self.space, model, tasks, self._why_not)

    def _why_not(self, task: Task) -> str:
        labels = [canonical(label) for label in task.space.labels]
        unknown = [label for label in labels if label not in self.space.labels and label not in self.ignored]
        lacking = [label for label in self.space.labels if label not in labels]
        if self.space.kind == "classes":
            if unknown:
                return f"has a class '{unknown[0]}' that is unknown to {self.name}"
            return f"has no class of {self.name}" if len(lacking) == len(self.space) else ""
        if lacking:
            return f"has no '{lacking[0]}'"
        return outside(task, self.space) if self.space.kind == "values" else ""

    def never(self, task: Task) -> list[str]:
        """Classes of the challenge that the task's answers cannot name."""
        return [label for label in self.space.labels if label not in map(canonical, task.space.labels)]

    def rows(self, task: Task, predicted: np.ndarray) -> list[Row]:
        """Predictions [T, C] of the task, without NaN, as rows of the file: likeliest class, labels, or values."""
        labels = [canonical(label) for label in task.space.labels]
        if self.space.kind == "classes":
            known = [i for i, label in enumerate(labels) if label in self.space.labels]
            index = np.array([self.space.labels.index(labels[i]) for i in known])
            return [(float(k),) for k in index[predicted[:, known].argmax(1)]]
        decided = task.decide(predicted)[:, [labels.index(label) for label in self.space.labels]]
        if self.space.kind == "values":
            decided = np.round(np.clip(decided, self.space.low, self.space.high), DECIMALS) + 0.0  # no -0
        return [tuple(float(v) for v in row) for row in decided]

    def written(self, row: Row) -> str:
        """A row's cells as text."""
        if self.space.kind == "values":
            return ",".join(f"{value:.{DECIMALS}f}" for value in row)
        return ",".join(f"{value:.0f}" for value in row)

    def read(self, cells: list[str], where: str) -> Row:
        """The row that `written` wrote. Raises BadCorpus for no numbers, too many, an unknown class, other values."""
        try:
            row = tuple(float(cell) for cell in cells)
        except ValueError as error:
            raise BadCorpus(f"{where}: {','.join(cells)!r} are no numbers", f"write the file again: {error}") from error
        classes = self.space.kind == "classes"
        width = 1 if classes else len(self.space)
        if len(row) != width:
            raise BadCorpus(f"{where}: {len(row)} values, {self.name} has {width}", "one row per frame, as in the spec")
        low, high = (0, len(self.space) - 1) if classes else (self.space.low, self.space.high)
        whole = self.space.kind != "values"
        wrong = [v for v in row if not low <= v <= high or (whole and v != round(v))]
        if wrong:
            what = "class" if classes else "value"
            raise BadCorpus(f"{where}: {what} {wrong[0]:g} is unknown to {self.name}", f"it has {low:g} to {high:g}")
        return row


def choose(
    challenge: str, space: LabelSpace, model: str, tasks: Mapping[str, Task], why_not: Callable[[Task], str]
) -> Task:
    """The first task of a model that answers in the challenge's label space.

    `why_not`: what is wrong with a task of that kind ("" for nothing). Raises BadConfig where none fits.
    """
    candidates = [task for task in tasks.values() if task.kind == space.kind]
    if not candidates:
        predicts = ", ".join(f"{name} ({task.kind})" for name, task in tasks.items())
        remedy = f"use a run with a task for the label space '{space.name}'"
        raise BadConfig(f"{challenge} needs {space.kind}, and {model} predicts {predicts}", remedy)
    refusals = {task.name: why_not(task) for task in candidates}
    fits = [task for task in candidates if not refusals[task.name]]
    if not fits:
        message = f"'{candidates[0].name}' of {model} {refusals[candidates[0].name]}"
        remedy = f"{challenge} has {', '.join(space.labels)}: use a run that is trained on these"
        raise BadConfig(message, remedy)
    return fits[0]


def outside(task: Task, space: LabelSpace) -> str:
    """What is wrong with the range of a task's values, in words; "" where it is that of the space."""
    if (task.space.low, task.space.high) == (space.low, space.high):
        return ""
    return f"has values from {task.space.low:g} to {task.space.high:g}, not {space.low:g} to {space.high:g}"


def _title(label: str) -> str:
    return "_".join(word.capitalize() for word in label.split())


_EXPRESSIONS = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")  # as in abaw-8
_COMPOUND, _UNITS = SPACES["compound-7"], SPACES["action-units-12"]

CHALLENGES: dict[str, Challenge] = {
    challenge.name: challenge
    for challenge in (
        Challenge("abaw-compound", _COMPOUND, tuple(_title(label) for label in _COMPOUND.labels), ignored=("other",)),
        Challenge("abaw-expression", SPACES["abaw-8"], _EXPRESSIONS),
        Challenge("abaw-va", SPACES["va"], SPACES["va"].labels),
        Challenge("abaw-au", _UNITS, tuple(label.upper() for label in _UNITS.labels)),
    )
}
