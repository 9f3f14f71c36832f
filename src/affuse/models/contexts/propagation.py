"""Dilated forward push over a conversation, with early and adaptive late fusion, after ELR-GNN."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.layers.conversation import Conversations
from affuse.layers.drop import DropNode
from affuse.layers.edges import Edges, dilated, relations
from affuse.layers.gfpush import propagation
from affuse.layers.graph import aggregate, segment_softmax
from affuse.layers.masked import masked_softmax

CARD = {
    "summary": "few-step push to far utterances over dilated windows, attention by relation, early and late fusion",
    "source": "after Shou et al., ELR-GNN, 2024 (arXiv 2407.00119), which released no code: the form is ours",
    "entry": "DilatedPropagation",
    "stands": ["before", "after"],
    "modes": ["offline", "causal"],
    "licence": "Apache-2.0",
}

TYPES = 5  # relative relations: itself, same or other speaker, past or future
Pushed = tuple[Edges, Tensor, Tensor]  # edges, log Pi [E], and type [E] by dilation and relation


class DilatedPropagation(nn.Module):
    """ELR-GNN's pipeline on N rows of M streams; its code is not public, so that the form of each step is ours:

    1. push         Pi_d: the `top_k` largest of sum_n w_n P_d^n, n <= order; P_d over `past` and `future` utterances,
                    d apart
    2. nodes        H_m = W_m h_m; early fusion H_0 = W_0 [h_1; ...; h_M]
    3. relations    a_sv = softmax over all v and d of log Pi_d,sv + u_(d, relation of s, v)^T H_v (u = 0: Pi itself)
                    Z_m = LayerNorm(sum_(v, d) a_sv H_v), for m = 0 too
    4. late fusion  beta_m = softmax over present m of q^T tanh(W Z_m)
    5. output       [h_m ; dropout(Z_0 + beta_m Z_m)]; of a single stream, and of the fused rows, [h ; dropout(Z)]

    A linear fusion of 5 gets both sum_m beta_m Z_m and Z_0. An absent utterance receives messages, but sends none.
    """

    def __init__(
        self, dims: dict[str, int], *, stands: Literal["before", "after"] = "before",
        mode: Literal["offline", "causal"] = "offline", past: int | None = 5, future: int | None = 5,
        dilations: tuple[int, ...] = (1, 2, 4), order: int = 2, alpha: float = 0.2, top_k: int = 16, dim: int = 64,
        drop_node: float = 0.0, dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        if not dilations:
            raise BadConfig("dilations is empty", "give at least one, such as 1")
        self.stands, self.mode, self.past, self.dilations = stands, mode, past, dilations
        self.future = 0 if mode == "causal" else future
        self.order, self.alpha, self.top_k = order, alpha, top_k
        self.reach = None if past is None else order * past * max(dilations)
        types = TYPES * len(dilations)
        self.streams = nn.ModuleDict({name: _Relations(width, dim, types, drop_node) for name, width in dims.items()})
        several = len(dims) > 1
        self.early = _Relations(sum(dims.values()), dim, types, drop_node) if several else None
        self.gate = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1, bias=False)) if several else None
        self.dropout = nn.Dropout(dropout)
        self.dims = {name: width + dim for name, width in dims.items()}

    def forward(self, x: dict[str, Tensor], present: Tensor, conversations: Conversations) -> dict[str, Tensor]:
        """x[s] [N, d_s] -> [N, d_s + dim]."""
        pushed = self._push(conversations)
        z = [self.streams[s](h, present[:, i], *pushed) for i, (s, h) in enumerate(x.items())]
        if self.early is not None and self.gate is not None:
            beta = masked_softmax(torch.cat([self.gate(own) for own in z], 1), present)
            joint = self.early(torch.cat(list(x.values()), 1), present.any(1), *pushed)
            z = [joint + beta[:, i, None] * own for i, own in enumerate(z)]
        return {s: torch.cat([h, self.dropout(own)], 1) for (s, h), own in zip(x.items(), z)}

    def _push(self, conversations: Conversations) -> Pushed:
        """The edges of Pi_d, for all d."""
        found = []
        for k, d in enumerate(self.dilations):
            behind, ahead = (None if bound is None else bound * d for bound in (self.past, self.future))
            edges, pi = propagation(
                dilated(conversations, behind, ahead, d), len(conversations), order=self.order, alpha=self.alpha,
                top_k=self.top_k, conversation=conversations.conversation,
            )  # fmt: skip
            types, _ = relations(conversations, edges, "relative")
            found.append((edges.source, edges.target, pi.log(), TYPES * k + types))
        source, target, log_pi, types = (torch.cat(parts) for parts in zip(*found))
        return Edges(source, target), log_pi, types


class _Relations(nn.Module):
    """Steps 2 and 3 for one set of nodes."""

    def __init__(self, width: int, dim: int, types: int, drop_node: float) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(width, dim), nn.LayerNorm(dim)
        self.relation = nn.Parameter(torch.zeros(types, dim))
        self.drop = DropNode(drop_node, scale=False)

    def forward(self, x: Tensor, present: Tensor, edges: Edges, log_pi: Tensor, types: Tensor) -> Tensor:
        """x [N, width], present [N] -> [N, dim]."""
        sent = self.drop(edges, len(x), present[edges.source].to(x.dtype)) > 0
        edges, log_pi, types = edges.select(sent), log_pi[sent], types[sent]
        h = self.linear(x)
        scores = log_pi + (h @ self.relation.T)[edges.source, types]
        return self.norm(aggregate(h, edges, weight=segment_softmax(scores, edges.target, len(x))))
