"""Every stream attends over every stream of its conversation, itself included, and gates decide what is kept."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.layers.blocks import Block, blocks, rows
from affuse.layers.conversation import Conversations
from affuse.layers.masked import masked_softmax
from affuse.layers.positions import sinusoids
from affuse.layers.speakers import SpeakerEmbedding, SpeakerKind, reach_of

CARD = {
    "summary": "attention of every stream over every stream of the conversation, gated: SDT's, or co-attention",
    "source": "Ma et al., A Transformer-Based Model with Self-Distillation (SDT), IEEE TMM 2024; Lu et al., Co-Attention, 2016",
    "entry": "CrossModalAttention",
    "stands": ["before"],
    "modes": ["offline", "causal", "lookahead"],
    "licence": "Apache-2.0",
}

FAR = 32  # utterances: beyond, they are as far as can be
CELLS = 2**15  # of a block: scores have one per head and pair of streams


class CrossModalAttention(nn.Module):
    """Per stream m: W_m [g_m1; g_m2; ...], g_mn = sigmoid(W z_mn) * z_mn, z_mn = transformer layer of m over n.

    Scores are q k / sqrt(d_h) + b, softmax over the utterances n of the conversation at most `past` and `future` apart (None:
    all) that have the stream; where none has, the layer adds nothing. cross: q and k are projections of each ordered
    pair's own. co: one affinity A = X W Y^T serves both directions of a pair (W = P Q^T in each head). positions: b of how
    far apart two utterances are (`FAR` at most), and whether the same person speaks; or SDT's sinusoids, which count from
    the conversation's beginning, so that `reach` has no end.
    """

    stands = "before"

    def __init__(
        self, dims: dict[str, int], *, mode: Literal["offline", "causal", "lookahead"] = "offline", lookahead: int = 0,
        past: int | None = None, future: int | None = None, attention: Literal["cross", "co"] = "cross", dim: int = 128,
        heads: int = 8, positions: Literal["relative", "sinusoid", "none"] = "relative", speaker: SpeakerKind = "relative",
        dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        _check(mode, lookahead, dim, heads)
        self.mode, self.past, self.attention, self.heads, self.positions = mode, past, attention, heads, positions
        self.ahead = future if mode == "offline" else lookahead if mode == "lookahead" else 0
        s = len(dims)
        self.widen = nn.ModuleList(nn.Linear(width, dim) for width in dims.values())
        self.speaker, self.named = SpeakerEmbedding(dim, speaker), speaker != "none"
        self.query, self.value = (nn.ModuleList(nn.Linear(dim, s * dim, bias=b) for _ in dims) for b in (False, True))
        # a stream's keys for itself alone, or for each of the others too
        self.key = nn.ModuleList(nn.Linear(dim, dim if attention == "co" else s * dim, bias=False) for _ in dims)
        self.near = nn.Embedding((1 + self.named) * (2 * FAR + 1), heads) if positions == "relative" else None
        self.pairs = nn.ModuleList(_Pair(dim, dropout) for _ in range(s * s))
        self.merge = nn.ModuleList(nn.Linear(s * dim, dim) for _ in dims)
        self.dropout = nn.Dropout(dropout)
        self.dims = dict.fromkeys(dims, dim)
        self.reach = None if positions == "sinusoid" else reach_of(past, 1, self.speaker)

    def forward(self, x: dict[str, Tensor], present: Tensor, talk: Conversations) -> dict[str, Tensor]:
        """x[s] [N, d_s] -> [N, dim]."""
        nodes = torch.stack([widen(value) for widen, value in zip(self.widen, x.values())], 1)
        nodes = self.speaker(nodes, talk)
        if self.positions == "sinusoid":
            nodes = nodes + sinusoids(talk.position, nodes.shape[2]).to(nodes.dtype).unsqueeze(1)
        nodes = self.dropout(nodes) * present.unsqueeze(2)
        heard, found = self._attend(nodes, present, talk), {}
        for m, name in enumerate(x):
            layers = self.pairs[m * len(x) : (m + 1) * len(x)]
            gated = [layer(nodes[:, m], heard[:, m, n]) for n, layer in enumerate(layers)]  # type: ignore[arg-type]
            found[name] = self.merge[m](torch.cat(gated, 1)) * present[:, m, None]
        return found

    def _attend(self, nodes: Tensor, present: Tensor, talk: Conversations) -> Tensor:
        """[N, S, S, dim]: what stream m hears of stream n."""
        query, key, value = self._projections(nodes)
        whole = blocks(talk, self.past, self.ahead, CELLS)
        found = []
        for block in whole.parts:
            mask = (block.hears.unsqueeze(1) & block.of_key(present)).unsqueeze(2)  # [B, n, 1, Q, K]
            bias = self._bias(block, talk)
            each = [self._heads(query[:, m], key[:, :, m], value[:, :, m], block, mask, bias) for m in range(nodes.shape[1])]
            found.append(torch.stack(each, 2))
        return whole.join(found)

    def _projections(self, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """query [N, m, n, heads, d_h] of stream m towards n; key and value [N, n, m, heads, d_h] of stream n for m."""
        n, s, _ = nodes.shape

        def project(layers: nn.ModuleList) -> Tensor:
            found = torch.stack([layer(nodes[:, i]) for i, layer in enumerate(layers)], 1)
            return found.view(n, s, -1, self.heads, nodes.shape[2] // self.heads)

        query, key, value = project(self.query), project(self.key), project(self.value)
        if self.attention == "co":  # the other's query is the key: one W for both directions
            own = torch.eye(s, dtype=torch.bool, device=nodes.device)[..., None, None]
            key = torch.where(own, key, query)
        return query, key, value

    def _heads(self, query: Tensor, key: Tensor, value: Tensor, block: Block, mask: Tensor, bias: Tensor | None) -> Tensor:
        """[B, Q, n, dim]: what one stream hears of each stream n."""
        q, k, v = rows(query, block.query), rows(key, block.key), rows(value, block.key)
        q, k, v = (part.permute(0, 2, 3, 1, 4) for part in (q, k, v))  # [B, n, heads, L, d_h]
        scores = (q @ k.mT) / math.sqrt(q.shape[-1])
        share = self.dropout(masked_softmax(scores if bias is None else scores + bias, mask))
        return (share @ v).permute(0, 3, 1, 2, 4).flatten(3)

    def _bias(self, block: Block, talk: Conversations) -> Tensor | None:
        """[B, 1, heads, Q, K] of the distance, and of whether another one speaks (whom we cannot name is another)."""
        if self.near is None:
            return None
        kind = block.later.clamp(-FAR, FAR) + FAR
        if self.named:
            query, key = talk.speaker[block.query].unsqueeze(2), talk.speaker[block.key].unsqueeze(1)
            other = ((query != key) | (query < 0)) & (block.later != 0)
            kind = kind + other * (2 * FAR + 1)
        return self.near(kind).permute(0, 3, 1, 2).unsqueeze(1)


class _Pair(nn.Module):
    """One stream over another: the rest of the transformer layer, and the gate."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.out, self.gate = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.feed = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(dim, dim))
        self.first, self.second, self.dropout = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.Dropout(dropout)

    def forward(self, x: Tensor, heard: Tensor) -> Tensor:
        """x, heard [N, dim] -> [N, dim]."""
        z = self.first(x + self.dropout(self.out(heard)))
        z = self.second(z + self.dropout(self.feed(z)))
        return self.gate(z).sigmoid() * z


def _check(mode: str, lookahead: int, dim: int, heads: int) -> None:
    if mode == "lookahead" and lookahead < 1:
        raise BadConfig(f"lookahead={lookahead} looks nowhere", "give lookahead >= 1 utterances, or mode=causal")
    if dim % heads:
        raise BadConfig(f"dim={dim} does not divide by heads={heads}", "choose heads that divide dim")
