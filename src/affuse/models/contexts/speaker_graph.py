"""A graph over the utterances of a conversation, with edge types by speakers and by order in time."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.core.errors import BadConfig
from affuse.layers.conversation import Conversations
from affuse.layers.drop import DropEdge, DropNode
from affuse.layers.edges import Edges, dilated, relations, similarity, window
from affuse.layers.gfpush import propagation
from affuse.layers.graph import GraphAttention, GraphTransformer, RelationalConv, mean, segment_softmax

CARD = {
    "summary": "relational graph over a window of utterances: DialogueGCN's, COGMEN's, attention, or GRAND+'s push",
    "source": "Ghosal et al., DialogueGCN, 2019; Joshi et al., COGMEN, 2022; Feng et al., GRAND+, 2022",
    "entry": "SpeakerGraph",
    "stands": ["after", "before"],
    "modes": ["offline", "causal", "lookahead"],
    "licence": "Apache-2.0",
}

Conv = Literal["rgcn", "gat", "transformer", "graphconv", "gfpush"]
EdgeWeight = Literal["none", "attention", "similarity"]
Hop = tuple[Edges, Tensor | None]  # the edges of a convolution, and their types [E] where it has any


class SpeakerGraph(nn.Module):
    """[x; weight h], h = dropout(leaky_relu(LayerNorm(conv_K(... conv_1(x))))) over a window around each utterance.

    convs: (rgcn, graphconv) with edge_weight=attention is DialogueGCN, (rgcn, transformer) COGMEN. An utterance gets
    messages from `past` utterances before and `future` after it (None: all), `dilation` apart. In mode lookahead the
    first convolution gets them from up to `lookahead` utterances ahead (that one, and every `dilation`-th nearer one),
    the others from none ahead, so that the whole depends on exactly that many. rgcn has weights per edge type
    (`relations`); gat and transformer have them where they come first. relations=absolute numbers `speakers` by who
    spoke first; its reach is unbounded. `edge_weight` scales the messages of the first convolution: attention is
    softmax_j x_i^T W x_j over the neighbours j of i (rgcn then adds the messages, as DialogueGCN's code), similarity is
    1 - angle / pi. gfpush takes order, alpha and top_k, and no types. An absent utterance receives messages, but sends
    none.
    """

    def __init__(
        self, dims: dict[str, int], *, stands: Literal["after", "before"] = "after",
        mode: Literal["offline", "causal", "lookahead"] = "offline", lookahead: int = 0, past: int | None = 10,
        future: int | None = 10, dilation: int = 1,
        relations: Literal["relative", "absolute", "temporal", "none"] = "relative", speakers: int = 2,
        convs: tuple[Conv, ...] = ("rgcn", "graphconv"), dim: int = 128, bases: int | None = None, heads: int = 4,
        edge_weight: EdgeWeight = "none", join: Literal["concat", "add", "none"] = "concat", drop_node: float = 0.0,
        drop_edge: float = 0.0, dropout: float = 0.1, order: int = 4, alpha: float = 0.2, top_k: int = 32,
        weight: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stands, self.mode, self.ahead = stands, mode, _ahead(mode, lookahead, future, dilation)
        self.past, self.dilation, self.relations, self.speakers = past, dilation, relations, speakers
        _check(convs, edge_weight, dim, heads, weight)
        count = {"relative": 5, "absolute": 2 * speakers**2, "temporal": 3, "none": 1}[relations]
        self.types = [_types(conv, k == 0, count) for k, conv in enumerate(convs)]
        steps = sum(order if conv == "gfpush" else 1 for conv in convs)
        self.reach = None if past is None or relations == "absolute" else steps * past * dilation

        def layer(k: int, width: int) -> nn.Module:
            if convs[k] == "gfpush":
                return _Push(width, dim, order, alpha, top_k, drop_node, ahead=k == 0 and mode == "lookahead")
            attended = k == 0 and edge_weight == "attention"
            return _convolution(convs[k], width, dim, self.types[k], bases, heads, attended)

        self.graphs = nn.ModuleDict()
        for name, width in dims.items():
            layers = [layer(k, dim if k else width) for k in range(len(convs))]
            self.graphs[name] = _Graph(layers, width, dim, edge_weight, drop_node, drop_edge, dropout, join, weight)
        self.dims = {name: dim + width * (join == "concat") for name, width in dims.items()}

    def forward(self, x: dict[str, Tensor], present: Tensor, conversations: Conversations) -> dict[str, Tensor]:
        """x[s] [N, d_s] -> [N, d_s + dim] (join=concat) or [N, dim]."""
        hops = self._hops(conversations)
        return {s: self.graphs[s](h, present[:, i], hops, conversations) for i, (s, h) in enumerate(x.items())}

    def _hops(self, conversations: Conversations) -> list[Hop]:
        """The edges of each convolution; in mode lookahead only the first has edges from later utterances."""
        behind = None if self.past is None else self.past * self.dilation
        first = _until(conversations, behind, self.ahead, self.dilation)
        rest = dilated(conversations, behind, 0, self.dilation) if self.mode == "lookahead" else first
        found = [self._typed(conversations, first, self.types[0])]
        return found + [self._typed(conversations, rest, count) for count in self.types[1:]]

    def _typed(self, conversations: Conversations, edges: Edges, count: int) -> Hop:
        if count == 0:
            return edges, None
        if count == 1 or self.relations == "none":
            return edges, torch.zeros_like(edges.source)
        return edges, relations(conversations, edges, self.relations, self.speakers)[0]


class _Graph(nn.Module):
    """The convolutions for one set of rows, a stream or the fused features."""

    def __init__(
        self, layers: list[nn.Module], width: int, dim: int, edge_weight: EdgeWeight, drop_node: float,
        drop_edge: float, dropout: float, join: str, scale: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layers, self.join, self.edge_weight, self.scale = nn.ModuleList(layers), join, edge_weight, scale
        self.attention = nn.Linear(width, width, bias=False) if edge_weight == "attention" else None
        self.own = (nn.Identity() if width == dim else nn.Linear(width, dim)) if join == "add" else None
        self.norm, self.dropout = nn.LayerNorm(dim), nn.Dropout(dropout)
        self.drop_node, self.drop_edge = DropNode(drop_node), DropEdge(drop_edge)

    def forward(self, x: Tensor, present: Tensor, hops: list[Hop], conversations: Conversations) -> Tensor:
        """x [N, width], present [N] -> [N, dim], or [N, width + dim]."""
        h = x
        for k, (layer, (edges, relation)) in enumerate(zip(self.layers, hops)):
            keep = self.drop_edge(edges) & (present[edges.source] | edges.loops())
            if not bool(keep.all()):
                edges, relation = edges.select(keep), None if relation is None else relation[keep]
            if isinstance(layer, _Push):
                h = layer(h, edges, conversations)
            else:
                weight = self._weight(x, edges) if k == 0 else None
                h = layer(h, edges, relation, weight=self.drop_node(edges, len(x), weight))
        h = self.scale * self.dropout(F.leaky_relu(self.norm(h)))
        if self.join == "concat":
            return torch.cat([x, h], 1)
        return h if self.own is None else self.own(x) + h

    def _weight(self, x: Tensor, edges: Edges) -> Tensor | None:
        if self.attention is not None:
            scores = (x.index_select(0, edges.target) * self.attention(x).index_select(0, edges.source)).sum(-1)
            return segment_softmax(scores, edges.target, len(x))
        return similarity(x, edges) if self.edge_weight == "similarity" else None


class _Push(nn.Module):
    """W sum_v z_v Pi_sv x_v / sum_v z_v Pi_sv + b: GRAND+'s random propagation, z from DropNode.

    Each step of a push would look further ahead. With `ahead` a mean over the window comes first, which looks ahead
    once; the push then follows edges from the past only.
    """

    def __init__(
        self, dim: int, out: int, order: int, alpha: float, top_k: int, drop_node: float, *, ahead: bool
    ) -> None:  # fmt: skip
        super().__init__()
        self.order, self.alpha, self.top_k, self.ahead = order, alpha, top_k, ahead
        self.linear, self.drop = nn.Linear(dim, out), DropNode(drop_node, scale=False)

    def forward(self, x: Tensor, edges: Edges, conversations: Conversations) -> Tensor:
        """x [N, dim] -> [N, out]."""
        if self.ahead:
            x, edges = mean(x, edges), edges.select(edges.source <= edges.target)
        pushed, pi = propagation(
            edges, len(x), order=self.order, alpha=self.alpha, top_k=self.top_k, conversation=conversations.conversation
        )
        return self.linear(mean(x, pushed, weight=self.drop(pushed, len(x), pi)))


def _convolution(conv: str, dim: int, out: int, types: int, bases: int | None, heads: int, attended: bool) -> nn.Module:
    """A layer from `dim` to `out` features."""
    if conv == "rgcn":
        return RelationalConv(dim, out, types, bases=bases, normalise="sum" if attended else "mean")
    if conv == "graphconv":
        return RelationalConv(dim, out, 1, normalise="sum")
    layer = GraphAttention if conv == "gat" else GraphTransformer
    return layer(dim, out // heads, heads=heads, relations=types)


def _types(conv: str, first: bool, count: int) -> int:
    """The number of edge types of a convolution; 0 where it takes none."""
    if conv in ("rgcn", "graphconv"):
        return count if conv == "rgcn" else 1
    return count if conv in ("gat", "transformer") and first and count > 1 else 0


def _until(conversations: Conversations, past: int | None, ahead: int | None, dilation: int) -> Edges:
    """Every `dilation`-th utterance before and after the target.

    Those before are counted from the target, at most `past`; those after from the utterance `ahead`, backwards.
    """
    if ahead is None or dilation < 2 or ahead % dilation == 0:
        return dilated(conversations, past, ahead, dilation)
    edges = window(conversations, past, ahead)
    later = edges.source - edges.target
    return edges.select(torch.where(later > 0, later - ahead, later) % dilation == 0)


def _ahead(mode: str, lookahead: int, future: int | None, dilation: int) -> int | None:
    """How many utterances ahead the first convolution looks."""
    if mode == "lookahead" and lookahead < 1:
        raise BadConfig(f"lookahead={lookahead} is below 1", "give lookahead >= 1 utterances, or mode=causal")
    if mode == "offline":
        return None if future is None else future * dilation
    return lookahead if mode == "lookahead" else 0


def _check(convs: tuple[Conv, ...], edge_weight: EdgeWeight, dim: int, heads: int, weight: float) -> None:
    if weight <= 0:
        remedy = "give a weight above 0, or leave the context out"
        raise BadConfig(f"weight={weight} leaves nothing of the graph", remedy)
    if not convs:
        raise BadConfig("convs is empty", "give at least one of rgcn, gat, transformer, graphconv, gfpush")
    if convs[0] == "gfpush" and edge_weight != "none":
        remedy = "set edge_weight=none, or begin with another convolution"
        raise BadConfig(f"gfpush takes no edge_weight={edge_weight}", remedy)
    if dim % heads and {"gat", "transformer"} & set(convs):
        raise BadConfig(f"dim={dim} does not divide by heads={heads}", "choose heads that divide dim")
