"""Random inputs for any registered part, made from its card: a new part is tested without writing a test."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import torch

from affuse.core import registry
from affuse.core.errors import BadConfig
from affuse.core.parts import Part
from affuse.core.tasks import Task
from affuse.core.types import Batch, Encoded, StreamSpec
from affuse.models.build import Architecture
from affuse.models.model import Model
from tests.tiny_bert import WORDS, save_tiny_bert

CANDIDATES = (
    StreamSpec("sound", "audio", (), 16000.0),
    StreamSpec("vectors", "audio", (12,), 10.0),
    StreamSpec("faces", "vision", (48, 48, 3), 5.0),
    StreamSpec("face_vectors", "vision", (9,), 5.0),
    StreamSpec("words", "text", (16,), 0.0),
)
TOKENS = StreamSpec("tokens", "text", ())  # of encoders whose card says that they take token ids
LENGTHS = {(): 6000, (12,): 11, (48, 48, 3): 4, (9,): 6, (16,): 3}


def inputs_of(encoder: str) -> list[StreamSpec]:
    """The candidate streams that an encoder takes."""
    if _takes_ids(encoder):
        return [TOKENS]
    fitting = []
    for spec in CANDIDATES:
        if spec.modality not in registry.cards("encoders")[encoder]["modalities"]:
            continue
        try:
            make_encoder(encoder, spec)
        except BadConfig:
            continue
        fitting.append(spec)
    return fitting


def make_encoder(name: str, spec: StreamSpec, fitted: bool = True) -> torch.nn.Module:
    """An encoder with its default options (a pretrained one: of a tiny random model) and a fitted normalisation."""
    torch.manual_seed(0)
    own = {"model": _tiny_bert().name} if _takes_ids(name) else {}
    encoder = registry.build("encoders", name, spec, **registry.resolve("encoders", name, own, name))
    if fitted and hasattr(encoder, "fit"):
        encoder.fit([random_input(spec, 6, seed=5)])
    return encoder


def _takes_ids(encoder: str) -> bool:
    return registry.cards("encoders")[encoder].get("takes") == "token ids"


@cache
def _tiny_bert() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory()
    save_tiny_bert(Path(folder.name))
    return folder  # removed when the tests end


def random_input(spec: StreamSpec, n: int, seed: int = 0, longer: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """x [n, T, *shape] and mask with rows of different lengths; `longer` adds padding only."""
    generator = torch.Generator().manual_seed(seed)
    longest = 9 if spec == TOKENS else LENGTHS[spec.shape]
    lengths = torch.linspace(max(1, longest // 2), longest, n).long()
    mask = torch.arange(longest + longer) < lengths[:, None]
    x = torch.rand(n, longest, *spec.shape, generator=generator)
    x = torch.cat([x, torch.zeros(n, longer, *spec.shape)], 1)
    if spec == TOKENS:
        x = (x * len(WORDS)).floor()
    elif spec.shape == ():
        x = (x - 0.5) * 0.2
    return x * mask.view(*mask.shape, *[1] * len(spec.shape)), mask


def random_batch(specs: tuple[StreamSpec, ...], n: int, classes: int, seed: int = 0) -> Batch:
    """A labelled Batch of n utterances."""
    x, mask = {}, {}
    for i, spec in enumerate(specs):
        x[spec.name], mask[spec.name] = random_input(spec, n, seed + i)
    present = torch.stack([mask[s.name].any(1) for s in specs], 1)
    target = torch.arange(n) % classes
    return Batch(
        specs, x, mask, present, target={"emotion": target}, target_mask={"emotion": torch.ones(n, dtype=torch.bool)}
    )


def encoded_of(pooled: dict[str, torch.Tensor], present: torch.Tensor) -> Encoded:
    """Encoded streams of which only the pooled vectors matter."""
    return Encoded(tuple(pooled), {}, {}, pooled, present)


def make_model(specs: tuple[StreamSpec, ...], encoders: dict[str, str], fusion: str, space, unimodal=False) -> Model:
    """A model of default parts."""
    torch.manual_seed(0)

    def part(kind, name):
        return Part(name, registry.resolve(kind, name, {}, name))

    streams = {s: part("encoders", e) for s, e in encoders.items()}
    parts = Architecture(streams, part("fusions", fusion), (), unimodal)
    return Model(parts, specs, {"emotion": Task("emotion", space)})
