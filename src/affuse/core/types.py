"""The values that travel between rooms: streams, features, batches, encodings, outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
    `t0`: time in seconds of step 0 on the clip's own clock. T = 0 means that the stream is absent. `text`: what the
    values stand for, where they are ids of a text that was made of the clip.
    """

    values: np.ndarray
    valid: np.ndarray | None = None
    t0: float = 0.0
    text: str = ""

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
    order of `streams`; rate[s] Hz; t0[s] [N] seconds. target[task] with target_mask[task] bool: [N] int64, [N, C] or
    [N, D] float with a mask [N]; of a task per frame [N, L] or [N, L, C] with a mask [N, L], where step k has the label
    of the time grid_t0[task] + k / grid[task] s on the row's clock (grid_t0 [N]; 0 where it is not given).
    """

    streams: tuple[StreamSpec, ...]
    x: dict[str, Tensor]
    mask: dict[str, Tensor]
    present: Tensor
    t0: dict[str, Tensor] = field(default_factory=dict)
    target: dict[str, Tensor] = field(default_factory=dict)
    target_mask: dict[str, Tensor] = field(default_factory=dict)
    grid: dict[str, float] = field(default_factory=dict)
    grid_t0: dict[str, Tensor] = field(default_factory=dict)
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

    def _tensors(self, change: Callable[[Tensor], Tensor]) -> Batch:
        parts = ("x", "mask", "t0", "target", "target_mask", "grid_t0")
        named: dict[str, Any] = {k: {n: change(v) for n, v in getattr(self, k).items()} for k in parts}
        return replace(self, present=change(self.present), **named)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`."""
        return self._tensors(lambda v: v.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same batch in page-locked memory, from which a GPU copies while it computes."""
        return self._tensors(lambda v: v.pin_memory())

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

    tokens[s] [N, T', d]; mask[s] [N, T']; pooled[s] [N, d]; present [N, S] bool in the order of `streams`; rate[s]:
    tokens per second (0: they are no moments in time); t0[s] [N]: time in seconds of token 0. `tokens` is empty where
    only pooled vectors were kept (`without_tokens`).
    """

    streams: tuple[str, ...]
    tokens: dict[str, Tensor]
    mask: dict[str, Tensor]
    pooled: dict[str, Tensor]
    present: Tensor
    rate: dict[str, float] = field(default_factory=dict)
    t0: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.present.shape[0])

    def keep(self, keep: Tensor) -> Encoded:
        """Streams taken away: keep [N, S] bool; what was absent stays absent."""
        present = self.present & keep
        column = {s: present[:, i, None] for i, s in enumerate(self.streams)}
        return replace(
            self,
            present=present,
            tokens={s: v * column[s].unsqueeze(-1) for s, v in self.tokens.items()},
            mask={s: v & column[s] for s, v in self.mask.items()},
            pooled={s: v * column[s] for s, v in self.pooled.items()},
        )

    def take(self, rows: Tensor | slice) -> Encoded:
        """Some utterances, in any order and as often as `rows` names them."""
        parts = ("tokens", "mask", "pooled", "t0")
        named: dict[str, Any] = {k: {s: v[rows] for s, v in getattr(self, k).items()} for k in parts}
        return replace(self, present=self.present[rows], **named)

    def select(self, streams: Sequence[str]) -> Encoded:
        """These streams only, in this order."""
        column = [self.streams.index(s) for s in streams]
        parts = ("tokens", "mask", "pooled", "rate", "t0")
        named: dict[str, Any] = {k: {s: getattr(self, k)[s] for s in streams if s in getattr(self, k)} for k in parts}
        return replace(self, streams=tuple(streams), present=self.present[:, column], **named)

    def repaired(self, stream: str, rows: Tensor, of: Encoded | None = None) -> Encoded:
        """Utterance i with the stream of utterance rows[i] [N] of these, or `of` others, beside its own other streams.
        """
        other, column = (of or self).take(rows), self.streams.index(stream)
        present = self.present.clone()
        present[:, column] = other.present[:, column]
        parts = ("tokens", "mask", "pooled", "t0")
        named: dict[str, Any] = {
            k: getattr(self, k) | {s: v for s, v in getattr(other, k).items() if s == stream} for k in parts
        }
        return replace(self, present=present, **named)

    def without_tokens(self) -> Encoded:
        """The pooled vectors with their masks: all that a fusion of vectors needs, at a fraction of the memory."""
        return replace(self, tokens={})

    @staticmethod
    def join(parts: Sequence[Encoded]) -> Encoded:
        """Utterances one after the other, tokens and masks padded to the longest."""
        import torch
        from torch.nn.functional import pad

        first = parts[0]
        longest = {s: max(part.mask[s].shape[1] for part in parts) for s in first.streams}

        def joined(kind: str, padded: bool) -> dict[str, Tensor]:
            found = {}
            for s in getattr(first, kind):
                values = [getattr(part, kind)[s] for part in parts]
                if padded:
                    right = [(0, 0) * (v.dim() - 2) + (0, longest[s] - v.shape[1]) for v in values]
                    values = [pad(v, r) for v, r in zip(values, right, strict=True)]
                found[s] = torch.cat(values)
            return found

        present = torch.cat([part.present for part in parts])
        tokens, mask = joined("tokens", True), joined("mask", True)
        return Encoded(first.streams, tokens, mask, joined("pooled", False), present, first.rate, joined("t0", False))


@dataclass
class Fused:
    """What a fusion makes of all streams.

    pooled [N, d]; where it keeps a sequence, tokens [N, T, d] with mask [N, T] bool, `rate` tokens per second (0: no
    moments in time) and t0 [N], the time in seconds of token 0.
    """

    pooled: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None
    rate: float = 0.0
    t0: Tensor | None = None


@dataclass
class Output:
    """What a model answers for a batch.

    logits[task] [N, C], or [N, T, C] on the grid of `fused` for a task per frame; unimodal[stream][task] [N, C] (only
    when asked for); aux: anything a part wants to show (gates, attention).
    """

    logits: dict[str, Tensor]
    fused: Fused
    unimodal: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    aux: dict[str, Any] = field(default_factory=dict)
