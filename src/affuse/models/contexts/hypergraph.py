"""Hypergraph of utterances and streams, and high-pass messages: M3Net without weights per position in the batch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.layers.blocks import Blocks, blocks
from affuse.layers.conversation import Conversations
from affuse.layers.graph import HighPass
from affuse.layers.speakers import SpeakerEmbedding, SpeakerKind, reach_of

CARD = {
    "summary": "hypergraph of streams and utterances, and high-pass messages: M3Net",
    "source": "Chen et al., Multivariate, Multi-Frequency and Multimodal (M3Net), CVPR 2023",
    "entry": "ModalHypergraph",
    "stands": ["before"],
    "modes": ["offline", "causal"],
    "licence": "Apache-2.0",
}


class ModalHypergraph(nn.Module):
    """[hyper; high] per stream, both from nodes x = W_s x_s + speaker; absent streams are no nodes.

    hyper: `layers` times leaky_relu(r_s T x + (1 - r_s) U x + b). T is the mean over the node's stream in its
    conversation, U the mean over the streams of its utterance, each weighted by sigmoid(w^T x + b) of the members; r_s
    is learned per stream. high: `high` times HighPass over the node's stream and the other streams of its utterance.
    With bounds, and in mode causal, T is the mean over the `past` utterances before and the `future` after the node.
    Differs from the published code: M3Net learns both weights per position in the batch.
    """

    stands = "before"

    def __init__(
        self, dims: dict[str, int], *, mode: Literal["offline", "causal"] = "offline", past: int | None = None,
        future: int | None = None, dim: int = 128, layers: int = 3, high: int = 4, speaker: SpeakerKind = "relative",
        dropout: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__()
        self.mode, self.past, self.future = mode, past, future if mode == "offline" else 0
        self.widen = nn.ModuleList(nn.Linear(width, dim) for width in dims.values())
        self.speaker, self.member = SpeakerEmbedding(dim, speaker), nn.Linear(dim, 2)
        self.over_time, self.bias = nn.Parameter(torch.zeros(len(dims), 1)), nn.Parameter(torch.zeros(layers, dim))
        self.passes = nn.ModuleList(HighPass(dim) for _ in range(high))
        self.dropout = nn.Dropout(dropout)
        self.dims = dict.fromkeys(dims, 2 * dim)
        # a message of a high pass is scaled by the degree of its source, which reaches `past` further back
        self.reach = reach_of(past, max(layers, high + 1), self.speaker)

    def forward(self, x: dict[str, Tensor], present: Tensor, conversations: Conversations) -> dict[str, Tensor]:
        """x[s] [N, d_s] -> [N, 2 dim]."""
        nodes = torch.stack([widen(value) for widen, value in zip(self.widen, x.values())], 1)
        nodes = self.dropout(self.speaker(nodes, conversations)) * present.unsqueeze(2)
        parts = blocks(conversations, self.past, self.future)
        within = [block.within(present) for block in parts.parts]
        both = [self._hyper(nodes, present, parts, within), self._high(nodes, present, parts, within)]
        found = self.dropout(torch.cat(both, 2)) * present.unsqueeze(2)
        return dict(zip(x, found.unbind(1)))

    def _hyper(self, x: Tensor, present: Tensor, parts: Blocks, within: list[Tensor]) -> Tensor:
        """The hypergraph's layers, [N, S, dim]."""
        over_time, at_once = self.member(x).sigmoid().unbind(2)
        pairs = zip(parts.parts, within, strict=True)
        stream = [_mean(w * block.of_key(over_time)) for block, w in pairs]
        utterance = _mean(at_once.unsqueeze(1) * (present.unsqueeze(1) & present.unsqueeze(2)))
        share = self.over_time.sigmoid()
        for bias in self.bias:
            x = F.leaky_relu(share * parts.weighted_sum(stream, x) + (1 - share) * (utterance @ x) + bias)
        return x

    def _high(self, x: Tensor, present: Tensor, parts: Blocks, within: list[Tensor]) -> Tensor:
        """The high passes, [N, S, dim]; without messages from a node to itself."""
        within = [w & (block.later != 0).unsqueeze(1) for block, w in zip(parts.parts, within, strict=True)]
        streams = torch.eye(present.shape[1], dtype=torch.bool, device=x.device)
        across = (present.unsqueeze(1) & present.unsqueeze(2) & ~streams).to(x.dtype)
        scale = (parts.received(within) + across.sum(2)).clamp_min(1).rsqrt()
        norm = [w * b.of_query(scale) * b.of_key(scale) for b, w in zip(parts.parts, within)]
        across = across * scale.unsqueeze(2) * scale.unsqueeze(1)
        for layer in self.passes:
            target, source = layer.of_target(x).squeeze(2), layer.of_source(x).squeeze(2)  # type: ignore[operator]
            pairs = zip(parts.parts, norm, strict=True)
            gates = [w * (b.of_query(target) + b.of_key(source)).tanh() for b, w in pairs]
            x = x + parts.weighted_sum(gates, x) + (across * (target.unsqueeze(2) + source.unsqueeze(1)).tanh()) @ x
        return x


def _mean(weight: Tensor) -> Tensor:
    """Weights [..., K] divided by their sum, so that they add up to 1; 0 where all are 0."""
    total = weight.sum(-1, keepdim=True)
    return weight / torch.where(total == 0, 1.0, total)
