"""Label spaces, and mapping between them by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from affuse.core.errors import BadCorpus, UnknownName

Kind = Literal["classes", "multilabel", "values"]


@dataclass(frozen=True)
class LabelSpace:
    """Named classes, labels of which several may hold at once, or continuous dimensions with their range.

    `labels` are the names of classes (`kind = "classes"`: one holds), of labels (`"multilabel"`: any number holds) or
    of dimensions (`"values"`, from `low` to `high`).
    """

    name: str
    labels: tuple[str, ...]
    kind: Kind = "classes"
    low: float = 0.0
    high: float = 1.0

    def __len__(self) -> int:
        return len(self.labels)

    def index(self, label: str) -> int:
        """Position of `label` (canonical or a known spelling); BadCorpus names the closest."""
        name = canonical(label)
        if name not in self.labels:
            error = UnknownName.among(f"label of {self.name}:", label, self.labels)
            named = f"or name its class when importing the table: --label CLASS={label}"
            raise BadCorpus(error.message, f"{error.remedy} ({named})")
        return self.labels.index(name)


_COMPOUND = (
    "fearfully surprised",
    "happily surprised",
    "sadly surprised",
    "disgustedly surprised",
    "angrily surprised",
    "sadly fearful",
    "sadly angry",
)

# The action units of Aff-Wild2, in the order of its files.
_ACTION_UNITS = tuple(f"au{n}" for n in (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26))

_MUSTARD = ("neutral", "happy", "sad", "angry", "fear", "disgust", "surprise", "excited", "frustrated", "ridicule")

SPACES: dict[str, LabelSpace] = {
    space.name: space
    for space in (
        LabelSpace("ekman-6", ("happy", "sad", "angry", "fear", "disgust", "surprise")),
        LabelSpace("ekman-7", ("neutral", "happy", "sad", "angry", "fear", "disgust", "surprise")),
        LabelSpace("iemocap-4", ("neutral", "happy", "sad", "angry")),
        LabelSpace("iemocap-6", ("neutral", "happy", "sad", "angry", "excited", "frustrated")),
        LabelSpace("ravdess-8", ("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise")),
        LabelSpace("crema-d-6", ("neutral", "happy", "sad", "fear", "disgust", "angry")),
        LabelSpace("meld-7", ("neutral", "surprise", "fear", "sad", "happy", "disgust", "angry")),
        LabelSpace("emodb-7", ("neutral", "happy", "sad", "angry", "fear", "disgust", "boredom")),
        LabelSpace("cheavd-8", ("neutral", "angry", "happy", "sad", "worried", "anxious", "surprise", "disgust")),
        LabelSpace("mer2023-6", ("neutral", "angry", "happy", "sad", "worried", "surprise")),
        LabelSpace("sarcasm-2", ("sincere", "sarcastic")),
        LabelSpace("mustard-10", _MUSTARD),
        LabelSpace("compound-7", _COMPOUND),
        LabelSpace("compound-8", (*_COMPOUND, "other")),
        LabelSpace("abaw-8", ("neutral", "angry", "disgust", "fear", "happy", "sad", "surprise", "other")),
        LabelSpace("sentiment-2", ("negative", "positive")),
        LabelSpace("sentiment-3", ("negative", "neutral", "positive")),
        LabelSpace("va", ("valence", "arousal"), "values", -1.0, 1.0),
        LabelSpace("vad", ("valence", "arousal", "dominance"), "values", -1.0, 1.0),
        LabelSpace("mer2023-valence", ("valence",), "values", -5.0, 5.0),
        LabelSpace("muse-mimic-3", ("approval", "disappointment", "uncertainty"), "values", 0.0, 1.0),
        LabelSpace("sentiment", ("sentiment",), "values", -3.0, 3.0),
        LabelSpace("sentiment-sims", ("sentiment",), "values", -1.0, 1.0),
        LabelSpace("action-units-12", _ACTION_UNITS, "multilabel"),
        LabelSpace("mosei-6", ("happy", "sad", "angry", "surprise", "disgust", "fear"), "values", 0.0, 3.0),
    )
}

# Spellings met in releases -> affuse's name for the same class.
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "neutral": ("neu", "n", "neutrality", "normal"),
    "happy": ("hap", "happiness", "joy", "joyful", "freude", "happily"),
    "sad": ("sadness", "trauer", "sadly"),
    "angry": ("ang", "anger", "mad", "wut"),
    "fear": ("fea", "fearful", "scared", "angst", "afraid"),
    "disgust": ("dis", "disgusted", "ekel"),
    "surprise": ("sur", "surprised", "surprize", "pleasant_surprise", "ps"),
    "boredom": ("bored", "langeweile"),
    "excited": ("exc", "excitement"),
    "frustrated": ("fru", "frustration"),
    "worried": ("worry",),
    "anxious": ("anxiety",),
}
_CANONICAL = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}


def canonical(label: str) -> str:
    """affuse's name for a class as releases spell it ("Joy" -> "happy"); unknown names come back lower-case."""
    name = label.strip().lower()
    return _CANONICAL.get(name, name)


def space(name: str) -> LabelSpace:
    """The label space of that name."""
    if name not in SPACES:
        raise UnknownName.among("label space", name, SPACES)
    return SPACES[name]


def infer_space(labels: Sequence[str]) -> LabelSpace:
    """The smallest known space whose classes are exactly these, else a space of the sorted names."""
    names = {canonical(label) for label in labels}
    for known in SPACES.values():
        if known.kind == "classes" and set(known.labels) == names:
            return known
    return LabelSpace("custom", tuple(sorted(names)))


def refine_space(space: LabelSpace, labels: Sequence[str], values: Sequence[str]) -> tuple[LabelSpace, list[int]]:
    """The finer classes "label value" that occur, and the index of each one's class in `space`."""
    pairs = sorted({(space.index(label), value) for label, value in zip(labels, values, strict=True) if label})
    names = tuple(finer(space.labels[i], value) for i, value in pairs)
    return LabelSpace(f"{space.name}, refined", names), [i for i, _ in pairs]


def finer(label: str, value: str) -> str:
    """The name of the finer class of `label` (canonical or a known spelling); "" stays ""."""
    return f"{canonical(label)} {value}".strip().lower() if label else ""


def map_by_name(model: LabelSpace, corpus: LabelSpace) -> tuple[list[int], list[str], list[str]]:
    """How a model's classes meet another corpus, by name.

    Returns (for every model class its index in the corpus or -1, corpus classes that the model lacks,
    model classes that the corpus lacks). Calm, where only the model knows it, counts as neutral.
    """
    target = {name: i for i, name in enumerate(corpus.labels)}
    if "calm" not in target and "neutral" in target:
        target["calm"] = target["neutral"]
    index = [target.get(name, -1) for name in model.labels]
    missing = [name for name in corpus.labels if name not in model.labels]
    extra = [name for name, i in zip(model.labels, index, strict=True) if i < 0]
    return index, missing, extra
