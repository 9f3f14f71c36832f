"""Attention over streams."""

from __future__ import annotations

import torch
from torch import nn

from affuse.core.errors import BadConfig
from affuse.core.types import Encoded, Fused
from affuse.layers.masked import masked_softmax

CARD = {
    "summary": "streams projected to one size, weighted by a learned query: softmax over those present, per head",
    "source": "additive attention: Bahdanau et al., ICLR 2015; over modalities: Hori et al., ICCV 2017",
    "entry": "Attention",
    "needs": ["pooled"],
    "licence": "Apache-2.0",
}


class Attention(nn.Module):
    """v_s = P_s h_s; a_ks = softmax over present s of q_k . tanh(W v_s + b); fused = [sum_s a_ks v_sk] over heads k.

    v_sk is part k of v_s, which is split into as many parts as there are heads.

    Raises BadConfig when `heads` does not divide `dim`.
    """

    def __init__(self, dims: dict[str, int], *, dim: int = 64, heads: int = 4) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise BadConfig(f"fusion.heads = {heads} does not divide fusion.dim = {dim}", "choose a divisor, such as 1")
        self.dim, self.heads = dim, heads
        self.project = nn.ModuleDict({name: nn.Linear(d, dim) for name, d in dims.items()})
        self.hidden = nn.Linear(dim, dim)
        self.query = nn.Linear(dim, heads, bias=False)

    def forward(self, encoded: Encoded) -> Fused:
        """pooled[s] [N, d_s] of the streams -> pooled [N, dim]; zeros where nothing is present."""
        v = torch.stack([self.project[s](h) for s, h in encoded.pooled.items()], dim=1)
        there = encoded.present.unsqueeze(-1)
        weights = masked_softmax(self.query(torch.tanh(self.hidden(v))), there, dim=1)
        return Fused(torch.einsum("nsk,nskd->nkd", weights, v.unflatten(2, (self.heads, -1))).flatten(1))
