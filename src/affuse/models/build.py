"""Builds the parts of a model from their names and options, and checks that they fit each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from affuse.core import registry
from affuse.core.config import parts as parts_of
from affuse.core.errors import BadConfig
from affuse.core.parts import Part
from affuse.core.tasks import Task
from affuse.layers.grid import same_rate


@dataclass(frozen=True)
class Architecture:
    """The parts of a model: an encoder per stream, a fusion, contexts.

    `unimodal`: whether every stream has heads of its own.
    """

    streams: dict[str, Part]
    fusion: Part
    context: tuple[Part, ...] = ()
    unimodal: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "streams": {name: part.to_dict() for name, part in self.streams.items()},
            "fusion": self.fusion.to_dict(),
            "context": [part.to_dict() for part in self.context],
            "unimodal": self.unimodal,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Architecture:
        """The architecture that `to_dict` wrote; a single context, or none, can be read too."""
        streams = {name: Part.read(part) for name, part in values["streams"].items()}
        context = tuple(parts_of(values.get("context")))
        return cls(streams, Part.read(values["fusion"]), context, bool(values.get("unimodal")))


def make_part(kind: str, part: Part, given: Any) -> Any:
    """Build a part of a kind for its input (a StreamSpec, or widths by name); BadConfig where they do not fit."""
    _check_modality(kind, part.name, given)
    return registry.build(kind, part.name, given, **part.options)


def _check_modality(kind: str, name: str, given: Any) -> None:
    """Raise BadConfig for an encoder of another modality, with those that fit."""
    if kind != "encoders" or given.modality in registry.cards(kind)[name]["modalities"]:
        return
    fitting = [n for n, card in registry.cards(kind).items() if given.modality in card["modalities"]]
    message = f"encoder '{name}' is not for {given.modality} (stream '{given.name}')"
    raise BadConfig(message, f"choose one of {', '.join(fitting)}")


def split_contexts(chosen: Sequence[Part]) -> tuple[list[Part], list[Part]]:
    """The contexts that stand before the fusion, and those after it."""
    cards = registry.cards("contexts")
    stands = [part.options.get("stands", cards[part.name]["stands"][0]) for part in chosen]
    before, after = ([p for p, s in zip(chosen, stands, strict=True) if s == where] for where in ("before", "after"))
    return before, after


def check_fit(parts: Architecture, fusion: Any, rates: Mapping[str, float], tasks: Mapping[str, Task]) -> None:
    """Raise BadConfig where the fusion, its inputs, the contexts and the tasks do not fit each other."""
    before, after = split_contexts(parts.context)
    card, name = registry.cards("fusions")[parts.fusion.name], parts.fusion.name
    level = getattr(fusion, "level", "features")
    if after and level == "decisions":
        message = f"context '{after[0].name}' stands after the fusion, '{name}' joins decisions"
        remedy = f"choose a fusion of features ({_fusions(level=(None, 'both'))}), or a context that stands before"
        raise BadConfig(message, remedy)
    if before and reads_tokens(name):
        message = f"context '{before[0].name}' changes one vector per utterance, and fusion '{name}' reads sequences"
        vectors = _fusions(needs="pooled")
        raise BadConfig(message, f"let the context stand after the fusion, or choose a fusion of vectors ({vectors})")
    if reads_grid(name) and not same_rate(rates):
        listed = ", ".join(f"{s} {rate:g} Hz" if rate else f"{s} none" for s, rate in rates.items())
        message = f"fusion '{name}' needs all streams on one time grid, and their tokens have the rates: {listed}"
        vectors = _fusions(needs="pooled")
        remedy = f"read timed streams at one rate (streams.NAME.rate=5), or choose another fusion ({vectors})"
        raise BadConfig(message, remedy)
    for task in tasks.values():
        if task.kind not in getattr(fusion, "tasks", (task.kind,)):
            message = f"fusion '{name}' as it is set is not for {task.kind} (task '{task.name}')"
            raise BadConfig(message, "choose another, such as fusion=late with how=sum or mean")
        if task.per_frame and ("tokens" not in card.get("gives", ()) or after):
            one = f"context '{after[0].name}'" if after else f"fusion '{name}'"
            message = f"task '{task.name}' is per frame, and {one} gives one vector per utterance"
            raise BadConfig(message, f"choose fusion={_fusions(gives='tokens')} without a context after it")


def reads_tokens(fusion: str) -> bool:
    """Whether a fusion reads the sequences of the streams."""
    return bool({"tokens", "grid"} & set(registry.cards("fusions")[fusion]["needs"]))


def reads_grid(fusion: str) -> bool:
    """Whether a fusion reads them on one grid of time."""
    return "grid" in registry.cards("fusions")[fusion]["needs"]


def _fusions(**wanted: Any) -> str:
    """The names of the fusions whose cards have these values: in a list among others, of a tuple one of them."""

    def has(value: Any, one: Any) -> bool:
        if isinstance(one, tuple):
            return value in one
        return one in value if isinstance(value, list) else bool(value == one)

    cards = registry.cards("fusions").items()
    return ", ".join(n for n, card in cards if all(has(card.get(k), one) for k, one in wanted.items()))
