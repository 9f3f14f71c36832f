"""Gated fusion."""

from __future__ import annotations

import torch
from torch import nn

from affuse.core.types import Encoded, Fused
from affuse.layers.masked import masked_softmax

CARD = {
    "summary": "each stream weighted by a gate, softmax over the streams present",
    "source": "after Arevalo et al., Gated Multimodal Units, 2017, with softmax gates",
    "entry": "Gated",
    "needs": ["pooled"],
    "licence": "Apache-2.0",
}


class Gated(nn.Module):
    """v_s = tanh(W_s h_s); g = softmax over present s of U_s [v_1; ...; v_S]; fused = sum_s g_s v_s."""

    def __init__(self, dims: dict[str, int], *, dim: int = 64) -> None:
        super().__init__()
        self.dim = dim
        self.project = nn.ModuleDict({name: nn.Linear(d, dim) for name, d in dims.items()})
        self.gate = nn.Linear(dim * len(dims), len(dims))

    def forward(self, encoded: Encoded) -> Fused:
        """pooled[s] [N, d_s] of the streams -> pooled [N, dim]; zeros where nothing is present."""
        v = torch.stack([torch.tanh(self.project[s](h)) for s, h in encoded.pooled.items()], dim=1)
        v = v * encoded.present.unsqueeze(-1)
        weights = masked_softmax(self.gate(v.flatten(1)), encoded.present)
        return Fused((weights.unsqueeze(-1) * v).sum(1))
