"""From a clip to a Timeline, through the same extractors and the same Batch as training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affuse.core import io
from affuse.core.config import shipped
from affuse.core.errors import AffuseError, BadConfig, BadMedia, BadRun, MissingDependency
from affuse.core.timeline import ModalityView, Segment, Timeline
from affuse.core.types import MODALITIES, Batch, Feature, StreamSpec
from affuse.features.extractor import checked, make_extractor
from affuse.features.face_crops import FaceCrops
from affuse.inference.answers import Live, answer, hear, join, shares
from affuse.inference.decision import least, mean, settled, winner
from affuse.inference.face_tracks import Block, People
from affuse.inference.influence import rested
from affuse.inference.replaced_experts import notes, with_experts
from affuse.inference.windows import blocks, check_every, covered, shared, tiles, windows, worded
from affuse.layers.repvgg import fused
from affuse.media.clip import Clip
from affuse.media.english import is_english
from affuse.media.files import check_clip
from affuse.media.probe import ClipInfo, probe
from affuse.media.speech import find_speech
from affuse.media.subtitles import Caption, find_captions
from affuse.media.voice import STEP
from affuse.models.model import Model, load_model
from affuse.stores.align import How, at_rate
from affuse.stores.collate import collate
from affuse.training.run import open_run, run_model

HEARD_SECONDS = 0.25  # of voice, or of any sound, in a stretch, below which nothing is heard there


@dataclass(frozen=True)
class Rules:
    """When a model may answer: `voice` says that sound counts only where somebody speaks (else where it is not silent),
    `language` ("en") which words it knows, `least` how probable a label must be (None: an eighth of the way from chance
    to certainty)."""

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
    grids: dict[str, How] = field(default_factory=dict)  # how streams that are read at another rate come to it
    notes: tuple[str, ...] = ()  # what every reader of an answer should know

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the model's first task."""
        return next(iter(self.models[0].spaces.values())).labels

    @property
    def modalities(self) -> list[str]:
        """The modalities of the model, in affuse's order."""
        return [m for m in MODALITIES if m in set(self.models[0].modality.values())]

    @property
    def conversational(self) -> bool:
        """Whether what is said before or after has a part in an answer."""
        return any(model.conversational for model in self.models)

    def live(self) -> Live:
        """What answers a conversation as it goes on. Raises BadConfig where a model looks ahead."""
        return Live(self.models, self.modalities)

    def __call__(
        self,
        clip: str | Path,
        transcript: str | Path | None = None,
        every: float | None = None,
        causal: bool = False,
        context: bool = False,
    ) -> Timeline:
        """Analyse a clip in the stretches of its subtitles, else of its speech, else in overlapping windows.

        `every`: a row every so many seconds, from windows, whatever is said. `causal`: each answer from what came before
        the end of its stretch only. `context`: on which others the answers of a model of conversations rested. Windows
        do not overlap under either. Raises MissingFile or BadMedia for what cannot be read, BadConfig for `causal` with
        a model that looks ahead, and for `every` below 0.1.
        """
        check_every(every)
        check_clip(clip)
        path = Path(clip)
        info = probe(path)
        if info.duration <= 0 or not (info.audio or info.video):
            raise BadMedia(f"{path} has no sound and no picture", "give a clip with at least one of them")
        words = find_captions(path, transcript, self.rules.language or "en")
        voice, speech, audible = find_speech(path)
        notes = [*self.notes, *(f"{s}: {e.message}; {e.remedy}" for s, e in self.unusable.items()), *info.notes, *words.notes]
        if causal:
            notes.append("answered causally: each segment from what came before its end")
        if context and not self.conversational:
            notes.append(f"{self.name} answers each segment by itself, so no answer rested on others")
        alone = causal or self.conversational
        pieces, rows = self._pieces(info.duration, words.captions, speech, every, alone)
        look = _Look(self, path, info, voice, audible)
        answered = self._over_rows(look, pieces, rows) if rows else self._answered(look, pieces, causal, context)
        segments = [self._settled(s) for s in answered]
        faces = look.people.faces() if look.people else []
        notes += [*(look.people.notes() if look.people else []), *info.findings()]  # known only now
        return Timeline(
            os.fspath(clip), info.duration, self.name, self.labels, segments, faces, speech if info.audio else None, notes
        )

    def _answered(self, look: _Look, pieces: list[Caption], causal: bool, context: bool) -> list[Segment]:
        """The answers, block by block; where a context hears the whole conversation, of all blocks together."""
        live = self.live() if causal else None
        # read by itself, a stretch tells a causal model the same now and afterwards
        alone = causal or (self.conversational and all(model.causal for model in self.models))
        found, kept = [], []
        for block in blocks(pieces, alone=alone):
            part = look.read(block)
            segments = [part.segment(c, part.coverage(i, c)) for i, c in enumerate(block)]
            heard = hear(self.models, part.batch, self.device)
            if live is not None:
                segments = self._told(segments, live.push(heard))
            elif not self.conversational:
                segments = self._told(segments, answer(self.models, heard, self.modalities))
            found += segments
            if self.conversational and (context or live is None):
                kept.append(heard)
        if not kept:
            return found
        whole = join(kept)
        if live is None:
            found = self._told(found, answer(self.models, whole, self.modalities))
        return rested(found, self.models, whole) if context else found

    def _over_rows(self, look: _Look, pieces: list[Caption], rows: list[Caption]) -> list[Segment]:
        """The rows with the mean answer of the windows over them, each from those streams only that the row itself has."""
        parts: list[list[tuple[float, Segment]]] = [[] for _ in rows]
        for block in blocks(pieces, alone=False):
            part = look.read(block)
            pairs = shared(block, rows)
            coverage = [part.coverage(i, rows[k]) for i, k, _ in pairs]
            found = [part.segment(rows[k], c) for (_, k, _), c in zip(pairs, coverage, strict=True)]
            heard = shares(hear(self.models, part.batch, self.device), [i for i, _, _ in pairs], torch.tensor(coverage) > 0)
            for (_, k, t), segment in zip(pairs, self._told(found, answer(self.models, heard, self.modalities)), strict=True):
                parts[k].append((t, segment))
        return [mean(of_row) for of_row in parts]

    def _told(self, segments: Sequence[Segment], means: Sequence[np.ndarray]) -> list[Segment]:
        """The segments with their answers: probabilities [N, C] of all modalities together, then of each alone."""
        together, *alone = means
        found = []
        for i, s in enumerate(segments):
            views = {
                m: replace(view, probabilities=self.named(mean[i])) if view.present else view
                for (m, view), mean in zip(s.modalities.items(), alone, strict=True)
            }
            found.append(s if s.reason is not None else replace(s, probabilities=self.named(together[i]), modalities=views))
        return found

    def _pieces(
        self, duration: float, captions: list[Caption], speech: list[tuple[float, float]], every: float | None, alone: bool
    ) -> tuple[list[Caption], list[Caption]]:
        """What is answered for, and the rows that overlapping windows are averaged in (none: they stand for themselves)."""
        if every is None and captions:
            return captions, []
        if every is None and speech:
            return [Caption(a, b, "") for a, b in speech], []
        step = every or (self.seconds if alone else self.seconds / 2)
        # words belong where most of them are said; live, only once they are
        ends = [min(c.end, duration) for c in captions]
        said = [(b if alone else (c.start + b) / 2, c.text) for c, b in zip(captions, ends, strict=True)]
        rows = worded(tiles(duration, step), said)
        return (rows, []) if alone else (worded(windows(duration, max(self.seconds, step), step), said), rows)

    def _settled(self, s: Segment) -> Segment:
        """The segment with its label, by the rules of `verdict`; values on a scale are no probabilities and stay as they are."""
        if next(iter(self.models[0].spaces.values())).kind == "values":
            return replace(s, label=winner(s.probabilities)) if s.probabilities else s
        return settled(s, least(len(self.labels)) if self.rules.least is None else self.rules.least)

    def named(self, values: np.ndarray) -> dict[str, float]:
        """Probabilities [C] by label."""
        return {label: float(v) for label, v in zip(self.labels, values, strict=True)}


class _Look:
    """One clip while it is analysed, block by block; its picture is decoded once, and whoever is in it is followed."""

    def __init__(self, recognizer: Recognizer, path: Path, info: ClipInfo, voice: np.ndarray, audible: np.ndarray) -> None:
        self.recognizer, self.path, self.info = recognizer, path, info
        self.sound = voice >= 0.5 if recognizer.rules.voice else audible  # per STEP, whether it counts
        self.specs = recognizer.models[0].streams
        crops = next((c for e in recognizer.extractors.values() if (c := crops_of(e)) is not None), None)
        self.people = People(crops, Clip(video=path, end=info.duration), voice) if crops is not None and info.video else None

    def read(self, block: Sequence[Caption]) -> _Part:
        """A block of neighbouring stretches, as the models take them."""
        spans = [(c.start, min(c.end, self.info.duration)) for c in block]
        seen = self.people.follow(min(a for a, _ in spans), max(b for _, b in spans)) if self.people else None
        features = {s.name: self._features(s, block, spans, seen) for s in self.specs}
        who = [self.speaker(c, seen) for c in block]
        rows: dict[str, list[Any]] = {"conversation": [str(self.path)] * len(block), "position": [a for a, _ in spans], "speaker": who}
        return _Part(self, block, seen, features, collate(self.specs, features, rows))

    def speaker(self, caption: Caption, seen: Block | None) -> str:
        """Who speaks in a stretch: by its caption, else by the face whose mouth moves."""
        face = seen.speaker(caption.start, min(caption.end, self.info.duration)) if seen else None
        return caption.speaker or ("" if face is None else f"face {face + 1}")

    def _features(
        self, spec: StreamSpec, block: Sequence[Caption], spans: Sequence[tuple[float, float]], seen: Block | None
    ) -> list[Feature]:
        """One stream's Feature per stretch, on the stretch's own clock; absent where the rules say so."""
        extractor = self.recognizer.extractors.get(spec.name)
        absent = Feature(np.zeros((0, *spec.shape), np.float32))
        if extractor is None:
            return [absent] * len(block)
        if seen is not None and crops_of(extractor) is seen.people.crops:
            embed = None if isinstance(extractor, FaceCrops) else extractor.embed
            found = [checked(seen.crops(*span) if embed is None else seen.read(*span, embed), spec.name) for span in spans]
            return self._on_grid(spec, extractor, found, spans, seen.clip.start)
        use = [self.lacking(spec.modality, c) is None for c in block]
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
        """The features of these stretches at the rate of the model's stream; `start`: their clock's 0."""
        rate = extractor.spec.rate
        if spec.rate != rate:
            how = self.recognizer.grids[spec.name]
            found = [at_rate(f, rate, spec.rate, how, a - start, b - start) for f, (a, b) in zip(found, spans, strict=True)]
        if rate <= 0:
            return found
        return [replace(f, t0=f.t0 + start - a) for f, (a, _) in zip(found, spans, strict=True)]

    def heard(self, caption: Caption) -> float:
        """Share of a stretch in which there is a voice (or, by the model's rules, any sound); 0 for a mere moment of it."""
        end = min(caption.end, self.info.duration)
        steps = self.sound[round(caption.start / STEP) : round(end / STEP)]
        enough = min(HEARD_SECONDS, (end - caption.start) / 2)
        return float(steps.mean()) if len(steps) and steps.sum() * STEP >= enough else 0.0

    def lacking(self, modality: str, caption: Caption) -> str | None:
        """Why a modality has nothing to say of a stretch, by what is there and by the model's rules; None where it has."""
        rules = self.recognizer.rules
        if modality == "audio":
            if not self.info.audio:
                return "no sound"
            return None if self.heard(caption) else "no speech" if rules.voice else "silence"
        if modality == "text":
            if not caption.text:
                return "no words"
            return "words are not English" if rules.language == "en" and not is_english(caption.text) else None
        return None


@dataclass(frozen=True)
class _Part:
    """A block that was read: its features by stream and stretch, and the models' Batch of them."""

    look: _Look
    block: Sequence[Caption]
    seen: Block | None
    features: Mapping[str, Sequence[Feature]]
    batch: Batch

    def coverage(self, i: int, row: Caption) -> list[float]:
        """Share of the row, which lies in stretch i or is that stretch, in which each stream of the stretch is usable."""
        own, found = self.block[i], []
        for spec in self.look.specs:
            feature = self.features[spec.name][i]
            share = feature.coverage
            if spec.rate > 0 and row is not own:
                share = covered(feature, spec.rate, row.start - own.start, row.end - own.start)
            if spec.modality == "audio":
                share = min(share, self.look.heard(row))
            found.append(share if self.look.lacking(spec.modality, row) is None else 0.0)
        return found

    def segment(self, row: Caption, coverage: Sequence[float]) -> Segment:
        """The row, not answered yet: what there is of each modality, and why nothing can be told where nothing is."""
        look, views = self.look, {}
        for m in look.recognizer.modalities:
            share = max(c for spec, c in zip(look.specs, coverage, strict=True) if spec.modality == m)
            views[m] = ModalityView(share > 0, share, {})
        reason = None if any(v.present for v in views.values()) else ", ".join(self._lacking(m, row) for m in views)
        end = min(row.end, look.info.duration)
        return Segment(row.start, end, look.speaker(row, self.seen) or None, None, {}, views, row.text or None, reason)

    def _lacking(self, modality: str, row: Caption) -> str:
        unusable = [s.name for s in self.look.specs if s.modality == modality and s.name in self.look.recognizer.unusable]
        if unusable:
            return f"{', '.join(unusable)} cannot be used"
        why = self.look.lacking(modality, row)
        return why or (self.seen.lacking(row.start, min(row.end, self.look.info.duration)) if self.seen else "no face")


def crops_of(extractor: Any) -> FaceCrops | None:
    """The faces that an extractor looks at, where it can be shown (`embed`) those that were found already."""
    return extractor if isinstance(extractor, FaceCrops) else getattr(extractor, "crops", None)


def load(
    run: str | Path = "affuse-base", device: str = "cpu", experts: Mapping[str, str | Path] | None = None
) -> Recognizer:
    """The Recognizer of a shipped model or a run folder. Raises UnknownName, MissingFile or BadRun.

    `experts`: classifiers that take the place of the shipped model's own, modality -> "MODEL" or "MODEL@RELIABILITY"
    (see `affuse.inference.replaced_experts`); BadConfig with a run folder.

    A run on imported features cannot be used: nothing here can make those features from a clip. A stream whose
    extractor lacks a package counts as absent (`unusable`), unless it is the only one.
    """
    path = Path(run)
    if not path.exists():
        path = shipped(path)
    if (path / "card.json").is_file():
        described, tensors = io.read_json(path / "model.json"), io.read_tensors(path / "model.safetensors")
        model, parameters = with_experts(described, tensors, experts) if experts else (load_model(described, tensors), described["extractors"])
        models, seconds, rules = [model.to(device)], described["typical_seconds"], Rules(**described["rules"])
    elif experts:
        raise BadConfig(f"{path} is a run folder, whose encoders were trained together", "give experts to affuse-base only")
    else:
        info, _, folds = open_run(path)
        folders = [folder for members in folds for folder in members]
        described = io.read_json(folders[0] / "model.json")
        models, seconds, rules = [run_model(f).to(device) for f in folders], info.get("typical_seconds") or 4.0, Rules()
        parameters = described["extractors"]
    if described.get("standardised_by"):
        what = ", ".join(f"{stream} by {column}" for stream, column in described["standardised_by"].items())
        raise BadRun(f"{path} cannot analyse clips: it knows {what} standardised over many utterances of each", "train it without streams.NAME.standardise_by")
    models = [fused(model) for model in models]
    extractors, unusable = _extractors(path, models[0].streams, parameters)
    said, grids = tuple(notes(experts or {}, path.name)), described.get("grids", {})
    return Recognizer(path.name, models, extractors, seconds, torch.device(device), rules, unusable, grids, said)


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
            raise BadRun(f"{path} cannot analyse clips: {error.message}", "use a run whose streams are extractors") from error
    if not found:
        raise next(iter(lacking.values()))
    return found, lacking
