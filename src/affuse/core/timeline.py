"""Timeline: the analysis of one clip, as rows. It knows no file format: writers are looked up by name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affuse.core import registry
from affuse.core.io import atomic

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = "not enough to tell"


@dataclass(frozen=True)
class ModalityView:
    """One modality in a segment: present, coverage (share of time it was usable, 0..1), its own probabilities."""

    present: bool
    coverage: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Context:
    """Another segment (its index) that an answer rested on; influence 0..1: how far the answer moves without it."""

    segment: int
    influence: float


@dataclass(frozen=True)
class Segment:
    """One stretch of a clip, seconds; `label` is None where nothing was usable and `reason` says why.

    `context`: the others that the answer rested on, the strongest first, where that was asked. `conflict`: the modalities
    that say otherwise than the answer by themselves, clearly, or all of them where none says it.
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

    @property
    def dissent(self) -> str:
        """What the modalities in conflict say by themselves: "audio disgust 0.46, text sad 0.82"; empty without a conflict."""
        said = {m: self.modalities[m].probabilities for m in self.conflict}
        return ", ".join(f"{m} {best} {p[best]:.2f}" for m, p in said.items() for best in [max(p, key=lambda k: p[k])])


@dataclass(frozen=True)
class FaceTrack:
    """One person's face: the stretches (s) in which it was seen, and those in which its mouth moved with the voice."""

    id: int
    seen: list[tuple[float, float]]
    speaking: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Timeline:
    """The analysis of one clip; iterates as (segment, label).

    `faces`: one track per person; `speech`: stretches (s) with a voice, None where there is no sound;
    `notes`: what the reader should know, such as a modality that could not be used.
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

    def __iter__(self) -> Iterator[tuple[Segment, str]]:
        return ((s, s.label or UNKNOWN) for s in self.segments)

    def __len__(self) -> int:
        return len(self.segments)

    def to_dict(self) -> dict[str, Any]:
        """The fixed JSON layout: clip, duration, model, labels, segments, faces, speech, notes, error."""
        return asdict(self) | {"labels": list(self.labels)}

    def to_json(self) -> str:
        """One JSON object on one line."""
        return json.dumps(_rounded(self.to_dict()), ensure_ascii=False)

    def to_frame(self) -> pd.DataFrame:
        """One row per segment: times, speaker, label, a column per probability, coverage per modality, text."""
        import pandas as pd

        return pd.DataFrame([self._row(s) for s in self.segments])

    def render(self, format: str, **options: Any) -> str | bytes:
        """What a file of this format holds; `format` is a name of `affuse list writers`, `options` are the writer's own.

        Raises UnknownName for another format, MissingDependency for a writer whose packages are absent, BadMedia for a
        clip that could not be analysed in a format that cannot say so.
        """
        content: str | bytes = registry.load("writers", format)(self, **options)
        return content

    def save(self, path: Path | str, format: str, **options: Any) -> Path:
        """Write the file of this format, aside and then renamed; returns its path. Raises what `render` raises."""
        return _written(path, self.render(format, **options))

    def to_html(self, path: Path | str | None = None) -> str:
        """One self-contained page (returned, and written to `path`); with pictures and sound while the clip is there."""
        page = str(self.render("html"))
        if path is not None:
            _written(path, page)
        return page

    def plot(self, path: Path | str) -> Path:
        """A picture for a paper (.png at 300 dpi, .pdf or .svg); returns its path. MissingDependency without `plot`."""
        return self.save(path, "png", suffix=Path(path).suffix)

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
        return row | {"text": s.text, "reason": s.reason, "conflict": s.dissent or None}


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
