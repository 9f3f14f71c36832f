"""The values that travel between rooms: streams, features, batches, encodings, outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Modality = Literal["audio", "vision", "text"]
MODALITIES: tuple[Modality, ...] = ("audio", "vision", "text")


@dataclass(frozen=True)
class StreamSpec:
    """What one named input of a model looks like.

    `shape` is the shape of one step (`()` for waveform samples, `(D,)` for vectors, `(H, W, 3)` for
    crops); `rate` is steps per second, 0 where a step is not a moment in time (one vector per
    utterance, text tokens); stored values times `scale` are the values a model sees.
    """

    name: str
    modality: Modality
    shape: tuple[int, ...]
    rate: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class Feature:
    """What an extractor makes of one clip.

    values [T, *shape]; valid [T] bool where content can be absent (no face is not zero);
    `t0`: time in seconds of step 0 on the clip's own clock. T = 0 means that the stream is absent.
    """

    values: np.ndarray
    valid: np.ndarray | None = None
    t0: float = 0.0

    @property
    def coverage(self) -> float:
        """Share of steps that are usable, 0..1."""
        if len(self.values) == 0:
            return 0.0
        return 1.0 if self.valid is None else float(np.mean(self.valid))

    def between(self, rate: float, start: float, end: float) -> Feature:
        """The steps with start <= time < end, seconds on the same clock."""
        part = steps_between(len(self.values), rate, self.t0, start, end)
        valid = None if self.valid is None else self.valid[part]
        return Feature(self.values[part], valid, self.t0 + part.start / rate if rate > 0 else self.t0)


def steps_between(length: int, rate: float, t0: float, start: float, end: float | None) -> slice:
    """The steps k of `length` with start <= t0 + k / rate < end (s); all of them where rate is 0."""
    if rate <= 0:
        return slice(0, length)
    first = min(length, max(0, math.ceil((start - t0) * rate - 1e-6)))
    last = length if end is None else min(length, math.ceil((end - t0) * rate - 1e-6))
    return slice(first, max(first, last))


class Encoding(NamedTuple):
    """One stream after its encoder: tokens [N, T', d], mask [N, T'] bool, pooled [N, d]."""

    tokens: Tensor
    mask: Tensor
    pooled: Tensor


@dataclass
class Batch:
    """N utterances with every stream a model asks for.

    x[s] [N, T_s, *shape] (float32, padded with 0); mask[s] [N, T_s] bool; present [N, S] bool in the
    order of `streams`; rate[s] Hz; t0[s] [N] seconds; target[task] ([N] int64, [N, C] or [N, D] float);
    target_mask[task] [N] bool; weight [N] float (1 unless an augmentation or sampler says otherwise).
    """

    streams: tuple[StreamSpec, ...]
    x: dict[str, Tensor]
    mask: dict[str, Tensor]
    present: Tensor
    t0: dict[str, Tensor] = field(default_factory=dict)
    target: dict[str, Tensor] = field(default_factory=dict)
    target_mask: dict[str, Tensor] = field(default_factory=dict)
    id: list[str] = field(default_factory=list)
    conversation: list[str] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    speaker: list[str] = field(default_factory=list)
    source: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return int(self.present.shape[0])

    @property
    def rate(self) -> dict[str, float]:
        """Steps per second of each stream."""
        return {s.name: s.rate for s in self.streams}

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`."""

        def move(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {k: v.to(device, non_blocking=True) for k, v in tensors.items()}

        return replace(
            self,
            x=move(self.x),
            mask=move(self.mask),
            present=self.present.to(device),
            t0=move(self.t0),
            target=move(self.target),
            target_mask=move(self.target_mask),
        )

    def without(self, streams: set[str]) -> Batch:
        """The same batch with the named streams absent: masked and zeroed, as if never recorded."""
        keep = self.present.clone()
        x, mask = dict(self.x), dict(self.mask)
        for i, spec in enumerate(self.streams):
            if spec.name in streams:
                keep[:, i] = False
                x[spec.name] = self.x[spec.name].new_zeros(self.x[spec.name].shape)
                mask[spec.name] = self.mask[spec.name].new_zeros(self.mask[spec.name].shape)
        return replace(self, x=x, mask=mask, present=keep)


@dataclass
class Encoded:
    """All streams after their encoders.

    tokens[s] [N, T', d]; mask[s] [N, T']; pooled[s] [N, d]; present [N, S] bool in the order of `streams`.
    """

    streams: tuple[str, ...]
    tokens: dict[str, Tensor]
    mask: dict[str, Tensor]
    pooled: dict[str, Tensor]
    present: Tensor


@dataclass
class Output:
    """What a model says of a batch.

    logits[task] [N, C]; unimodal[stream][task] [N, C] (only when asked for); fused [N, d]; aux: anything
    a part wants to show (gates, attention).
    """

    logits: dict[str, Tensor]
    fused: Tensor
    unimodal: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    aux: dict[str, Any] = field(default_factory=dict)
