"""Attention within conversations: over a whole batch in blocks, or live over a short memory of past states."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.core.errors import BadConfig
from affuse.layers.blocks import Block, Blocks, rows


def attend(
    query: Tensor, key: Tensor, value: Tensor, among: Blocks, *, dropout: float = 0.0, attended: Tensor | None = None,
    scored: Callable[[Tensor, Block], Tensor] = lambda scores, block: scores,
) -> Tensor:  # fmt: skip
    """sum_j softmax_j(scored(q_i k_j)) v_j over the neighbours j of i: q, k, v [N, H, d] -> [N, H, d].

    `among` gives the neighbours. `scored` changes the scores [B, H, Q, K] before the softmax. `attended` [N] says which
    utterances others may attend to (None: all); an utterance may always attend to itself. What is not attended to has
    a weight of exactly 0 and gets no gradient.
    """
    found = []
    for block in among.parts:
        q, k, v = rows(query, block.query), rows(key, block.key), rows(value, block.key)
        scores = scored(torch.einsum("bqhd,bkhd->bhqk", q, k), block)
        mask = block.attended
        if attended is not None:
            mask = mask & (attended[block.key].unsqueeze(1) | (block.later == 0))
        weights = scores.masked_fill(~mask.unsqueeze(1), torch.finfo(scores.dtype).min).softmax(-1)
        found.append(torch.einsum("bhqk,bkhd->bqhd", F.dropout(weights, dropout), v))
    return among.join(found)


class SelfAttention(nn.Module):
    """LayerNorm(h + MHA(h)) within each conversation."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise BadConfig(f"{heads} heads do not share states of {dim}", "give dim as a multiple of heads")
        self.heads, self.dropout = heads, dropout
        self.project, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, h: Tensor, among: Blocks) -> Tensor:
        """h [N, dim] -> [N, dim]."""
        q, k, v = self.project(h).unflatten(1, (3, self.heads, -1)).unbind(1)
        dropout = self.dropout if self.training else 0.0
        mixed = attend(q * q.shape[-1] ** -0.5, k, v, among, dropout=dropout)
        return self.norm(h + self.out(mixed.flatten(1)))


class Matching(nn.Module):
    """DialogueGCN's general2: sum_j softmax_j(tanh((W h_i + b) h_j)) h_j."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.transform = nn.Linear(dim, dim)

    def forward(self, h: Tensor, among: Blocks, attended: Tensor | None = None) -> Tensor:
        """h [N, dim] -> [N, dim]; `attended` as for `attend`."""
        query, value = self.transform(h).unsqueeze(1), h.unsqueeze(1)
        found = attend(query, value, value, among, attended=attended, scored=lambda scores, block: scores.tanh())
        return found.squeeze(1)


def remember(memory: tuple[Tensor, ...], h: Tensor, past: int | None) -> tuple[Tensor, ...]:
    """The memory with h [1, d] added: the last `past` states before it, and h itself."""
    return (*memory, h)[-(past or 0) - 1 :]


def recall(attention: nn.Module, memory: Sequence[Tensor]) -> Tensor:
    """The result of attention for the last of the remembered states [1, d], which attends to all of them: [1, d]."""
    h = torch.cat(list(memory))
    key = torch.arange(len(h), device=h.device).unsqueeze(0)
    last = Block(key[:, -1:], key, torch.ones_like(key, dtype=torch.bool).unsqueeze(1))
    found: Tensor = attention(h, Blocks((last,), torch.zeros_like(key[0])))
    return found[-1:]
