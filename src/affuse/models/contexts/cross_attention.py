"""Every stream attends to every stream of its conversation, itself included, and gates weight the results."""

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
    "source": "Ma et al., A Transformer-Based Model with Self-Distillation (SDT), IEEE TMM 2024; "
    "Lu et al., Co-Attention, 2016",
    "entry": "CrossModalAttention",
    "stands": ["before"],
    "modes": ["offline", "causal", "lookahead"],
    "licence": "Apache-2.0",
}

FAR = 32  # utterances; greater distances count as this one
CELLS = 2**15  # of a block: scores have one value per head and pair of streams for each of them


class CrossModalAttention(nn.Module):
    """Per stream m: W_m [g_m1; g_m2; ...], g_mn = sigmoid(W z_mn) * z_mn, z_mn = transformer layer of m over n.

    Scores are q k / sqrt(d_h) + b, with a softmax over the utterances of the conversation that are at most `past`
    before and `future` after (None: all) and have stream n; where none has, attention adds nothing. cross: each ordered
    pair of streams has its own projections q and k. co: one affinity A = X W Y^T serves both directions of a pair
    (W = P Q^T in each head). positions=relative: b depends on the distance of the two utterances (at most `FAR`) and on
    whether they have the same speaker; sinusoid: SDT's, counted from the beginning of the conversation, so that `reach`
    is unbounded.
    """

    stands = "before"

    def __init__(
        self, dims: dict[str, int], *, mode: Literal["offline", "causal", "lookahead"] = "offline", lookahead: int = 0,
        past: int | None = None, future: int | None = None, attention: Literal["cross", "co"] = "cross", dim: int = 128,
        heads: int = 8, positions: Literal["relative", "sinusoid", "none"] = "relative",
        speaker: SpeakerKind = "relative", dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        _check(mode, lookahead, dim, heads)
        self.mode, self.past, self.attention, self.heads, self.positions = mode, past, attention, heads, positions
        self.ahead = future if mode == "offline" else lookahead if mode == "lookahead" else 0
        s = len(dims)
        self.widen = nn.ModuleList(nn.Linear(width, dim) for width in dims.values())
        self.speaker, self.named = SpeakerEmbedding(dim, speaker), speaker != "none"
        self.query, self.value = (nn.ModuleList(nn.Linear(dim, s * dim, bias=b) for _ in dims) for b in (False, True))
        # co: one key per stream, for itself; cross: one for each stream that attends to it
        self.key = nn.ModuleList(nn.Linear(dim, dim if attention == "co" else s * dim, bias=False) for _ in dims)
        self.near = nn.Embedding((1 + self.named) * (2 * FAR + 1), heads) if positions == "relative" else None
        self.pairs = nn.ModuleList(_Pair(dim, dropout) for _ in range(s * s))
        self.merge = nn.ModuleList(nn.Linear(s * dim, dim) for _ in dims)
        self.dropout = nn.Dropout(dropout)
        self.dims = dict.fromkeys(dims, dim)
        self.reach = None if positions == "sinusoid" else reach_of(past, 1, self.speaker)

    def forward(self, x: dict[str, Tensor], present: Tensor, conversations: Conversations) -> dict[str, Tensor]:
        """x[s] [N, d_s] -> [N, dim]."""
        nodes = torch.stack([widen(value) for widen, value in zip(self.widen, x.values())], 1)
        nodes = self.speaker(nodes, conversations)
        if self.positions == "sinusoid":
            nodes = nodes + sinusoids(conversations.position, nodes.shape[2]).to(nodes.dtype).unsqueeze(1)
        nodes = self.dropout(nodes) * present.unsqueeze(2)
        attended, found = self._attend(nodes, present, conversations), {}
        for m, name in enumerate(x):
            layers = self.pairs[m * len(x) : (m + 1) * len(x)]
            gated = [layer(nodes[:, m], attended[:, m, n]) for n, layer in enumerate(layers)]  # type: ignore[arg-type]
            found[name] = self.merge[m](torch.cat(gated, 1)) * present[:, m, None]
        return found

    def _attend(self, nodes: Tensor, present: Tensor, conversations: Conversations) -> Tensor:
        """[N, m, n, dim]: the result of the attention of stream m over stream n."""
        query, key, value = self._projections(nodes)
        whole = blocks(conversations, self.past, self.ahead, CELLS)
        found = []
        for block in whole.parts:
            mask = (block.attended.unsqueeze(1) & block.of_key(present)).unsqueeze(2)  # [B, n, 1, Q, K]
            bias = self._bias(block, conversations)
            each = [
                self._heads(query[:, m], key[:, :, m], value[:, :, m], block, mask, bias)
                for m in range(nodes.shape[1])
            ]
            found.append(torch.stack(each, 2))
        return whole.join(found)

    def _projections(self, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """query [N, m, n, heads, d_h] of stream m towards n; key and value [N, n, m, heads, d_h] of stream n for m."""
        n, s, _ = nodes.shape

        def project(layers: nn.ModuleList) -> Tensor:
            found = torch.stack([layer(nodes[:, i]) for i, layer in enumerate(layers)], 1)
            return found.view(n, s, -1, self.heads, nodes.shape[2] // self.heads)

        query, key, value = project(self.query), project(self.key), project(self.value)
        if self.attention == "co":  # the other stream's query is the key: one W for both directions
            own = torch.eye(s, dtype=torch.bool, device=nodes.device)[..., None, None]
            key = torch.where(own, key, query)
        return query, key, value

    def _heads(
        self, query: Tensor, key: Tensor, value: Tensor, block: Block, mask: Tensor, bias: Tensor | None
    ) -> Tensor:
        """[B, Q, n, dim]: the result of the attention of one stream over each stream n."""
        q, k, v = rows(query, block.query), rows(key, block.key), rows(value, block.key)
        q, k, v = (part.permute(0, 2, 3, 1, 4) for part in (q, k, v))  # [B, n, heads, L, d_h]
        scores = (q @ k.mT) / math.sqrt(q.shape[-1])
        share = self.dropout(masked_softmax(scores if bias is None else scores + bias, mask))
        return (share @ v).permute(0, 3, 1, 2, 4).flatten(3)

    def _bias(self, block: Block, conversations: Conversations) -> Tensor | None:
        """[B, 1, heads, Q, K]: by distance, and by whether the speaker is another (an unnamed one always is)."""
        if self.near is None:
            return None
        kind = block.later.clamp(-FAR, FAR) + FAR
        if self.named:
            speaker = conversations.speaker
            query, key = speaker[block.query].unsqueeze(2), speaker[block.key].unsqueeze(1)
            other = ((query != key) | (query < 0)) & (block.later != 0)
            kind = kind + other * (2 * FAR + 1)
        return self.near(kind).permute(0, 3, 1, 2).unsqueeze(1)


class _Pair(nn.Module):
    """For one pair of streams, what follows the attention: the rest of the transformer layer, and the gate."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.out, self.gate = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.feed = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(dim, dim))
        self.first, self.second, self.dropout = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.Dropout(dropout)

    def forward(self, x: Tensor, attended: Tensor) -> Tensor:
        """x [N, dim] and the result of the attention, attended [N, dim] -> [N, dim]."""
        z = self.first(x + self.dropout(self.out(attended)))
        z = self.second(z + self.dropout(self.feed(z)))
        return self.gate(z).sigmoid() * z


def _check(mode: str, lookahead: int, dim: int, heads: int) -> None:
    if mode == "lookahead" and lookahead < 1:
        raise BadConfig(f"lookahead={lookahead} is below 1", "give lookahead >= 1 utterances, or mode=causal")
    if dim % heads:
        raise BadConfig(f"dim={dim} does not divide by heads={heads}", "choose heads that divide dim")
