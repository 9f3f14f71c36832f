"""No learned encoder: vectors as they are, and their mean over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import Encoding, StreamSpec

CARD = {
    "summary": "vectors as they are, then the mean over time: for predictions of other models",
    "source": "common practice",
    "entry": "Mean",
    "modalities": ["audio", "vision", "text"],
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0",
}


class Mean(nn.Module):
    """x [N, T, D] (NaN = missing number), mask [N, T] -> Encoding with dim = D; nothing is learned.

    Missing numbers are left out of the mean, which is 0 where all are missing. Raises BadConfig for steps that are no
    vectors.
    """

    def __init__(self, spec: StreamSpec) -> None:
        super().__init__()
        if len(spec.shape) != 1:
            raise BadConfig(f"stream '{spec.name}' has steps of shape {spec.shape}", "mean needs vectors (D,)")
        self.dim, self.rate = spec.shape[0], spec.rate

    def forward(self, x: Tensor, mask: Tensor) -> Encoding:
        """Encoding with tokens [N, T, D], mask [N, T], pooled [N, D]."""
        known = mask.unsqueeze(-1) & ~x.isnan()
        tokens = torch.where(known, x, 0)
        return Encoding(tokens, mask, tokens.sum(1) / known.sum(1).clamp_min(1))
