"""A graph with a node per utterance and stream: edges along each stream, and between the streams of an utterance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.core.errors import BadConfig
from affuse.layers.blocks import Blocks, blocks, rows
from affuse.layers.conversation import Conversations
from affuse.layers.graph import GCNII
from affuse.layers.speakers import SpeakerEmbedding, SpeakerKind, reach_of

CARD = {
    "summary": "utterance-by-stream graph with deep GCNII layers: MMGCN, and MM-DFN's gate across depth",
    "source": "Hu et al., MMGCN, ACL 2021; Hu et al., MM-DFN, ICASSP 2022",
    "entry": "ModalGraph",
    "stands": ["before"],
    "modes": ["offline", "causal", "lookahead"],
    "licence": "Apache-2.0",
}


class ModalGraph(nn.Module):
    """[x; H] per stream: x = W_s x_s + speaker, H = K layers of GCNII over A = D^-1/2 W D^-1/2, each followed by relu.

    W = 1 - angle / pi between two nodes of one stream at most `past` and `future` utterances apart (None: all), and
    between two streams of one utterance; absent streams are no nodes. `depth_gate` runs an LSTM across the layers and
    adds the input of each layer to its output (MM-DFN). In mode lookahead only the first layer gets messages from up to
    `lookahead` utterances ahead, and the degree of a source counts messages from its past only, so that it carries
    nothing from further ahead.
    """

    stands = "before"

    def __init__(
        self, dims: dict[str, int], *, mode: Literal["offline", "causal", "lookahead"] = "offline", lookahead: int = 0,
        past: int | None = None, future: int | None = None, dim: int = 128, layers: int = 4, alpha: float = 0.1,
        lam: float = 0.5, depth_gate: bool = False, speaker: SpeakerKind = "relative", dropout: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__()
        if mode == "lookahead" and lookahead < 1:
            raise BadConfig(f"lookahead={lookahead} is below 1", "give lookahead >= 1 utterances, or mode=causal")
        self.mode, self.past = mode, past
        self.ahead = future if mode == "offline" else lookahead if mode == "lookahead" else 0
        self.widen = nn.ModuleList(nn.Linear(width, dim) for width in dims.values())
        self.speaker, self.enter = SpeakerEmbedding(dim, speaker), nn.Linear(dim, dim)
        self.layers = nn.ModuleList(GCNII(dim, k + 1, alpha=alpha, lam=lam, variant=True) for k in range(layers))
        self.gate = nn.LSTMCell(dim, dim) if depth_gate else None
        self.dropout = nn.Dropout(dropout)
        self.dims = dict.fromkeys(dims, 2 * dim)
        # one `past` more than the layers: a message is scaled by the degree of its source
        self.reach = reach_of(past, layers + 1, self.speaker)

    def forward(self, x: dict[str, Tensor], present: Tensor, conversations: Conversations) -> dict[str, Tensor]:
        """x[s] [N, d_s] -> [N, 2 dim]."""
        nodes = torch.stack([widen(value) for widen, value in zip(self.widen, x.values())], 1)
        nodes = self.speaker(nodes, conversations) * present.unsqueeze(2)
        h = self._deep(nodes, self._graphs(nodes, present, conversations))
        found = torch.cat([nodes, h], 2) * present.unsqueeze(2)
        return dict(zip(x, found.unbind(1)))

    def _graphs(self, nodes: Tensor, present: Tensor, conversations: Conversations) -> list[_Graph]:
        """The graph of each layer."""
        first = _graph(nodes, present, blocks(conversations, self.past, self.ahead), past_only=self.mode == "lookahead")
        rest = _graph(nodes, present, blocks(conversations, self.past, 0)) if self.mode == "lookahead" else first
        return [first] + [rest] * (len(self.layers) - 1)

    def _deep(self, nodes: Tensor, graphs: list[_Graph]) -> Tensor:
        """H [N, S, dim] after all layers."""
        initial = F.relu(self.enter(self.dropout(nodes)))
        h, state = self.dropout(initial), None
        for layer, graph in zip(self.layers, graphs):
            entered = h
            if self.gate is not None:
                state = self.gate(entered.flatten(0, 1), state)
                h = state[0].view_as(entered)
            h = self.dropout(F.relu(layer(graph.propagate(h), initial)))
            h = h if self.gate is None else h + entered
        return h


@dataclass(frozen=True)
class _Graph:
    """Entries of A: `within` each stream [B, S, Q, K] per block, `across` the streams of each utterance [N, S, S]."""

    blocks: Blocks
    within: list[Tensor]
    across: Tensor

    def propagate(self, h: Tensor) -> Tensor:
        """A h [N, S, d]."""
        return self.blocks.weighted_sum(self.within, h) + self.across @ h


def _graph(nodes: Tensor, present: Tensor, parts: Blocks, past_only: bool = False) -> _Graph:
    """The normalised graph; past_only: the degree of a source does not count messages from later utterances."""
    unit = F.normalize(nodes, dim=2, eps=1e-8)
    within = []
    for block in parts.parts:
        query, key = (rows(unit, index).transpose(1, 2) for index in (block.query, block.key))
        within.append(angular(query, key) * block.within(present))
    same = torch.eye(present.shape[1], dtype=torch.bool, device=nodes.device)
    across = angular(unit, unit) * (present.unsqueeze(1) & present.unsqueeze(2) & ~same)
    target = _scale(parts.received(within) + across.sum(2))
    source = target
    if past_only:
        behind = [w * (b.later <= 0).unsqueeze(1) for b, w in zip(parts.parts, within, strict=True)]
        source = _scale(parts.received(behind) + across.sum(2))
    within = [w * b.of_query(target) * b.of_key(source) for b, w in zip(parts.parts, within, strict=True)]
    return _Graph(parts, within, across * target.unsqueeze(2) * source.unsqueeze(1))


def _scale(degree: Tensor) -> Tensor:
    return torch.where(degree == 0, 1.0, degree).rsqrt()


def angular(u: Tensor, v: Tensor) -> Tensor:
    """1 - angle / pi between rows u [..., Q, d] and v [..., K, d] of length 1 (or 0: 1/2), [..., Q, K].

    `edges.similarity` for all pairs at once: exact, and with a finite gradient, where acos of a cosine is not.
    """
    how = "donot_use_mm_for_euclid_dist"
    apart, together = torch.cdist(u, v, compute_mode=how), torch.cdist(u, -v, compute_mode=how)
    both = u.any(-1).unsqueeze(-1) & v.any(-1).unsqueeze(-2)
    return 1 - 2 / torch.pi * torch.atan2(torch.where(both, apart, 1.0), torch.where(both, together, 1.0))
