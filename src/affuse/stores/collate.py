"""Features and rows to Batch: the one place where utterances meet, for training and for `analyze` alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from affuse.core.types import Batch, Feature, StreamSpec

KEYS = ("id", "conversation", "position", "speaker", "source")


def collate(
    specs: Sequence[StreamSpec],
    features: Mapping[str, Sequence[Feature]],
    rows: Mapping[str, Sequence[Any]] | None = None,
) -> Batch:
    """Batch of N utterances: features[stream] holds N Features; rows may hold id, conversation, position, ..."""
    x, mask, t0 = {}, {}, {}
    for spec in specs:
        x[spec.name], mask[spec.name] = pad(spec, features[spec.name])
        t0[spec.name] = torch.tensor([f.t0 for f in features[spec.name]], dtype=torch.float64)
    present = torch.stack([mask[s.name].any(1) for s in specs], dim=1)
    named: dict[str, Any] = {k: list(rows[k]) for k in KEYS if k in rows} if rows else {}
    return Batch(tuple(specs), x, mask, present, t0, **named)


def pad(spec: StreamSpec, features: Sequence[Feature]) -> tuple[torch.Tensor, torch.Tensor]:
    """x [N, T, *shape] float32 (scaled, 0 where not valid) and mask [N, T] of one stream; T >= 1."""
    lengths = np.array([len(f.values) for f in features])
    longest = max(1, int(lengths.max(initial=0)))
    mask = np.arange(longest) < lengths[:, None]
    x = np.zeros((len(features), longest, *spec.shape), dtype=np.float32)
    if mask.any():
        x[mask] = np.concatenate([f.values for f in features if len(f.values)]).astype(np.float32) * spec.scale
    if any(f.valid is not None for f in features):
        valid = [np.ones(len(f.values), bool) if f.valid is None else f.valid for f in features]
        mask[mask] = np.concatenate(valid)
        x[~mask] = 0
    return torch.from_numpy(x), torch.from_numpy(mask)
