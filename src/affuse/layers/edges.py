"""Who hears whom in a conversation: edges of all conversations of a batch at once, without a loop over any of them.

A message flows from `source` to `target`; both are numbers of sorted rows (`Conversations`). `past` and `future` say
how many utterances back and ahead a target hears (None: all of its conversation): offline is (p, f), causal (p, 0),
lookahead(k) (p, k). Where every utterance has M modalities, node m * N + i is modality m of row i.
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
        """Every message the other way round."""
        return Edges(self.target, self.source)

    def select(self, keep: Tensor) -> Edges:
        """The edges that `keep` (a mask [E] or indices) chooses."""
        return Edges(self.source[keep], self.target[keep])

    def loops(self) -> Tensor:
        """[E]: True where a node hears itself."""
        return self.source == self.target

    def with_self(self, n: int) -> Edges:
        """Each of n nodes hears itself exactly once: last, after the other edges."""
        node = torch.arange(n, device=self.source.device)
        return self.select(~self.loops()) + Edges(node, node)

    def degree(self, n: int) -> Tensor:
        """[n]: how many messages each node receives; what it sends is of no concern, so the future is not either."""
        return torch.bincount(self.target, minlength=n)


def window(c: Conversations, past: int | None, future: int | None) -> Edges:
    """Each utterance hears those at most `past` before and `future` after it, itself included; ordered by target.

    The pairs (target, source) are DialogueGCN's pairs (i, j), j in [i - past, i + future] (Ghosal et al. 2019). Its
    code lets PyG send them i -> j; for that to the letter take `.reverse()` (the same set where past = future).
    """
    return dilated(c, past, future, 1)


def complete(c: Conversations) -> Edges:
    """Each utterance hears its whole conversation: L^2 edges per conversation of L utterances."""
    return dilated(c, None, None, 1)


def dilated(c: Conversations, past: int | None, future: int | None, dilation: int) -> Edges:
    """A window in which an utterance hears every `dilation`-th one before and after itself, and itself."""
    if dilation < 1 or min(past or 0, future or 0) < 0:
        found = f"past={past}, future={future}, dilation={dilation}"
        raise BadConfig(f"no window has {found}", "past and future are utterances >= 0 or None (all), dilation >= 1")
    after = c.length[c.conversation] - 1 - c.position
    before = (c.position if past is None else c.position.clamp_max(past)) // dilation
    after = (after if future is None else after.clamp_max(future)) // dilation
    return _runs(before, before + after + 1, dilation)


def _runs(before: Tensor, count: Tensor, step: int) -> Edges:
    """Node i hears count[i] nodes, `step` apart, the first of them before[i] steps earlier than itself."""
    node = torch.arange(len(count), device=count.device)
    first = node - (before + count.cumsum(0) - count) * step  # of the run, less what the edges before it count
    total = int(count.sum())
    source = torch.arange(total, device=count.device) * step + first.repeat_interleave(count, output_size=total)
    return Edges(source, node.repeat_interleave(count, output_size=total))


def within_modal(edges: Edges, present: Tensor) -> Edges:
    """Edges between rows repeated inside each modality, where both ends are present [N, M] (True: there is one)."""
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
    """Likeness [E] of the two ends in x [n, d]: their cosine, or 1 - angle / pi (MMGCN, Hu et al. 2021).

    The angle is 2 atan2(|u - v|, |u + v|): exact at 0 and pi, where acos loses half the digits and its gradient is
    infinite. A row of zeros points nowhere: cosine 0, angle pi / 2, and no gradient.
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    somewhere = norm > 1e-8
    unit = torch.where(somewhere, x, 0.0) / torch.where(somewhere, norm, 1.0)
    u, v = unit[edges.source], unit[edges.target]
    if kind == "cosine":
        return (u * v).sum(-1)
    apart, together = torch.linalg.vector_norm(u - v, dim=-1), torch.linalg.vector_norm(u + v, dim=-1)
    both = (somewhere[edges.source] & somewhere[edges.target]).squeeze(-1)
    return 1 - 2 / torch.pi * torch.atan2(torch.where(both, apart, 1.0), torch.where(both, together, 1.0))


@dataclass(frozen=True)
class Hyperedges:
    """Groups of nodes: `into` flows from nodes to the groups they belong to, `out` from groups to those who hear them.

    kind [count]: 0 one modality over time, 1 one utterance over its modalities. A group without members is silent.
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

    With a bound on past or future, the group over time becomes each utterance's own window, which only it hears: a
    shared group would carry what came later to what came before.
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

    temporal, 3: 0 itself, 1 from the past, 2 from the future. relative, 5: 0 itself, 1 the same speaker's past, 2 their
    future, 3 and 4 those of another one (whom we cannot name is another). absolute, 2 S^2 with S = `speakers`:
    2 (S s_target + s_source) + [source <= target], as DialogueGCN, with speakers numbered 0, 1... as they first speak
    in a conversation; those past the last number, and anonymous ones, share it (S = None: as many as the batch has).
    With M `modalities` > 1 each has those T types for itself, and each ordered pair of two adds one: T M + M (M - 1).
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
    """Ranks [N] as numbers 0..S-1, and S: whoever has none, or one too high, gets the last."""
    s = speakers or (1 + max(0, int(turn.max())) if len(turn) else 1)
    return torch.where(turn < 0, s - 1, turn.clamp_max(s - 1)), s


def turns(c: Conversations) -> Tensor:
    """[N]: each speaker's rank among those of the conversation, by who spoke first; -1 for anonymous ones."""
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
