"""Sequences of several streams on one time grid, and predictions per frame at the times of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from affuse.core.types import Encoded


def on_grid(encoded: Encoded) -> Encoded:
    """Streams of one rate, shifted so that token k of all streams has the same time.

    Tokens are [N, T, d_s], masks [N, T]; t0 [N] is the same for all. A row begins where the earliest of its streams
    begins; steps that a stream lacks are outside its mask.
    """
    if not encoded.tokens:
        return encoded
    rate = next(iter(encoded.rate.values()))
    starts = torch.stack([encoded.t0[s] for s in encoded.streams])
    held = torch.stack([encoded.mask[s].any(1) for s in encoded.streams])
    first = starts.masked_fill(~held, torch.inf).amin(0)
    first = torch.where(first.isfinite(), first, starts.amin(0))
    offset = ((starts - first) * rate).round().long().clamp_min(0).masked_fill(~held, 0)
    sizes = torch.stack([o.max() + encoded.mask[s].shape[1] for o, s in zip(offset, encoded.streams, strict=True)])
    steps = torch.arange(int(sizes.max()), device=first.device)
    if not offset.any() and len({encoded.mask[s].shape[1] for s in encoded.streams}) == 1:
        return replace(encoded, t0=dict.fromkeys(encoded.streams, first))
    tokens, mask = {}, {}
    for s, shift in zip(encoded.streams, offset, strict=True):
        tokens[s], mask[s] = shifted(encoded.tokens[s], encoded.mask[s], steps - shift.unsqueeze(1))
    return replace(encoded, tokens=tokens, mask=mask, t0=dict.fromkeys(encoded.streams, first))


def shifted(x: Tensor, mask: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Steps index [N, L] of x [N, T, ...] and mask [N, T]; zeros, and False, for an index outside."""
    inside = (index >= 0) & (index < mask.shape[1])
    at = index.clamp(0, mask.shape[1] - 1)
    kept = mask.gather(1, at) & inside
    wide = at.view(*at.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:])
    return x.gather(1, wide) * kept.view(*kept.shape, *[1] * (x.dim() - 2)), kept


def covering(rate: float, t0: Tensor, wanted: float, length: int) -> Tensor:
    """Index [N, length] of the step of a grid (`rate` Hz from t0 [N] s) that covers the middle of each wanted step.

    Step k of the wanted grid lasts from k / wanted to (k + 1) / wanted s.
    """
    middle = (torch.arange(length, device=t0.device, dtype=torch.float64) + 0.5) / wanted
    return ((middle - t0.double().unsqueeze(1)) * rate + 1e-6).floor().long()


def logits_at(logits: Tensor, rate: float, t0: Tensor, wanted: float, length: int) -> Tensor:
    """Logits [N, T, C] of a grid (`rate` Hz from t0 [N] s) for `length` labels of `wanted` Hz from 0 s: [N, length, C].

    A label gets the step that covers its middle; a label before the first step or after the last gets the nearest one.
    """
    at = covering(rate, t0, wanted, length).clamp(0, logits.shape[1] - 1)
    return logits.gather(1, at.unsqueeze(-1).expand(-1, -1, logits.shape[2]))


def same_rate(rates: Mapping[str, float]) -> float:
    """The one rate (Hz) of all streams; 0 where they have none, or different ones."""
    found = {round(rate, 6) for rate in rates.values()}
    return found.pop() if len(found) == 1 else 0.0
