"""From a clip to a Timeline, through the same extractors and the same Batch as training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affuse.core import io, run_files
from affuse.core.compound import Compound, derived, pairs_among
from affuse.core.config import shipped
from affuse.core.errors import AffuseError, BadConfig, BadMedia, BadRun, MissingDependency
from affuse.core.labels import SPACES
from affuse.core.tasks import Task, selected
from affuse.core.timeline import ModalityView, Segment, TaskInfo, Timeline
from affuse.core.types import MODALITIES, Batch, Feature, StreamSpec
from affuse.features.extractor import checked, make_extractor
from affuse.features.face_crops import FaceCrops
from affuse.inference.curves import Curves
from affuse.inference.decision import decide, least_probability, mean
from affuse.inference.face_tracks import ClipFaces, FaceBlock
from affuse.inference.influence import with_context
from affuse.inference.replaced_experts import notes, with_experts
from affuse.inference.utterances import Live, Predicted, encode, join, predict, repeated, tasks_of
from affuse.inference.windows import blocks, check_every, covered_share, overlaps, tiles, windows, with_words
from affuse.layers.lora import merge
from affuse.layers.repvgg import fused
from affuse.media.clip import Clip
from affuse.media.english import is_english
from affuse.media.files import check_clip
from affuse.media.probe import ClipInfo, probe
from affuse.media.speech import find_speech
from affuse.media.subtitles import Caption, find_captions
from affuse.media.voice import STEP
from affuse.models.model import Model
from affuse.models.saved import load_model
from affuse.stores.align import How, at_rate
from affuse.stores.collate import collate
from affuse.training.run_folder import open_run, run_model

LEAST_SOUND = 0.25  # s of voice, or of any sound, below which the sound of a segment counts as absent


@dataclass(frozen=True)
class Rules:
    """When a model may answer.

    `voice`: sound counts only where somebody speaks (else where it is not silent); `language` ("en"): the words that
    the model knows; `least`: the lowest probability of a label (None: an eighth of the way from chance to certainty).
    """

    voice: bool = False
    language: str = ""
    least: float | None = None


@dataclass
class Recognizer:
    """A trained model, ready for clips: `recognizer("talk.mp4")` gives a Timeline.

    A run of several folds or members answers with the mean of its models' probabilities. `unusable`: streams whose
    extractor is not installed, and what to do about it; they count as absent.
    """

    name: str
    models: list[Model]
    extractors: dict[str, Any]
    seconds: float
    device: torch.device
    rules: Rules = Rules()
    unusable: dict[str, MissingDependency] = field(default_factory=dict)
    grids: dict[str, How] = field(default_factory=dict)  # how streams that are read at another rate are resampled
    notes: tuple[str, ...] = ()  # for every reader of an answer
    lead: str = ""  # the task that leads (empty: the first)
    compound: Compound | None = None  # answer in compound emotions, made of the leading task's basic ones

    def __post_init__(self) -> None:
        """Raise BadConfig for compound emotions from a leading task that has not the six basic ones as classes."""
        if self.compound is None:
            return
        lead = next(iter(self.predicted.values()))
        if lead.kind != "classes":
            message = f"compound emotions need classes, and '{lead.name}' of {self.name} has {lead.kind}"
            raise BadConfig(message, "use a model whose leading task has the basic emotions, such as affuse-base")
        pairs_among(lead.space.labels)

    @cached_property
    def predicted(self) -> dict[str, Task]:
        """What the models predict, the leading task first."""
        found = tasks_of(self.models)
        lead = selected(found, self.lead)
        return {lead.name: lead} | found

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """What is answered, the leading task first: what is predicted, or compound emotions in the leading one."""
        if self.compound is None:
            return self.predicted
        name, lead = next(iter(self.predicted.items()))
        space = SPACES["compound-7"]
        return {**self.predicted, name: Task(name, space, lead.resolution, lead.reduce)}

    @property
    def task(self) -> Task:
        """The leading task."""
        return next(iter(self.tasks.values()))

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the leading task."""
        return self.task.space.labels

    @property
    def modalities(self) -> list[str]:
        """The modalities of the model, in affuse's order."""
        return [m for m in MODALITIES if m in set(self.models[0].modality.values())]

    @property
    def conversational(self) -> bool:
        """Whether an answer depends on neighbouring utterances."""
        return any(model.conversational for model in self.models)

    def live(self) -> Live:
        """A live session, which answers a conversation as it goes on. Raises BadConfig where a model looks ahead."""
        return Live(self.models, self.modalities)

    def __call__(
        self,
        clip: str | Path,
        transcript: str | Path | None = None,
        every: float | None = None,
        causal: bool = False,
        context: bool = False,
    ) -> Timeline:
        """Analyse a clip in the segments of its subtitles, else of its speech, else in overlapping windows.

        `every`: a row every so many seconds, from windows, whatever is said. `causal`: each answer from what came
        before the end of its segment only. `context`: also on which other segments each answer rests, for a model of
        conversations. Windows do not overlap under these two. Raises MissingFile or BadMedia for what cannot be read,
        BadConfig for `causal` with a model that looks ahead, and for `every` below 0.1.
        """
        check_every(every)
        check_clip(clip)
        path = Path(clip)
        info = probe(path)
        if info.duration <= 0 or not (info.audio or info.video):
            raise BadMedia(f"{path} has no sound and no picture", "give a clip with at least one of them")
        words = find_captions(path, transcript, self.rules.language or "en")
        voice, speech, audible = find_speech(path)
        unusable = [f"{stream}: {error.message}; {error.remedy}" for stream, error in self.unusable.items()]
        notes = [*self.notes, *unusable, *info.notes, *words.notes]
        if causal:
            notes.append("answered causally: each segment from what came before its end")
        if context and not self.conversational:
            notes.append(f"{self.name} answers each segment by itself, so no answer rested on others")
        if self.compound is not None:
            made = f"compound emotions made of the basic ones of {self.name} (rule: {self.compound.rule})"
            notes.append(f"{made}; it was not trained on them")
        alone = causal or self.conversational
        curves = Curves(self.predicted, info.duration)
        if curves.tasks:  # a curve goes through the whole clip, and not from word to word
            every = every or self.seconds / 2
        pieces, rows = self._intervals(info.duration, words.captions, speech, every, alone)
        reader = _ClipReader(self, path, info, voice, audible)
        if rows:
            answered = self._answer_rows(reader, pieces, rows, curves)
        else:
            answered = self._answer_blocks(reader, pieces, causal, context, curves)
        faces = reader.faces
        notes += [*(faces.notes() if faces else []), *info.findings()]  # known only after the clip was read
        timeline = Timeline(
            clip=os.fspath(clip),
            duration=info.duration,
            model=self.name,
            labels=self.labels,
            segments=answered,
            faces=faces.tracks() if faces else [],
            speech=speech if info.audio else None,
            notes=notes,
            tasks={name: _info(task) for name, task in self.predicted.items()},
            curves=curves.curves(),
        )
        if self.compound is not None:
            timeline = self.compound.timeline(timeline)
        return replace(timeline, segments=[self._decide(s) for s in timeline.segments])

    def _answer_blocks(
        self, reader: _ClipReader, pieces: list[Caption], causal: bool, context: bool, curves: Curves
    ) -> list[Segment]:
        """The answers, block by block; of all blocks together where a context attends to the whole conversation."""
        live = self.live() if causal else None
        # a causal model gets the same input live and afterwards when each segment is read by itself
        alone = causal or (self.conversational and all(model.causal for model in self.models))
        found, kept = [], []
        for block in blocks(pieces, alone=alone):
            part = reader.read(block)
            segments = [part.segment(c, part.coverage(i, c)) for i, c in enumerate(block)]
            utterances = encode(self.models, part.batch, self.device)
            curves.add(self.models, utterances, [c.start for c in block])
            if live is not None:
                segments = self._with_probabilities(segments, live.push(utterances))
            elif not self.conversational:
                segments = self._with_probabilities(segments, predict(self.models, utterances, self.modalities))
            found += segments
            if self.conversational and (context or live is None):
                kept.append(utterances)
        if not kept:
            return found
        whole = join(kept)
        if live is None:
            found = self._with_probabilities(found, predict(self.models, whole, self.modalities))
        return with_context(found, self.models, whole, self.task.name) if context else found

    def _answer_rows(
        self, reader: _ClipReader, pieces: list[Caption], rows: list[Caption], curves: Curves
    ) -> list[Segment]:
        """The rows with the mean answer of the windows over them, from those streams only that the row itself has."""
        parts: list[list[tuple[float, Segment]]] = [[] for _ in rows]
        for block in blocks(pieces, alone=False):
            part = reader.read(block)
            pairs = overlaps(block, rows)
            coverage = [part.coverage(i, rows[k]) for i, k, _ in pairs]
            found = [part.segment(rows[k], c) for (_, k, _), c in zip(pairs, coverage, strict=True)]
            utterances = encode(self.models, part.batch, self.device)
            curves.add(self.models, utterances, [c.start for c in block])
            utterances = repeated(utterances, [i for i, _, _ in pairs], torch.tensor(coverage) > 0)
            found = self._with_probabilities(found, predict(self.models, utterances, self.modalities))
            for (_, k, seconds), segment in zip(pairs, found, strict=True):
                parts[k].append((seconds, segment))
        return [mean(of_row) for of_row in parts]

    def _with_probabilities(self, segments: Sequence[Segment], predicted: Predicted) -> list[Segment]:
        """The segments with what every task predicts: [N, C] of all modalities together, then of each alone."""
        found = list(segments)
        lead = next(iter(self.predicted))
        for task in reversed(self.predicted.values()):  # the leading one last: others are answers beside it
            together, *alone = predicted[task.name]
            for i, s in enumerate(segments):
                if s.reason is not None:
                    continue
                views = {
                    m: replace(view, probabilities=named(task, mean[i])) if view.present else view
                    for (m, view), mean in zip(s.modalities.items(), alone, strict=True)
                }
                own = replace(s, probabilities=named(task, together[i]), modalities=views)
                leads = task.name == lead
                found[i] = replace(own, answers=found[i].answers) if leads else found[i].with_answer(task.name, own)
        return found

    def _intervals(
        self,
        duration: float,
        captions: list[Caption],
        speech: list[tuple[float, float]],
        every: float | None,
        alone: bool,
    ) -> tuple[list[Caption], list[Caption]]:
        """The segments to answer, and the rows in which overlapping windows are averaged (none without overlap)."""
        if every is None and captions:
            return captions, []
        if every is None and speech:
            return [Caption(a, b, "") for a, b in speech], []
        step = every or (self.seconds if alone else self.seconds / 2)
        # a caption counts where its middle lies; live, where it ends
        ends = [min(c.end, duration) for c in captions]
        said = [(b if alone else (c.start + b) / 2, c.text) for c, b in zip(captions, ends, strict=True)]
        rows = with_words(tiles(duration, step), said)
        if alone:
            return rows, []
        return with_words(windows(duration, max(self.seconds, step), step), said), rows

    def _decide(self, s: Segment) -> Segment:
        """The segment with the label of every task, by the rules of `decision`."""
        others = {name: decide(s.of(name), self.tasks[name], self._least(self.tasks[name])) for name in s.answers}
        s = decide(s, self.task, self._least(self.task))
        for name, decided in others.items():
            s = s.with_answer(name, decided)
        return s

    def _least(self, task: Task) -> float:
        """The least probability of a class."""
        return least_probability(len(task)) if self.rules.least is None else self.rules.least


def _info(task: Task) -> TaskInfo:
    return TaskInfo(task.kind, task.space.labels, task.space.low, task.space.high)


def named(task: Task, values: np.ndarray) -> dict[str, float]:
    """Predictions [C] by label."""
    return {label: float(v) for label, v in zip(task.space.labels, values, strict=True)}


class _ClipReader:
    """One clip while it is analysed, block by block; its picture is decoded once, and its faces are followed."""

    def __init__(
        self, recognizer: Recognizer, path: Path, info: ClipInfo, voice: np.ndarray, audible: np.ndarray
    ) -> None:
        self.recognizer, self.path, self.info = recognizer, path, info
        self.sound = voice >= 0.5 if recognizer.rules.voice else audible  # [T] bool: whether the sound of a STEP counts
        self.specs = recognizer.models[0].streams
        crops = next((c for e in recognizer.extractors.values() if (c := crops_of(e)) is not None), None)
        self.faces: ClipFaces | None = None
        if crops is not None and info.video:
            self.faces = ClipFaces(crops, Clip(video=path, end=info.duration), voice)

    def read(self, block: Sequence[Caption]) -> _ReadBlock:
        """The features and the Batch of a block of neighbouring segments."""
        spans = [(c.start, min(c.end, self.info.duration)) for c in block]
        start, end = min(a for a, _ in spans), max(b for _, b in spans)
        faces = self.faces.follow(start, end) if self.faces else None
        features = {s.name: self._features(s, block, spans, faces) for s in self.specs}
        rows: dict[str, list[Any]] = {
            "conversation": [str(self.path)] * len(block),
            "position": [a for a, _ in spans],
            "speaker": [self.speaker(c, faces) for c in block],
        }
        return _ReadBlock(self, block, faces, features, collate(self.specs, features, rows))

    def speaker(self, caption: Caption, faces: FaceBlock | None) -> str:
        """Who speaks in a segment: by its caption, else by the face whose mouth moves."""
        face = faces.speaker(caption.start, min(caption.end, self.info.duration)) if faces else None
        return caption.speaker or ("" if face is None else f"face {face + 1}")

    def _features(
        self, spec: StreamSpec, block: Sequence[Caption], spans: Sequence[tuple[float, float]], faces: FaceBlock | None
    ) -> list[Feature]:
        """One stream's Feature per segment, on the segment's own clock; absent where the rules ask for it."""
        extractor = self.recognizer.extractors.get(spec.name)
        absent = Feature(np.zeros((0, *spec.shape), np.float32))
        if extractor is None:
            return [absent] * len(block)
        if faces is not None and crops_of(extractor) is faces.faces.crops:
            embed = None if isinstance(extractor, FaceCrops) else extractor.embed
            read = [faces.crops(*span) if embed is None else faces.embedded(*span, embed) for span in spans]
            found = [checked(feature, spec.name) for feature in read]
            return self._on_grid(spec, extractor, found, spans, faces.clip.start)
        use = [self.why_unusable(spec, c) is None for c in block]
        rate, start = extractor.spec.rate, 0.0
        if rate > 0 and any(use):
            start, end = min(a for a, _ in spans), max(b for _, b in spans)
            whole = checked(extractor(Clip(video=self.path, start=start, end=end)), spec.name)
            found = [whole.between(rate, a - start, b - start) for a, b in spans]
        else:
            clips = [Clip(self.path, None, c.text or None, a, b) for c, (a, b) in zip(block, spans, strict=True)]
            found = [checked(extractor(c), spec.name) if u else absent for c, u in zip(clips, use, strict=True)]
        found = self._on_grid(spec, extractor, found, spans, start)
        return [f if u else absent for f, u in zip(found, use, strict=True)]

    def _on_grid(
        self, spec: StreamSpec, extractor: Any, found: list[Feature], spans: Sequence[tuple[float, float]], start: float
    ) -> list[Feature]:
        """The features of these segments at the rate of the model's stream; `start`: 0 of their clock, in s."""
        rate = extractor.spec.rate
        if spec.rate != rate:
            how = self.recognizer.grids[spec.name]
            found = [
                at_rate(f, rate, spec.rate, how, a - start, b - start) for f, (a, b) in zip(found, spans, strict=True)
            ]
        if rate <= 0:
            return found
        return [replace(f, t0=f.t0 + start - a) for f, (a, _) in zip(found, spans, strict=True)]

    def sound_share(self, caption: Caption) -> float:
        """Share of a segment with a voice (or, by the model's rules, any sound); 0 below LEAST_SOUND."""
        end = min(caption.end, self.info.duration)
        steps = self.sound[round(caption.start / STEP) : round(end / STEP)]
        enough = min(LEAST_SOUND, (end - caption.start) / 2)
        return float(steps.mean()) if len(steps) and steps.sum() * STEP >= enough else 0.0

    def why_unusable(self, spec: StreamSpec, caption: Caption) -> str | None:
        """Why a segment has nothing that the stream's extractor reads; None where it has something."""
        reads = getattr(self.recognizer.extractors.get(spec.name), "modalities", (spec.modality,))
        reasons = [self.why_absent(modality, caption) for modality in reads]
        return None if None in reasons else ", ".join(reason for reason in reasons if reason)

    def why_absent(self, modality: str, caption: Caption) -> str | None:
        """Why a modality is absent in a segment, by the clip and by the model's rules; None where it is present."""
        rules = self.recognizer.rules
        if modality == "audio":
            if not self.info.audio:
                return "no sound"
            return None if self.sound_share(caption) else "no speech" if rules.voice else "silence"
        if modality == "text":
            if not caption.text:
                return "no words"
            return "words are not English" if rules.language == "en" and not is_english(caption.text) else None
        return None


@dataclass(frozen=True)
class _ReadBlock:
    """A block that was read: its features by stream and segment, and the models' Batch of them."""

    reader: _ClipReader
    block: Sequence[Caption]
    faces: FaceBlock | None
    features: Mapping[str, Sequence[Feature]]
    batch: Batch

    def coverage(self, i: int, row: Caption) -> list[float]:
        """Share of the row, which is segment i or lies in it, in which each stream of the segment is usable."""
        own, found = self.block[i], []
        for spec in self.reader.specs:
            feature = self.features[spec.name][i]
            share = feature.coverage
            if spec.rate > 0 and row is not own:
                share = covered_share(feature, spec.rate, row.start - own.start, row.end - own.start)
            if spec.modality == "audio":
                share = min(share, self.reader.sound_share(row))
            found.append(share if self.reader.why_unusable(spec, row) is None else 0.0)
        return found

    def segment(self, row: Caption, coverage: Sequence[float]) -> Segment:
        """The row, not answered yet: how far each modality is present, or the reason where none is."""
        reader, views = self.reader, {}
        for m in reader.recognizer.modalities:
            share = max(c for spec, c in zip(reader.specs, coverage, strict=True) if spec.modality == m)
            views[m] = ModalityView(share > 0, share, {})
        reason = None if any(v.present for v in views.values()) else ", ".join(self._why_absent(m, row) for m in views)
        end = min(row.end, reader.info.duration)
        speaker = reader.speaker(row, self.faces) or None
        return Segment(row.start, end, speaker, None, {}, views, row.text or None, reason)

    def _why_absent(self, modality: str, row: Caption) -> str:
        reader = self.reader
        streams = [spec.name for spec in reader.specs if spec.modality == modality]
        unusable = [name for name in streams if name in reader.recognizer.unusable]
        if unusable:
            return f"{', '.join(unusable)} cannot be used"
        why = reader.why_absent(modality, row)
        if why or not self.faces:
            return why or "no face"
        return self.faces.why_absent(row.start, min(row.end, reader.info.duration))


def crops_of(extractor: Any) -> FaceCrops | None:
    """The face crops that an extractor encodes, where it takes those already found (`embed`); else None."""
    return extractor if isinstance(extractor, FaceCrops) else getattr(extractor, "crops", None)


def load(
    run: str | Path = "affuse-base",
    device: str = "cpu",
    experts: Mapping[str, str | Path] | None = None,
    labels: str | Compound = "",
) -> Recognizer:
    """The Recognizer of a shipped model or a run folder. Raises UnknownName, MissingFile or BadRun.

    `experts`: classifiers that replace the shipped model's own, modality -> "MODEL" or "MODEL@RELIABILITY" (see
    `affuse.inference.replaced_experts`); BadConfig with a run folder. `labels`: "compound" (or another of
    `affuse.core.compound.DERIVED`, or a Compound) answers in compound emotions; BadConfig for a model that lacks one of
    the six basic emotions.

    A run on imported features cannot be used: nothing here can make those features from a clip. A stream whose
    extractor lacks a package counts as absent (`unusable`), unless it is the only one.
    """
    compound = (labels if isinstance(labels, Compound) else derived(labels)) if labels else None
    path = Path(run)
    if not path.exists():
        path = shipped(path)
    if (path / "card.json").is_file():
        described, tensors = io.read_json(path / run_files.DESCRIPTION), io.read_tensors(path / run_files.WEIGHTS)
        if experts:
            model, parameters = with_experts(described, tensors, experts)
        else:
            model, parameters = load_model(described, tensors), described["extractors"]
        models, seconds, rules = [model.to(device)], described["typical_seconds"], Rules(**described["rules"])
    elif experts:
        message = f"{path} is a run folder, whose encoders were trained together"
        raise BadConfig(message, "give experts to affuse-base only")
    else:
        info, _, folds = open_run(path)
        folders = [folder for members in folds for folder in members]
        described = io.read_json(folders[0] / run_files.DESCRIPTION)
        models, seconds, rules = [run_model(f).to(device) for f in folders], info.get("typical_seconds") or 4.0, Rules()
        parameters = described["extractors"]
    if described.get("standardised_by"):
        what = ", ".join(f"{stream} by {column}" for stream, column in described["standardised_by"].items())
        message = f"{path} cannot analyse clips: it knows {what} standardised over many utterances of each"
        raise BadRun(message, "train it without streams.NAME.standardise_by")
    models = [merge(fused(model)) for model in models]
    extractors, unusable = _extractors(path, models[0].streams, parameters)
    return Recognizer(
        name=path.name,
        models=models,
        extractors=extractors,
        seconds=seconds,
        device=torch.device(device),
        rules=rules,
        unusable=unusable,
        grids=described.get("grids", {}),
        notes=tuple(notes(experts or {}, path.name)),
        lead=described.get("lead", ""),
        compound=compound,
    )


def _extractors(
    path: Path, streams: Sequence[StreamSpec], parameters: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, MissingDependency]]:
    """The extractor of every stream, and the error of each one that lacks a package."""
    found: dict[str, Any] = {}
    lacking: dict[str, MissingDependency] = {}
    for spec in streams:
        try:
            extractor = make_extractor(spec.name, parameters[spec.name])
            if extractor.spec.shape != spec.shape:
                raise BadRun(f"{spec.name} gives {extractor.spec.shape} here, not {spec.shape}", "check its options")
            found[spec.name] = extractor
        except MissingDependency as error:
            lacking[spec.name] = error
        except AffuseError as error:
            message = f"{path} cannot analyse clips: {error.message}"
            raise BadRun(message, "use a run whose streams are extractors") from error
    if not found:
        raise next(iter(lacking.values()))
    return found, lacking
