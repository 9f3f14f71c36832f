"""The template: from the cues of a clip to one text that fits a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from affuse.core import io
from affuse.core.config import fill
from affuse.core.errors import BadConfig
from affuse.core.types import Modality
from affuse.features.description.cues import Cue, of

# Below the first number: low, from the second on: high. Terciles, rounded, of 150 recordings of RAVDESS and 100 of
# EmoDB (acted speech); loudness depends on how a corpus was recorded, so that its own numbers are better there.
BINS = {
    "pitch": (150.0, 220.0),
    "pitch variation": (7.0, 9.0),
    "loudness": (-30.0, -15.0),
    "loudness variation": (16.0, 18.5),
    "speech rate": (3.0, 4.5),
    "pausing": (0.05, 0.15),
}
NAMES = {
    "neutral": "neutrality", "happy": "happiness", "sad": "sadness", "angry": "anger",
}  # fmt: skip
WITH_PLACE = ("words", "face", "voice", "prosody")  # sentences in which {} stands for what was found

# What is dropped first where a text is too long.
MEDIUM, FURTHER, MEASURE, ABSENT, FIRST, WORDS = range(6)


@dataclass(frozen=True)
class Piece:
    """One phrase of a text: the sentence that it stands in, and how early it is dropped (the least `rank` first)."""

    sentence: str
    phrase: str
    rank: tuple[int, float]


@dataclass(frozen=True)
class Template:
    """How cues become a text. `version`: of the sentences; change it with them.

    An expression is named with its strength by `strength_bins` of its probability: the likeliest one, and up to `top`
    of those with `least` or more. A measure of the voice is named with its level by `bins`.
    """

    version: int = 1
    words: str = 'They say: "{}"'
    face: str = "The face shows {}."
    voice: str = "The voice expresses {}."
    prosody: str = "The voice has {}."
    no_words: str = "Nobody speaks."
    unknown_words: str = "The words are not known."
    no_face: str = "No face is visible."
    no_picture: str = "There is no picture."
    no_voice: str = "There is no voice."
    silence: str = "There is silence."
    no_sound: str = "There is no sound."
    top: int = 3
    least: float = 0.1
    strengths: tuple[str, ...] = ("weak", "some", "strong")
    strength_bins: tuple[float, ...] = (0.2, 0.5)
    levels: tuple[str, ...] = ("low", "medium", "high")
    bins: dict[str, tuple[float, ...]] = field(default_factory=lambda: dict(BINS))
    names: dict[str, str] = field(default_factory=lambda: dict(NAMES))

    def __post_init__(self) -> None:
        for sentence in WITH_PLACE:
            if getattr(self, sentence).count("{}") != 1:
                message = f"template.{sentence} = {getattr(self, sentence)!r} does not have {{}} once"
                raise BadConfig(message, "write {} where that which was found goes")
        for key, words in (("strengths", self.strengths), ("levels", self.levels)):
            if len(words) != 3:
                raise BadConfig(f"template.{key} has {len(words)} words", "give three, from the least to the most")
        for name, bins in {"strength_bins": self.strength_bins, **self.bins}.items():
            if len(bins) != 2 or not bins[0] <= bins[1]:
                raise BadConfig(f"template: the bins of '{name}' are {list(bins)}", "give two numbers, the lower first")
        if unknown := sorted(set(self.bins) - set(BINS)):
            raise BadConfig(f"template.bins.{unknown[0]} is no measure", f"the measures are {', '.join(BINS)}")
        if self.top < 1:
            raise BadConfig(f"template.top = {self.top}", "give 1 or more")

    @property
    def hash(self) -> str:
        """Hash of version, sentences and numbers."""
        return io.digest(asdict(self))

    def render(self, cues: Sequence[Cue], modalities: Sequence[Modality], fits: Callable[[str], bool]) -> str:
        """The text of `cues`: the sentences of `modalities` in this order, shortened until it `fits`.

        What goes first: measures of the voice at their medium level; expressions after the first, the least probable
        first; the other measures; sentences about what is absent; first expressions; at last the words, from their
        end. Empty where there is no cue at all.
        """
        if not cues:
            return ""
        pieces = [piece for modality in modalities for piece in self._pieces(modality, cues)]
        while not fits(self._join(pieces)):
            least = min(range(len(pieces)), key=lambda i: pieces[i].rank)
            if pieces[least].rank[0] == WORDS:
                return self._join(self._cut(pieces, least, fits))
            if len(pieces) == 1:
                break
            del pieces[least]
        return self._join(pieces)

    def _cut(self, pieces: Sequence[Piece], at: int, fits: Callable[[str], bool]) -> list[Piece]:
        """As many of the words as fit, one at least."""
        said, low = pieces[at].phrase.split(), 1
        high = len(said)

        def first(n: int) -> list[Piece]:
            return [replace(p, phrase=" ".join(said[:n])) if i == at else p for i, p in enumerate(pieces)]

        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(self._join(first(middle))) else (low, middle - 1)
        return first(low)

    def _join(self, pieces: Sequence[Piece]) -> str:
        """The sentences, the phrases of each one side by side."""
        phrases: dict[str, list[str]] = {}
        for piece in pieces:
            phrases.setdefault(piece.sentence, []).append(piece.phrase)
        return " ".join(getattr(self, name).replace("{}", ", ".join(found)) for name, found in phrases.items())

    def _pieces(self, modality: Modality, cues: Sequence[Cue]) -> list[Piece]:
        known = {cue.name: cue.value for cue in cues}
        found = of(cues, modality)
        absent = partial(Piece, phrase="", rank=(ABSENT, 0.0))
        if modality == "text":
            if found:
                return [Piece("words", str(found[0].value), (WORDS, 0.0))]
            return [absent("unknown_words" if known.get("voice") else "no_words")]
        if not found:
            return [absent("no_picture" if modality == "vision" else "no_sound")]
        if modality == "vision":
            return self._expressions("face", found) if known["face"] else [absent("no_face")]
        if not known["voice"]:
            return [absent("no_voice" if known["sound"] else "silence")]
        return self._expressions("voice", found) + self._measures(found)

    def _expressions(self, sentence: str, cues: Sequence[Cue]) -> list[Piece]:
        others = {"face", "sound", "voice", *BINS}
        ranked = sorted((c for c in cues if c.name not in others), key=lambda cue: -float(cue.value))
        named = [c for i, c in enumerate(ranked[: self.top]) if i == 0 or float(c.value) >= self.least]
        return [
            Piece(
                sentence,
                f"{self.strengths[_bin(float(c.value), self.strength_bins)]} {self.names.get(c.name, c.name)}",
                (FURTHER if i else FIRST, float(c.value)),
            )
            for i, c in enumerate(named)
        ]

    def _measures(self, cues: Sequence[Cue]) -> list[Piece]:
        pieces = []
        for i, (name, bins) in enumerate(self.bins.items()):
            for cue in cues:
                if cue.name == name:
                    level = _bin(float(cue.value), bins)
                    rank = (MEDIUM if level == 1 else MEASURE, -float(i))
                    pieces.append(Piece("prosody", f"{self.levels[level]} {name}", rank))
        return pieces


def _bin(value: float, bins: Sequence[float]) -> int:
    """0 below the first number, 2 from the second on, else 1."""
    return sum(value >= edge for edge in bins)


def make_template(changes: Mapping[str, Any] | None = None) -> Template:
    """The template with some of its fields changed; single `bins` and `names` may be. UnknownName, BadConfig."""
    given = dict(changes or {})
    for key, default in (("bins", BINS), ("names", NAMES)):
        if isinstance(given.get(key), Mapping):
            given[key] = {**default, **given[key]}
    made: Template = fill(Template, given, "template")
    return made
