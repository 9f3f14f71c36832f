"""Probabilities of a ready emotion classifier for a voice, a face or words: its labels mapped to seven classes."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affuse.core import io
from affuse.core.errors import BadConfig
from affuse.core.labels import SPACES, canonical
from affuse.core.types import Feature, Modality, StreamSpec
from affuse.features.networks import pretrained
from affuse.features.networks.pictures import BLOCK, Preparation, faces, size_options, vectors
from affuse.features.networks.pretrained import Known
from affuse.features.speech_model import CONTEXT, WAVEFORM, SpeechModel
from affuse.features.text import TextEmbedding

if TYPE_CHECKING:
    from torch import Tensor

    from affuse.features.face_crops import FaceCrops
    from affuse.media.clip import Clip

CARD = {
    "summary": "log-probabilities of the seven classes by any emotion classifier in transformers' format, for voice, "
    "faces or words",
    "source": "the model's own; for example Yang et al. 2021 (SUPERB), Hartmann 2022 (DistilRoBERTa), Demszky et al. "
    "2020 (GoEmotions)",
    "entry": "Classifier",
    "modalities": ["audio", "vision", "text"],
    "licence": "the model's own; hubert-er and vit-face-expression Apache-2.0, go-emotions MIT, "
    "distilroberta-emotion: see its card",
    "version": 1,
    "extra": "text",
    "packages": ["transformers"],
    "download": "from the Hugging Face hub, once: hubert-er 378 MB, hubert-large-er 1260 MB; vit-face-expression 343 "
    "MB; distilroberta-emotion 329 MB, go-emotions 499 MB; or a folder. Only safetensors are read",
    "rate": "utterance; of faces fps, 5 by default",
    "dim": "7",
}
KNOWN: dict[str, dict[str, Known]] = {
    "audio": {
        "hubert-er": Known("superb/hubert-base-superb-er", 378, "Apache-2.0", revision="refs/pr/1"),
        "hubert-large-er": Known("superb/hubert-large-superb-er", 1260, "Apache-2.0", revision="refs/pr/1"),
    },
    "vision": {"vit-face-expression": Known("trpakov/vit-face-expression", 343, "Apache-2.0")},
    "text": {
        "distilroberta-emotion": Known(
            "j-hartmann/emotion-english-distilroberta-base", 329, "licence: see its card", revision="refs/pr/3010"
        ),
        "go-emotions": Known("SamLowe/roberta-base-go_emotions", 499, "MIT"),
    },
}
ARCHITECTURES = {
    "audio": "AutoModelForAudioClassification",
    "vision": "AutoModelForImageClassification",
    "text": "AutoModelForSequenceClassification",
}
MAPPINGS = {
    "vision": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "text": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
}
CLASSES = SPACES["ekman-7"].labels
FLOOR = 1e-4  # the least probability of a class that the model knows
# Spellings of classifiers that no corpus has; elsewhere calm is a class of its own
SPELLINGS = {
    "calm": "neutral", "calmness": "neutral", "no emotion": "neutral", "suprise": "surprise", "enjoyment": "happy",
}
SPOKEN_BY = ("female_", "male_")


class Classifier:
    """Clip -> log-probabilities [T, 7] of neutral, happy, sad, angry, fear, disgust, surprise; T = 1 for voice, words.

    `model`: a short name of KNOWN, a folder in transformers' format or a hub id. Its labels are mapped by name: those
    of one class add up, those of none (contempt, love) are dropped and the rest is scaled to sum 1; models of several
    labels at once (sigmoids) too. No probability falls below 1e-4. Of a class that it lacks the model has no opinion:
    there stands the mean of its log-probabilities. A voice of more than `chunk` s is encoded in equal windows, whose
    probabilities are averaged; of faces, each of `fps` per second has its own, valid [T] where there is one (`margin`,
    `detector`: see `face_crops`). No words, sound or picture: T = 0. Raises BadConfig where fewer than two of the
    classes are known to the model.
    """

    def __init__(
        self,
        *,
        modality: Modality,
        model: str,
        fps: float = 5.0,
        margin: float = 0.2,
        chunk: float = 30.0,
        detector: Path | None = None,
        detector_sha256: str = "",
    ) -> None:
        if not 3 * CONTEXT <= chunk < math.inf:
            raise BadConfig(
                f"classifier.chunk = {chunk} s is too short to tell an emotion, or has no end",
                f"give {3 * CONTEXT:g} or more",
            )
        self.modality, self.model, self.fps, self.margin, self.chunk = modality, model, fps, margin, chunk
        self.detector, self.detector_sha256 = detector, detector_sha256

    @cached_property
    def folder(self) -> Path:
        """Where the model's files are; MissingDependency says how to get them."""
        known = KNOWN[self.modality]
        name = next((name for name, entry in known.items() if entry.hub == self.model), self.model)
        return pretrained.find(name, known, f"{self.modality} classifier")

    @property
    def spec(self) -> StreamSpec:
        """Seven numbers for the clip, or for every face."""
        return StreamSpec("classifier", self.modality, (len(CLASSES),), self.fps if self.modality == "vision" else 0.0)

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights; with the detector's where faces are looked at."""
        return pretrained.weights_hash(self.folder) + (self.crops.weights_hash if self.crops else "")

    @cached_property
    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = io.read_json(self.folder / "config.json")
        if config.get("model_type") not in kinds(self.modality):
            what = f"{self.folder} holds a '{config.get('model_type')}' model, which is no {self.modality} classifier"
            raise BadConfig(what, f"give one for {self.modality}, for example {', '.join(KNOWN[self.modality])}")
        return config

    @cached_property
    def classes(self) -> list[int]:
        """The class of each of the model's labels, -1 for none; reads config.json only."""
        given: dict[str, str] = self._config.get("id2label") or {}
        labels = [str(given[k]) for k in sorted(given, key=int)]
        found = classes_of(labels)
        if len(set(found) - {-1}) < 2:
            raise BadConfig(
                f"the classifier in {self.folder} knows fewer than two of {', '.join(CLASSES)}; its labels: "
                f"{', '.join(labels) or 'unnamed'}",
                "choose a classifier of emotions, or name the classes in id2label of its config.json",
            )
        return found

    @cached_property
    def crops(self) -> FaceCrops | None:
        """The faces that the model looks at; None for voice and words."""
        if self.modality != "vision":
            return None
        return faces(self.fps, self._preparation.size, self.margin, self.detector, self.detector_sha256)

    def __call__(self, clip: Clip) -> Feature:
        """The log-probabilities of the clip."""
        if self.crops is not None:
            steps = clip.steps(self.fps) if clip.has_video else 0
            return vectors(self.crops.blocks(clip, BLOCK), self.embed, steps, len(CLASSES), "none")
        found = self._voice(clip) if self.modality == "audio" else self._words(clip)
        return Feature(logarithms(found.mean(0, keepdims=True), self.classes) if len(found) else found)

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Log-probabilities [n, 7] of aligned faces uint8 [n, size, size, 3] of the model's own size."""
        blocks = (images[k : k + BLOCK] for k in range(0, len(images), BLOCK))
        fed = (self._preparation.to_tensor(block) for block in blocks)
        found = [self._probabilities(pixel_values=pictures, **self._options) for pictures in fed]
        return logarithms(np.concatenate([np.zeros((0, len(CLASSES)), np.float32), *found]), self.classes)

    def _voice(self, clip: Clip) -> np.ndarray:
        """Probabilities [parts, 7] of the clip's sound."""
        name = self._network.main_input_name
        found = [self._probabilities(**{name: x}) for x in self._speech.parts(clip)]
        return np.concatenate([np.zeros((0, len(CLASSES)), np.float32), *found])

    def _words(self, clip: Clip) -> np.ndarray:
        """Probabilities [1, 7] of the clip's words, or [0, 7]."""
        if not (text := (clip.text or "").strip()):
            return np.zeros((0, len(CLASSES)), np.float32)
        return self._probabilities(**self._text.tokenise([text]))

    def _probabilities(self, **inputs: Any) -> np.ndarray:
        """Probabilities [n, 7] for the inputs of the network."""
        import torch

        with torch.inference_mode():
            logits: Tensor = self._network(**inputs).logits
            several = self._config.get("problem_type") == "multi_label_classification"
            own = logits.sigmoid() if several else logits.softmax(-1)
            kept = torch.eye(len(CLASSES) + 1)[self.classes, :-1]  # row -1 is the one that is cut off
            p = own @ kept
            return (p / p.sum(-1, keepdim=True).clamp_min(1e-30)).numpy()

    @cached_property
    def _options(self) -> dict[str, bool]:
        return size_options(self._network, self._preparation.size, self._config.get("image_size"))

    @cached_property
    def _network(self) -> Any:
        _ = self.classes
        return pretrained.load(self.folder, ARCHITECTURES[self.modality])

    @cached_property
    def _speech(self) -> SpeechModel:
        return SpeechModel(model=str(self.folder), chunk=self.chunk)

    @cached_property
    def _text(self) -> TextEmbedding:
        return TextEmbedding(model=str(self.folder))

    @cached_property
    def _preparation(self) -> Preparation:
        return Preparation.of(self.folder)


def kinds(modality: Modality) -> Collection[str]:
    """The model types that can be classifiers of a modality."""
    if modality == "audio":
        return (*WAVEFORM, "whisper")
    from transformers.models.auto import modeling_auto

    names: dict[str, str] = getattr(modeling_auto, MAPPINGS[modality])
    return names


def classes_of(labels: Sequence[str]) -> list[int]:
    """The number of each label's class among CLASSES, -1 where it is none of them."""
    plain = [label.strip().lower() for label in labels]
    for prefix in SPOKEN_BY:
        plain = [name.removeprefix(prefix) for name in plain]
    names = [SPELLINGS.get(name, canonical(name)) for name in plain]
    return [CLASSES.index(name) if name in CLASSES else -1 for name in names]


def logarithms(p: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Logarithms of probabilities [n, 7], none below that of FLOOR; a class outside `classes` gets their mean."""
    known = sorted(set(classes) - {-1})
    logs = np.log(np.maximum(p, FLOOR)).astype(np.float32)
    lacking = np.setdiff1d(np.arange(len(CLASSES)), known)
    logs[:, lacking] = logs[:, known].mean(1, keepdims=True)
    return logs
