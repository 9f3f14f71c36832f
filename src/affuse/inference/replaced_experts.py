"""Stronger experts for the shipped model: a classifier of one's own in place of its expert of a modality."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from affuse.core.errors import BadConfig, UnknownName
from affuse.core.types import MODALITIES
from affuse.features.classifier import CLASSES
from affuse.features.extractor import make_extractor
from affuse.models.model import Model, load_model

if TYPE_CHECKING:
    from torch import Tensor


class Expert(NamedTuple):
    """A classifier (short name, folder or hub id) and how reliable it is said to be, 0..1; None: as what it replaces."""

    model: str
    reliability: float | None


def with_experts(
    described: Mapping[str, Any], tensors: Mapping[str, Tensor], experts: Mapping[str, str | Path]
) -> tuple[Model, dict[str, Any]]:
    """(model, the parameters of its extractors) after `experts` took the place of those of their modalities.

    described, tensors: affuse-base's model.json and model.safetensors; experts: modality -> "MODEL" or "MODEL@0.7", its reliability (share of
    classes that it finds, as a mean recall). Raises UnknownName for a modality, BadConfig for a model that joins no
    experts, a reliability outside 0..1 or no classifier of emotions, MissingDependency for weights that are not to be had.
    """
    fusion, spaces = described["parts"]["fusion"], described["spaces"]
    if fusion["name"] != "experts" or any(set(space["labels"]) != set(CLASSES) for space in spaces.values()):
        raise BadConfig("experts can only be replaced in a model that joins experts of seven emotions", "use affuse-base")
    for modality, given in experts.items():
        if modality not in MODALITIES:
            raise UnknownName.among("modality", modality, MODALITIES)
        described, tensors = _replaced(described, tensors, modality, read(given))
    return load_model(described, tensors), described["extractors"]


def _replaced(
    described: Mapping[str, Any], tensors: Mapping[str, Tensor], modality: str, expert: Expert
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(description, tensors) with a classifier as the one stream of its modality."""
    name = f"{modality}_classifier"
    options = {"name": "classifier", "modality": modality, "model": expert.model}
    extractor = make_extractor(name, options)
    _ = extractor.classes  # a misfit is told now, not at the first clip
    gone = [s["name"] for s in described["streams"] if s["modality"] == modality]
    streams = [s for s in described["streams"] if s["name"] not in gone] + [vars(extractor.spec) | {"name": name}]
    parts = described["parts"] | {
        "streams": _without(described["parts"]["streams"], gone) | {name: {"name": "mean"}},
        "fusion": _joined(described["parts"]["fusion"], gone, name, modality, expert.reliability, extractor.spec.rate > 0),
    }
    parameters = _without(described["extractors"], gone) | {name: options}
    lost = tuple(f"{kind}.{s}." for kind in ("encoders", "stream_heads") for s in gone)
    kept = {k: v for k, v in tensors.items() if not k.startswith(lost)} | dict(_heads(name, described["spaces"]))
    return {**described, "parts": parts, "streams": streams, "extractors": parameters}, kept


def read(given: str | Path) -> Expert:
    """The expert that "MODEL" or "MODEL@RELIABILITY" names."""
    model, at, share = str(given).rpartition("@")
    try:
        reliability = float(share) if at else None
    except ValueError:  # a name that holds an @
        return Expert(str(given), None)
    if reliability is not None and not 0 < reliability <= 1:
        raise BadConfig(f"a reliability of {share} for {model}", "give a share above 0 up to 1, such as MODEL@0.7")
    return Expert(model if at else str(given), reliability)


def _joined(
    fusion: Mapping[str, Any], gone: list[str], name: str, modality: str, reliability: float | None, steps: bool
) -> dict[str, Any]:
    """The options of the fusion with stream `name` for those that are `gone`; how much few steps count stays where it has `steps`."""
    old = {key: [fusion[key][s] for s in gone if s in fusion.get(key, {})] for key in ("reliability", "halfway")}
    new = {
        "temperature": 1.0,
        "reliability": max(old["reliability"], default=1.0) if reliability is None else reliability,
        "halfway": max(old["halfway"], default=0.0) if steps else 0.0,
        "groups": modality,
    }
    return {**fusion, **{key: _without(fusion.get(key, {}), gone) | {name: value} for key, value in new.items()}}


def _without(named: Mapping[str, Any], gone: list[str]) -> dict[str, Any]:
    return {s: value for s, value in named.items() if s not in gone}


def _heads(name: str, spaces: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The head of every task passes the classifier's answer on, each class to the one of its name."""
    for task, space in spaces.items():
        yield f"stream_heads.{name}.{task}.weight", torch.eye(len(CLASSES))[[CLASSES.index(label) for label in space["labels"]]]
        yield f"stream_heads.{name}.{task}.bias", torch.zeros(len(CLASSES))


def notes(experts: Mapping[str, str | Path], shipped: str) -> list[str]:
    """What a reader of a Timeline should know about replaced experts."""
    return [
        f"{modality}: {read(given).model} answers in place of {shipped}'s own expert; "
        "its calibration is that model's own and was not measured here"
        for modality, given in experts.items()
    ]
