"""Edges of conversation graphs, for all conversations of a batch at once, without a loop over them.

A message flows from `source` to `target`; both are numbers of sorted rows (`Conversations`). `past` and `future` say
how many utterances before and after a target send messages to it (None: all of its conversation): offline is (p, f),
causal (p, 0), lookahead(k) (p, k). Where every utterance has M modalities, node m * N + i is modality m of row i.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from affuse.core.errors import BadConfig
from affuse.layers.conversation import Conversations


@dataclass(frozen=True)
class Edges:
    """E messages: source [E] -> target [E], int64 node numbers."""

    source: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.source)

    def __add__(self, other: Edges) -> Edges:
        """These edges, then the others."""
        return Edges(torch.cat([self.source, other.source]), torch.cat([self.target, other.target]))

    def to(self, device: torch.device | str) -> Edges:
        """The same edges on another device."""
        return Edges(self.source.to(device), self.target.to(device))

    def reverse(self) -> Edges:
        """The same edges with source and target exchanged."""
        return Edges(self.target, self.source)

    def select(self, keep: Tensor) -> Edges:
        """The edges that `keep` (a mask [E] or indices) chooses."""
        return Edges(self.source[keep], self.target[keep])

    def loops(self) -> Tensor:
        """[E]: True where source and target are the same node."""
        return self.source == self.target

    def with_self(self, n: int) -> Edges:
        """The edges with exactly one loop for each of n nodes; the loops come last."""
        node = torch.arange(n, device=self.source.device)
        return self.select(~self.loops()) + Edges(node, node)

    def degree(self, n: int) -> Tensor:
        """[n]: how many messages each node receives; sent messages do not count, as these depend on the future."""
        return torch.bincount(self.target, minlength=n)


def window(c: Conversations, past: int | None, future: int | None) -> Edges:
    """Messages to each utterance from itself, `past` utterances before and `future` after it; ordered by target.

    The pairs (target, source) are DialogueGCN's pairs (i, j), j in [i - past, i + future] (Ghosal et al. 2019).
    Differs from the published code: there PyG sends messages i -> j; `.reverse()` gives that (the same set where
    past = future).
    """
    return dilated(c, past, future, 1)


def complete(c: Conversations) -> Edges:
    """Messages between all utterances of a conversation: L^2 edges per conversation of L utterances."""
    return dilated(c, None, None, 1)


def dilated(c: Conversations, past: int | None, future: int | None, dilation: int) -> Edges:
    """A window of which an utterance receives messages from itself and every `dilation`-th one before and after."""
    if dilation < 1 or min(past or 0, future or 0) < 0:
        found = f"past={past}, future={future}, dilation={dilation}"
        raise BadConfig(f"no window has {found}", "past and future are utterances >= 0 or None (all), dilation >= 1")
    after = c.length[c.conversation] - 1 - c.position
    before = (c.position if past is None else c.position.clamp_max(past)) // dilation
    after = (after if future is None else after.clamp_max(future)) // dilation
    return _runs(before, before + after + 1, dilation)


def _runs(before: Tensor, count: Tensor, step: int) -> Edges:
    """Messages to node i from count[i] nodes, `step` apart, the first of them before[i] steps earlier than i."""
    node = torch.arange(len(count), device=count.device)
    first = node - (before + count.cumsum(0) - count) * step  # of the run, less the number of edges before it
    total = int(count.sum())
    source = torch.arange(total, device=count.device) * step + first.repeat_interleave(count, output_size=total)
    return Edges(source, node.repeat_interleave(count, output_size=total))


def within_modal(edges: Edges, present: Tensor) -> Edges:
    """Edges between rows, repeated in each modality, where both ends are present [N, M]."""
    n, m = present.shape
    keep = (present[edges.source] & present[edges.target]).T  # [M, E]
    shift = n * torch.arange(m, device=present.device).unsqueeze(1)
    return Edges((edges.source + shift)[keep], (edges.target + shift)[keep])


def cross_modal(present: Tensor) -> Edges:
    """Edges between every two different modalities of one utterance that are both present [N, M]."""
    n, m = present.shape
    pairs = present.unsqueeze(2) & present.unsqueeze(1) & ~torch.eye(m, dtype=torch.bool, device=present.device)
    row, target, source = pairs.nonzero(as_tuple=True)
    return Edges(source * n + row, target * n + row)


def similarity(x: Tensor, edges: Edges, kind: Literal["angular", "cosine"] = "angular") -> Tensor:
    """Similarity [E] of the two ends in x [n, d]: their cosine, or 1 - angle / pi (MMGCN, Hu et al. 2021).

    The angle is 2 atan2(|u - v|, |u + v|): exact at 0 and pi, where acos loses half the digits and its gradient is
    infinite. A row of zeros has no direction: cosine 0, angle pi / 2, and no gradient.
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    nonzero = norm > 1e-8
    unit = torch.where(nonzero, x, 0.0) / torch.where(nonzero, norm, 1.0)
    u, v = unit[edges.source], unit[edges.target]
    if kind == "cosine":
        return (u * v).sum(-1)
    apart, together = torch.linalg.vector_norm(u - v, dim=-1), torch.linalg.vector_norm(u + v, dim=-1)
    both = (nonzero[edges.source] & nonzero[edges.target]).squeeze(-1)
    return 1 - 2 / torch.pi * torch.atan2(torch.where(both, apart, 1.0), torch.where(both, together, 1.0))


@dataclass(frozen=True)
class Hyperedges:
    """Groups of nodes: `into` are messages from nodes to their groups, `out` from groups to nodes.

    kind [count]: 0 one modality over time, 1 one utterance over its modalities. A group without members sends nothing.
    """

    into: Edges
    out: Edges
    kind: Tensor

    @property
    def count(self) -> int:
        """How many groups there are."""
        return len(self.kind)


def hyperedges(c: Conversations, present: Tensor, past: int | None = None, future: int | None = None) -> Hyperedges:
    """A group per conversation and modality, and one per utterance (M3Net, Chen et al. 2023); present [N, M].

    With a bound on past or future, each utterance has its own group over time, its window, which sends messages to this
    utterance only: a shared group would carry later utterances to earlier ones.
    """
    n, m = present.shape
    column, row = present.T.nonzero(as_tuple=True)
    node = column * n + row
    if past is None and future is None:
        groups = len(c.length) * m
        into = Edges(node, c.conversation[row] * m + column)
        out = into.reverse()
    else:
        groups, into, out = n * m, within_modal(window(c, past, future), present), Edges(node, node)
    spoken = Edges(node, groups + row)
    kind = torch.cat([torch.zeros(groups, dtype=torch.int64), torch.ones(n, dtype=torch.int64)]).to(present.device)
    return Hyperedges(into + spoken, out + spoken.reverse(), kind)


def relations(
    c: Conversations,
    edges: Edges,
    kind: Literal["relative", "absolute", "temporal"] = "relative",
    speakers: int | None = None,
    modalities: int = 1,
) -> tuple[Tensor, int]:
    """The type [E] of each edge, and how many types there are; nodes are taken modulo N = len(c).

    temporal, 3 types: 0 itself, 1 from the past, 2 from the future. relative, 5 types: 0 itself, 1 the same speaker's
    past, 2 the same speaker's future, 3 and 4 past and future of another speaker (an utterance without a speaker counts
    as another speaker's). absolute, 2 S^2 types with S = `speakers`: 2 (S s_target + s_source) + [source <= target], as
    in DialogueGCN, with speakers numbered 0, 1... as they first speak in a conversation; speakers beyond the last
    number, and utterances without a speaker, share that number (S = None: as many as the batch has).
    With M `modalities` > 1 each has T types of its own, and each ordered pair of two adds one: T M + M (M - 1).
    """
    n = max(len(c), 1)
    i, j = edges.target % n, edges.source % n
    if kind == "absolute":
        turn, s = numbered(turns(c), speakers)
        found, count = 2 * (s * turn[i] + turn[j]) + (j <= i), 2 * s * s
    else:
        found, count = (j < i) + 2 * (j > i), 3
        if kind == "relative":
            other = (c.speaker[i] != c.speaker[j]) | (c.speaker[i] < 0)
            found, count = found + 2 * (other & (i != j)), 5
    if modalities == 1:
        return found, count
    a, b = edges.target // n, edges.source // n
    pair = modalities * count + a * (modalities - 1) + b - (b > a).long()
    return torch.where(a == b, found + a * count, pair), modalities * count + modalities * (modalities - 1)


def numbered(turn: Tensor, speakers: int | None) -> tuple[Tensor, int]:
    """Ranks [N] as numbers 0..S-1, and S; a rank of -1, or above S - 1, becomes S - 1."""
    s = speakers or (1 + max(0, int(turn.max())) if len(turn) else 1)
    return torch.where(turn < 0, s - 1, turn.clamp_max(s - 1)), s


def turns(c: Conversations) -> Tensor:
    """[N]: the speaker's rank by who first spoke in the conversation; -1 for an utterance without a speaker."""
    if not len(c):
        return c.speaker
    who = c.conversation * (int(c.speaker.max()) + 2) + c.speaker + 1
    person = torch.unique(who, return_inverse=True)[1]
    row = torch.arange(len(c), device=who.device)
    first = torch.full_like(row, len(c)).scatter_reduce(0, person, row, "amin")[person]  # the row of the first turn
    enters = ((first == row) & (c.speaker >= 0)).long()
    entrances = enters.cumsum(0)
    earlier = (entrances - enters)[c.start[c.conversation]]
    return torch.where(c.speaker >= 0, entrances[first] - 1 - earlier, -1)
