"""From a clip to a Timeline, through the same extractors and the same Batch as training."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affuse.core import io
from affuse.core.errors import AffuseError, BadMedia, BadRun, MissingFile
from affuse.core.types import MODALITIES, Batch, Feature, StreamSpec
from affuse.evaluation.predict import predict_subsets
from affuse.features.collate import collate
from affuse.features.extract import checked, make_extractor
from affuse.inference.timeline import ModalityView, Segment, Timeline
from affuse.media.clip import Clip
from affuse.media.probe import probe
from affuse.media.subtitles import Caption, read_subtitles, sidecar
from affuse.models.model import Model
from affuse.training.run import open_run, run_model

BLOCK_SECONDS = 60.0


@dataclass
class Recognizer:
    """A trained run, ready for clips: `recognizer("talk.mp4")` gives a Timeline.

    A run of several folds or members answers with the mean of its models' probabilities.
    """

    name: str
    models: list[Model]
    extractors: dict[str, Any]
    seconds: float
    device: torch.device

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the model's first task."""
        return next(iter(self.models[0].spaces.values())).labels

    def __call__(self, clip: str | Path, transcript: str | Path | None = None, window: float | None = None) -> Timeline:
        """Analyse a clip in the stretches of its subtitles, else in windows of `window` seconds.

        Raises MissingFile or BadMedia for what cannot be read.
        """
        path = Path(clip)
        info = probe(path)
        captions = _captions(path, transcript)
        if info.duration <= 0 or not (info.audio or info.video):
            raise BadMedia(f"{path} has no sound and no picture", "give a clip with at least one of them")
        if captions:
            pieces = [c for c in captions if c.start < info.duration]
        else:
            pieces = [Caption(a, b, "") for a, b in windows(info.duration, window or self.seconds)]
        segments = [s for block in blocks(pieces) for s in self._segments(path, block, info.duration)]
        return Timeline(os.fspath(clip), info.duration, self.name, self.labels, segments)

    def _segments(self, path: Path, block: Sequence[Caption], duration: float) -> list[Segment]:
        """The answers for one block of neighbouring stretches, its media decoded once."""
        spans = [(c.start, min(c.end, duration)) for c in block]
        features = self._features(path, block, spans)
        batch = collate(self.models[0].streams, features)
        modalities = [m for m in MODALITIES if m in set(self.models[0].modality.values())]
        subsets = [tuple(modalities), *[(m,) for m in modalities]]
        task = next(iter(self.models[0].spaces))
        answers = [predict_subsets(model, _One(batch), self.device, list(subsets)) for model in self.models]
        means = [np.mean([a[i][task] for a in answers], axis=0) for i in range(len(subsets))]
        return [
            self._segment(i, caption, span, batch, features, means, modalities)
            for i, (caption, span) in enumerate(zip(block, spans, strict=True))
        ]

    def _features(
        self, path: Path, block: Sequence[Caption], spans: Sequence[tuple[float, float]]
    ) -> dict[str, list[Feature]]:
        """Features per stream and stretch: timed streams are extracted once per block and cut, others per stretch."""
        start, end = min(a for a, _ in spans), max(b for _, b in spans)
        found: dict[str, list[Feature]] = {}
        for spec in self.models[0].streams:
            extractor = self.extractors[spec.name]
            if spec.rate > 0:
                whole = checked(extractor(Clip(video=path, start=start, end=end)), spec.name)
                found[spec.name] = [whole.between(spec.rate, a - start, b - start) for a, b in spans]
            else:
                clips = [Clip(path, None, c.text or None, a, b) for c, (a, b) in zip(block, spans, strict=True)]
                found[spec.name] = [checked(extractor(c), spec.name) for c in clips]
        return found

    def _segment(
        self,
        i: int,
        caption: Caption,
        span: tuple[float, float],
        batch: Batch,
        features: dict[str, list[Feature]],
        means: list[np.ndarray],
        modalities: Sequence[str],
    ) -> Segment:
        specs = self.models[0].streams
        present = {m: any(bool(batch.present[i, k]) for k, s in enumerate(specs) if s.modality == m) for m in modalities}
        views = {
            m: ModalityView(present[m], _coverage(m, specs, features, i), self._named(mean[i]) if present[m] else {})
            for m, mean in zip(modalities, means[1:], strict=True)
        }
        text = caption.text or None
        if not any(present.values()):
            return Segment(*span, caption.speaker, None, {}, views, text, _reason(modalities))
        probabilities = self._named(means[0][i])
        label = max(probabilities, key=lambda k: probabilities[k])
        return Segment(*span, caption.speaker, label, probabilities, views, text)

    def _named(self, values: np.ndarray) -> dict[str, float]:
        return {label: float(v) for label, v in zip(self.labels, values, strict=True)}


@dataclass
class _One:
    """A dataset of a single ready Batch."""

    batch: Batch

    def batches(self, size: int) -> Iterator[Batch]:
        yield self.batch


def load(run: str | Path, device: str = "cpu") -> Recognizer:
    """The Recognizer of a run folder. Raises MissingFile or BadRun.

    A run on imported features cannot be used: nothing here can make those features from a clip.
    """
    path = Path(run)
    if not path.exists():
        raise MissingFile(f"no run {path}", "train one (affuse train ...) or give the path of a run folder")
    info, _, folds = open_run(path)
    folders = [folder for members in folds for folder in members]
    models = [run_model(folder).to(device) for folder in folders]
    parameters = io.read_json(folders[0] / "model.json")["extractors"]
    try:
        extractors = {s.name: make_extractor(s.name, parameters[s.name]) for s in models[0].streams}
    except AffuseError as error:
        raise BadRun(f"{path} cannot analyse clips: {error.message}", "use a run whose streams are extractors") from error
    return Recognizer(path.name, models, extractors, info.get("typical_seconds") or 4.0, torch.device(device))


def windows(duration: float, seconds: float) -> list[tuple[float, float]]:
    """Stretches of `seconds` that cover [0, duration]; a rest shorter than half a window joins the one before."""
    count = max(1, int(duration / seconds + 0.5))
    edges = [k * seconds for k in range(count)] + [duration]
    return list(zip(edges, edges[1:], strict=False))


def blocks(pieces: Sequence[Caption], seconds: float = BLOCK_SECONDS) -> Iterator[list[Caption]]:
    """Neighbouring stretches together while they span at most `seconds`: what is decoded at a time."""
    block: list[Caption] = []
    for piece in pieces:
        if block and max(piece.end, *(c.end for c in block)) - block[0].start > seconds:
            yield block
            block = []
        block.append(piece)
    if block:
        yield block


def _captions(path: Path, transcript: str | Path | None) -> list[Caption]:
    found = Path(transcript) if transcript is not None else sidecar(path)
    return read_subtitles(found) if found is not None else []


def _coverage(modality: str, specs: Sequence[StreamSpec], features: dict[str, list[Feature]], i: int) -> float:
    return max(features[s.name][i].coverage for s in specs if s.modality == modality)


def _reason(modalities: Sequence[str]) -> str:
    lacking = {"audio": "no sound", "vision": "no face", "text": "no words"}
    return ", ".join(lacking[m] for m in modalities)
