"""Challenges whose file has a row per clip of one part of a corpus: MER2023 and MuSe-Mimic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from affuse.core.errors import BadConfig, BadCorpus
from affuse.core.labels import SPACES, LabelSpace, canonical
from affuse.core.tasks import Task
from affuse.corpora.manifest import Corpus
from affuse.corpora.mer2023 import WITHOUT_VALENCE
from affuse.corpora.muse_mimic import TARGETS
from affuse.reporting.submissions.challenges import DECIMALS, choose, outside

Cells = tuple[str, ...]
Rows = dict[str, Cells]  # id -> the cells of its row


@dataclass(frozen=True)
class Answer:
    """What one task of a run answers: a class, by name in one column, or values, with a column per dimension.

    In the parts `unscored` a run needs no such task: the column then holds `unknown`.
    """

    space: LabelSpace
    columns: tuple[str, ...]
    unscored: tuple[str, ...] = ()
    unknown: float = math.nan

    def why_not(self, task: Task) -> str:
        """What keeps a task of the same kind from answering, in words; "" for nothing."""
        labels = [canonical(label) for label in task.space.labels]
        unknown = [label for label in labels if label not in self.space.labels]
        lacking = [label for label in self.space.labels if label not in labels]
        if unknown and self.space.kind == "classes":
            return f"has a class '{unknown[0]}' that the challenge has not"
        if lacking:
            return f"has no {'class ' if self.space.kind == 'classes' else ''}'{lacking[0]}'"
        if task.per_frame:
            return "answers per frame, not per clip"
        return outside(task, self.space) if self.space.kind == "values" else ""

    def cells(self, task: Task, predicted: np.ndarray) -> tuple[list[Cells], int]:
        """(the cells of every row, how many values were moved into the range) of predictions [N, C]."""
        order = [[canonical(label) for label in task.space.labels].index(label) for label in self.space.labels]
        predicted = predicted[:, order]
        if self.space.kind == "classes":
            return [(self.space.labels[k],) for k in predicted.argmax(1)], 0
        kept = np.clip(predicted, self.space.low, self.space.high)
        texts = [tuple(f"{value:.{DECIMALS}f}" for value in row) for row in np.round(kept, DECIMALS) + 0.0]  # no -0
        return texts, int((kept != predicted).sum())

    def check(self, cells: Sequence[str], part: str, where: str) -> None:
        """Raise BadCorpus for a class that is none of the challenge's, and for values that are none or out of range."""
        low, high = self.space.low, self.space.high
        for cell in cells:
            if self.space.kind == "classes":
                wrong, remedy = cell not in self.space.labels, f"classes are {', '.join(self.space.labels)}"
            else:
                value = _number(cell)
                wrong = not low <= value <= high and not (part in self.unscored and value == self.unknown)
                remedy = f"values are {low:g} to {high:g}"
            if wrong:
                raise BadCorpus(f"{where}: {cell!r} is no {' or '.join(self.columns)}", remedy)


@dataclass(frozen=True)
class ClipChallenge:
    """One challenge: the importer of its corpus, the column of ids, what is answered, and its parts.

    `parts`: part -> its value in the corpus' column `column`. `quoted`: ids stand in double quotes in the release.
    """

    name: str
    corpus: str
    key: str
    answers: tuple[Answer, ...]
    column: str
    parts: Mapping[str, str]
    quoted: bool = False

    @property
    def head(self) -> Cells:
        """The cells of the first line."""
        return (self.key, *(column for answer in self.answers for column in answer.columns))

    def rows_of(self, corpus: Corpus, part: str | None) -> tuple[str, np.ndarray]:
        """(part, which rows of the corpus [N] are in it); without a part the only one that the corpus has.

        Raises BadConfig for a corpus of another kind, an empty part, and where several parts could be meant.
        """
        if corpus.name != self.corpus or self.column not in corpus.table:
            message = f"{corpus.path} is a corpus of '{corpus.name}', {self.name} needs one of '{self.corpus}'"
            raise BadConfig(message, f"import it: affuse import {self.corpus} SRC DST")
        cells = corpus.table[self.column].to_numpy(dtype=object)
        there = [name for name, value in self.parts.items() if (cells == value).any()]
        if part is None and len(there) > 1:
            raise BadConfig(f"{corpus.path} has {', '.join(there)}", f"name one of them: --part {there[0]}")
        part = part or next(iter(there), "any part")
        if part not in there:
            remedy = f"it has {', '.join(there)}" if there else f"import one of {', '.join(self.parts)}"
            raise BadConfig(f"{corpus.path} has no clip of {part}", remedy)
        return part, np.asarray(cells == self.parts[part])

    def tasks_of(self, run: str, tasks: Mapping[str, Task], part: str) -> list[Task | None]:
        """The run's task for every answer; None for one that the part does without. Raises BadConfig."""
        return [self._task_of(answer, run, tasks, part) for answer in self.answers]

    def check(self, cells: Sequence[str], part: str, where: str) -> None:
        """Raise BadCorpus for cells of a row, after its id, that are no answer to the challenge."""
        first = 0
        for answer in self.answers:
            answer.check(cells[first : first + len(answer.columns)], part, where)
            first += len(answer.columns)

    def _task_of(self, answer: Answer, run: str, tasks: Mapping[str, Task], part: str) -> Task | None:
        try:
            return choose(self.name, answer.space, run, tasks, answer.why_not)
        except BadConfig:
            if part in answer.unscored:
                return None
            raise


def rows_for(
    challenge: ClipChallenge, ids: Sequence[str], tasks: Sequence[Task | None], predicted: Mapping[str, np.ndarray]
) -> tuple[Rows, int]:
    """(id -> cells, how many values were moved into the range) of predictions [N, C] by task, in the order of ids."""
    columns: list[list[Cells]] = []
    moved = 0
    for answer, task in zip(challenge.answers, tasks, strict=True):
        unknown = [(f"{answer.unknown:g}",) * len(answer.columns)] * len(ids)
        cells, clipped = (unknown, 0) if task is None else answer.cells(task, predicted[task.name])
        columns.append(cells)
        moved += clipped
    return {name: sum(row, ()) for name, *row in zip(ids, *columns, strict=True)}, moved


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


MER2023 = ClipChallenge(
    "mer2023",
    corpus="mer2023",
    key="name",
    answers=(
        Answer(SPACES["mer2023-6"], ("discrete",)),
        Answer(SPACES["mer2023-valence"], ("valence",), unscored=("semi",), unknown=WITHOUT_VALENCE),
    ),
    column="part",
    parts={"multi": "multi", "noise": "noise", "semi": "semi"},
)
MUSE_MIMIC = ClipChallenge(
    "muse-mimic",
    corpus="muse_mimic",
    key="filename",
    answers=(Answer(SPACES["muse-mimic-3"], tuple(TARGETS.values())),),
    column="split",
    parts={"test": "test", "devel": "valid"},
    quoted=True,
)
