"""Stronger experts for the shipped model: a classifier of the user's choice replaces its expert of a modality."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from affuse.core.errors import BadConfig, UnknownName
from affuse.core.types import MODALITIES
from affuse.features.classifier import CLASSES
from affuse.features.extractor import make_extractor
from affuse.models.model import Model
from affuse.models.saved import load_model, upgraded

if TYPE_CHECKING:
    from torch import Tensor


class Expert(NamedTuple):
    """A classifier (short name, folder or hub id) and its reliability, 0..1; None: that of the expert it replaces."""

    model: str
    reliability: float | None


def with_experts(
    described: Mapping[str, Any], tensors: Mapping[str, Tensor], experts: Mapping[str, str | Path]
) -> tuple[Model, dict[str, Any]]:
    """(model, the parameters of its extractors) with `experts` in place of those of their modalities.

    described, tensors: affuse-base's model.json and model.safetensors; experts: modality -> "MODEL" or "MODEL@0.7",
    with its reliability (its mean recall). Raises UnknownName for a modality; BadConfig for a model that does not fuse
    experts, a reliability outside 0..1 or a model that is no classifier of emotions; MissingDependency for weights that
    cannot be fetched.
    """
    described = upgraded(described)
    fusion, tasks = described["parts"]["fusion"], described["tasks"]
    if fusion["name"] != "experts" or any(set(t["space"]["labels"]) != set(CLASSES) for t in tasks.values()):
        message = "experts can only be replaced in a model that joins experts of seven emotions"
        raise BadConfig(message, "use affuse-base")
    for modality, given in experts.items():
        if modality not in MODALITIES:
            raise UnknownName.among("modality", modality, MODALITIES)
        described, tensors = _replace(described, tensors, modality, parse_expert(given))
    return load_model(described, tensors), described["extractors"]


def _replace(
    described: Mapping[str, Any], tensors: Mapping[str, Tensor], modality: str, expert: Expert
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(description, tensors) with a classifier as the one stream of its modality."""
    name = f"{modality}_classifier"
    options = {"name": "classifier", "modality": modality, "model": expert.model}
    extractor = make_extractor(name, options)
    _ = extractor.classes  # raises now, and not at the first clip, for a model that does not fit
    removed = [s["name"] for s in described["streams"] if s["modality"] == modality]
    streams = [s for s in described["streams"] if s["name"] not in removed] + [vars(extractor.spec) | {"name": name}]
    parts = described["parts"] | {
        "streams": _without(described["parts"]["streams"], removed) | {name: {"name": "mean"}},
        "fusion": _fusion_options(
            described["parts"]["fusion"], removed, name, modality, expert.reliability, extractor.spec.rate > 0
        ),
    }
    parameters = _without(described["extractors"], removed) | {name: options}
    prefixes = tuple(f"{kind}.{s}." for kind in ("encoders", "stream_heads") for s in removed)
    kept = {k: v for k, v in tensors.items() if not k.startswith(prefixes)} | dict(_heads(name, described["tasks"]))
    return {**described, "parts": parts, "streams": streams, "extractors": parameters}, kept


def parse_expert(given: str | Path) -> Expert:
    """The expert that "MODEL" or "MODEL@RELIABILITY" names."""
    model, at, share = str(given).rpartition("@")
    try:
        reliability = float(share) if at else None
    except ValueError:  # a name that holds an @
        return Expert(str(given), None)
    if reliability is not None and not 0 < reliability <= 1:
        raise BadConfig(f"a reliability of {share} for {model}", "give a share above 0 up to 1, such as MODEL@0.7")
    return Expert(model if at else str(given), reliability)


def _fusion_options(
    fusion: Mapping[str, Any], removed: list[str], name: str, modality: str, reliability: float | None, steps: bool
) -> dict[str, Any]:
    """The options of the fusion with stream `name` for those that are `removed`.

    `halfway`, the number of steps at which a stream counts half, is kept for a stream that has `steps`.
    """
    old = {key: [fusion[key][s] for s in removed if s in fusion.get(key, {})] for key in ("reliability", "halfway")}
    new = {
        "temperature": 1.0,
        "reliability": max(old["reliability"], default=1.0) if reliability is None else reliability,
        "halfway": max(old["halfway"], default=0.0) if steps else 0.0,
        "groups": modality,
    }
    return {**fusion, **{key: _without(fusion.get(key, {}), removed) | {name: value} for key, value in new.items()}}


def _without(named: Mapping[str, Any], removed: list[str]) -> dict[str, Any]:
    return {s: value for s, value in named.items() if s not in removed}


def _heads(name: str, tasks: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """For every task a head that passes the classifier's output on, each class to the label of its name."""
    for task, values in tasks.items():
        order = [CLASSES.index(label) for label in values["space"]["labels"]]
        yield f"stream_heads.{name}.{task}.weight", torch.eye(len(CLASSES))[order]
        yield f"stream_heads.{name}.{task}.bias", torch.zeros(len(CLASSES))


def notes(experts: Mapping[str, str | Path], shipped: str) -> list[str]:
    """Notes for the reader of a Timeline about replaced experts."""
    return [
        f"{modality}: {parse_expert(given).model} answers in place of {shipped}'s own expert; "
        "its calibration is that model's own and was not measured here"
        for modality, given in experts.items()
    ]
