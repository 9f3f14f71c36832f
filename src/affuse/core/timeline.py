"""Timeline: the analysis of one clip, as rows. It knows no file format: writers are looked up by name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affuse.core import registry
from affuse.core.io import atomic

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = "not enough to tell"
AND = " + "  # between the labels of a segment that has several


def in_words(values: Mapping[str, float]) -> str:
    """Values by their names: valence +0.31, arousal -0.20."""
    return ", ".join(f"{name} {value:+.2f}" for name, value in values.items())


@dataclass(frozen=True)
class ModalityView:
    """One modality in a segment: present, coverage (share of time it was usable, 0..1), its own probabilities."""

    present: bool
    coverage: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Context:
    """Another segment (its index) on which an answer rests; influence 0..1: how far the answer moves without it."""

    segment: int
    influence: float


@dataclass(frozen=True)
class Answer:
    """What one of a model's other tasks predicts for a segment: of all modalities together, and of each alone.

    `label`: the class, the labels joined by " + ", or None where there is no answer and `reason` says why;
    `probabilities` are values on their scale for a task of values.
    """

    label: str | None
    probabilities: dict[str, float]
    modalities: dict[str, dict[str, float]]
    reason: str | None = None


@dataclass(frozen=True)
class Segment:
    """One part of a clip, from `start` to `end` (s); `label` is None where there is no answer and `reason` says why.

    `context`: the segments on which the answer rests, the strongest first, where that was asked for. `conflict`: the
    modalities that clearly predict another label by themselves, or all of them where none predicts this one. `answers`:
    those of the model's other tasks, by name.
    """

    start: float
    end: float
    speaker: str | None
    label: str | None
    probabilities: dict[str, float]
    modalities: dict[str, ModalityView]
    text: str | None = None
    reason: str | None = None
    context: list[Context] = field(default_factory=list)
    conflict: list[str] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """The label, or the labels of a task of which several may hold."""
        return self.label.split(AND) if self.label else []

    @property
    def probability(self) -> float:
        """That of the label; the lowest of several."""
        return min((self.probabilities.get(label, 0.0) for label in self.labels), default=0.0)

    def of(self, task: str) -> Segment:
        """The segment with the answer of another task in place of the leading one's."""
        answer = self.answers[task]
        views = {m: replace(v, probabilities=answer.modalities.get(m, {})) for m, v in self.modalities.items()}
        own = replace(self, label=answer.label, probabilities=answer.probabilities, reason=answer.reason)
        return replace(own, modalities=views, conflict=[], answers={})

    def with_answer(self, task: str, other: Segment) -> Segment:
        """The segment with the leading answer of another one as its answer for a task."""
        alone = {m: v.probabilities for m, v in other.modalities.items() if v.probabilities}
        answer = Answer(other.label, other.probabilities, alone, other.reason)
        return replace(self, answers={**self.answers, task: answer})

    @property
    def dissent(self) -> str:
        """What the modalities in conflict predict: "audio disgust 0.46, text sad 0.82"; empty without a conflict."""
        alone = {m: self.modalities[m].probabilities for m in self.conflict}
        best = {m: max(p, key=lambda label: p[label]) for m, p in alone.items()}
        return ", ".join(f"{m} {best[m]} {p[best[m]]:.2f}" for m, p in alone.items())


@dataclass(frozen=True)
class TaskInfo:
    """A task of the model: classes, multilabel or values, its labels, and the range of values."""

    kind: str
    labels: tuple[str, ...]
    low: float = 0.0
    high: float = 1.0

    def share(self, value: float) -> float:
        """Where a value stands in the range, 0..1."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


@dataclass(frozen=True)
class Curve:
    """What a task per frame predicts along the clip: values [T, C] of `labels`, step k from t0 + k / rate (s) on.

    A step without an answer is None.
    """

    labels: tuple[str, ...]
    rate: float
    t0: float
    values: list[list[float] | None]

    @classmethod
    def of(cls, labels: tuple[str, ...], rate: float, t0: float, values: np.ndarray) -> Curve:
        """From an array [T, C] in which a step without an answer is NaN."""
        known = ~np.isnan(values).any(1)
        return cls(labels, rate, t0, [row if k else None for row, k in zip(values.tolist(), known, strict=True)])

    def array(self) -> np.ndarray:
        """Values [T, C] in float64, NaN at steps without an answer."""
        nothing = [np.nan] * len(self.labels)
        rows = [nothing if row is None else row for row in self.values]
        return np.array(rows, dtype=float).reshape(len(rows), len(self.labels))


@dataclass(frozen=True)
class FaceTrack:
    """One person's face: the spans (s) in which it is on screen, and those in which its mouth moves with the voice."""

    id: int
    seen: list[tuple[float, float]]
    speaking: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Timeline:
    """The analysis of one clip; iterates as (segment, label).

    `faces`: one track per face; `speech`: spans (s) with a voice, None where there is no sound; `notes`: what the
    reader should know, such as a modality that could not be used; `tasks`: what the model predicts, the leading task
    first, whose labels are `labels`; `curves`: the answers per frame of the tasks that have them.
    """

    clip: str
    duration: float
    model: str
    labels: tuple[str, ...]
    segments: list[Segment] = field(default_factory=list)
    faces: list[FaceTrack] = field(default_factory=list)
    speech: list[tuple[float, float]] | None = None
    notes: list[str] = field(default_factory=list)
    error: dict[str, str] | None = None
    tasks: dict[str, TaskInfo] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[Segment, str]]:
        return ((s, s.label or UNKNOWN) for s in self.segments)

    def __len__(self) -> int:
        return len(self.segments)

    def to_dict(self) -> dict[str, Any]:
        """The fixed JSON layout: its keys are the names of the fields."""
        tasks = {name: asdict(task) | {"labels": list(task.labels)} for name, task in self.tasks.items()}
        return asdict(self) | {"labels": list(self.labels), "tasks": tasks}

    @property
    def values(self) -> bool:
        """Whether the leading task predicts values, which are no probabilities."""
        return any(task.kind == "values" for task in list(self.tasks.values())[:1])

    def steps(self) -> Timeline:
        """The timeline with a segment per step of the leading task's curve; itself where there is none."""
        curve = self.curves.get(next(iter(self.tasks), ""))
        if curve is None:
            return self
        found = []
        for k, row in enumerate(curve.values):
            start = curve.t0 + k / curve.rate
            p = {} if row is None else dict(zip(curve.labels, row, strict=True))
            label = (in_words(p) if self.values else max(p, key=lambda name: p[name])) if p else None
            found.append(Segment(start, min(start + 1 / curve.rate, self.duration), None, label, p, {}))
        return replace(self, segments=[s for s in found if s.end > s.start], curves={})

    def of_task(self, name: str) -> Timeline:
        """The timeline of one task alone, its values as shares of their range: what is drawn."""
        task = self.tasks[name]
        found = self.segments
        if name in self.other_tasks:
            found = [s.of(name) for s in self.segments if name in s.answers]
        if task.kind == "values":
            found = [_scaled(s, task) for s in found]
        return replace(self, labels=task.labels, segments=found, tasks={name: task})

    def other_answer(self, s: Segment, task: str) -> str:
        """What another task predicts for a segment, in words: the label with its probability, or the values.

        Empty where the segment has no answer at all.
        """
        answer = s.answers.get(task)
        if answer is None or not answer.probabilities:
            return ""
        if self.tasks[task].kind == "values":
            values = answer.probabilities
            return in_words(values) if len(values) > 1 else "".join(f"{v:+.2f}" for v in values.values())
        of = s.of(task)
        return f"{of.label} {of.probability:.2f}" if of.label else UNKNOWN

    @property
    def other_tasks(self) -> dict[str, TaskInfo]:
        """All but the leading task."""
        return dict(list(self.tasks.items())[1:])

    def to_json(self) -> str:
        """One JSON object on one line."""
        return json.dumps(_rounded(self.to_dict()), ensure_ascii=False)

    def to_frame(self) -> pd.DataFrame:
        """One row per segment: times, speaker, label, a column per probability, coverage per modality, text."""
        import pandas as pd

        return pd.DataFrame([self._row(s) for s in self.segments])

    def to_frames(self) -> pd.DataFrame:
        """One row per step of the curves: clip, time (s), and `TASK:LABEL` of all; empty where there is no answer."""
        import pandas as pd

        columns: dict[str, Any] = {}
        for name, curve in self.curves.items():
            columns |= {"time": [round(curve.t0 + k / curve.rate, 4) for k in range(len(curve.values))]}
            for i, label in enumerate(curve.labels):
                columns[f"{name}:{label}"] = [None if row is None else row[i] for row in curve.values]
        clip = os.fsencode(self.clip).decode(errors="replace")
        return pd.DataFrame({"clip": clip, **columns})

    def render(self, format: str, **options: Any) -> str | bytes:
        """The content of a file of this format: a name of `affuse list writers`; `options` are the writer's own.

        Raises UnknownName for another format, MissingDependency for a writer whose packages are absent, BadMedia for a
        clip that could not be analysed in a format that cannot say so.
        """
        content: str | bytes = registry.load("writers", format)(self, **options)
        return content

    def save(self, path: Path | str, format: str, **options: Any) -> Path:
        """Write the file of this format, aside and then renamed; returns its path. Raises what `render` raises."""
        return _written(path, self.render(format, **options))

    def to_html(self, path: Path | str | None = None) -> str:
        """One self-contained page, returned and written to `path`; with pictures and sound while the clip exists."""
        page = str(self.render("html"))
        if path is not None:
            _written(path, page)
        return page

    def plot(self, path: Path | str) -> Path:
        """A picture for a paper (.png at 300 dpi, .pdf or .svg); returns its path. MissingDependency without `plot`."""
        return self.save(path, "png", suffix=Path(path).suffix)

    def reasons(self) -> str:
        """Why segments have no answer, the most frequent reason first."""
        time: dict[str, float] = {}
        for s in self.segments:
            if s.label is None:
                time[s.reason or "nothing usable"] = time.get(s.reason or "nothing usable", 0.0) + s.end - s.start
        return "; ".join(sorted(time, key=lambda reason: -time[reason])[:3]) or "no segment in this clip"

    @property
    def file(self) -> Path | None:
        """The clip itself; None where it is no longer there."""
        path = Path(self.clip)
        return path if path.is_file() else None

    def _row(self, s: Segment) -> dict[str, Any]:
        clip = os.fsencode(self.clip).decode(errors="replace")  # a table holds text, a file name any bytes
        row: dict[str, Any] = {"clip": clip, "start": s.start, "end": s.end, "speaker": s.speaker}
        row |= {"label": s.label or UNKNOWN} | {f"p:{label}": s.probabilities.get(label) for label in self.labels}
        row |= {f"coverage:{m}": view.coverage for m, view in s.modalities.items()}
        for name, task in self.other_tasks.items():
            answer = s.answers.get(name)
            if task.kind != "values":
                row[name] = (answer.label if answer else None) or UNKNOWN
            mark = f"{name}:p:" if task.kind != "values" else f"{name}:"
            row |= {f"{mark}{label}": answer.probabilities.get(label) if answer else None for label in task.labels}
        return row | {"text": s.text, "reason": s.reason, "conflict": s.dissent or None}


def _scaled(s: Segment, task: TaskInfo) -> Segment:
    """The segment with its values as shares of their range, those of each modality alone too."""

    def shares(values: dict[str, float]) -> dict[str, float]:
        return {label: task.share(v) for label, v in values.items()}

    views = {m: replace(v, probabilities=shares(v.probabilities)) for m, v in s.modalities.items()}
    return replace(s, probabilities=shares(s.probabilities), modalities=views)


def _written(path: Path | str, content: str | bytes) -> Path:
    with atomic(path) as aside:
        aside.write_bytes(content.encode("utf-8", errors="surrogateescape") if isinstance(content, str) else content)
    return Path(path)


def _rounded(value: Any) -> Any:
    """Floats to 4 decimals, so that the lines stay readable."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list | tuple) else value
