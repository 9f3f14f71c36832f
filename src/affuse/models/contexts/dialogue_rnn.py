"""DialogueRNN: recurrent states of the dialogue, of each speaker, and of the emotion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from affuse.core.errors import BadConfig
from affuse.layers.attention import Matching, recall, remember
from affuse.layers.blocks import blocks
from affuse.layers.conversation import Conversations

CARD = {
    "summary": "recurrent states of the dialogue, of each of its speakers, and of their emotions",
    "source": "Majumder et al., DialogueRNN: An Attentive RNN for Emotion Detection in Conversations, AAAI 2019",
    "entry": "DialogueRNN",
    "stands": ["after", "before"],
    "modes": ["offline", "causal"],
    "licence": "Apache-2.0",
}


class Turn(NamedTuple):
    """One step of n conversations with m parties (speakers).

    slot [n]: the active party, 0..m-1; named [n]: whether its speaker has a name; place [m]: each party's conversation.
    """

    slot: Tensor
    named: Tensor
    place: Tensor


class States(NamedTuple):
    """States g [n, d_g] of n conversations, the last k of them [n, k, d_g]; states q [m, d_p] of their m parties."""

    g: Tensor
    memory: Tensor
    q: Tensor

    def first(self, n: int, m: int) -> States:
        """The states of the first n conversations and their m parties: those that have not ended."""
        return self if len(self.g) == n else States(self.g[:n], self.memory[:n], self.q[:m])


class Live(NamedTuple):
    """One stream of a live conversation: its states, the emotion state, and the last emotions for the attention."""

    states: States
    emotion: Tensor | None
    emotions: tuple[Tensor, ...]


@dataclass(frozen=True)
class Turns:
    """All steps: the rows [N] in the order of the steps, the number of rows of each, and the steps.

    Within a step conversations are ordered from the longest to the shortest.
    """

    rows: Tensor
    sizes: Tensor
    steps: list[Turn]


def turns(conversations: Conversations, backwards: bool = False) -> Turns:
    """The steps of a forward or backward pass.

    The first party of each conversation stands for all speakers who have not spoken yet or have no name.
    """
    c = conversations
    flip = c.start[c.conversation] + c.length[c.conversation] - 1 - c.position
    c = replace(c, speaker=c.speaker[flip]) if backwards else c
    packed = c.pack(torch.arange(len(c), device=flip.device))
    rows, rank = packed.data, packed.unsorted_indices
    assert rank is not None
    speakers = int(c.speaker.max()) + 2
    unnamed = torch.arange(len(rank), device=rows.device) * speakers
    who = rank[c.conversation[rows]] * speakers + c.speaker[rows] + 1
    party, slot = torch.unique(torch.cat([unnamed, who]), return_inverse=True)
    place = party // speakers
    until = torch.bincount(place).cumsum(0).tolist()  # parties of the first 1, 2... conversations
    sizes = packed.batch_sizes.tolist()
    each = zip(slot[len(rank) :].split(sizes), (c.speaker[rows] >= 0).split(sizes), strict=True)
    steps = [Turn(s, named, place[: until[len(s) - 1]]) for s, named in each]
    return Turns(flip[rows] if backwards else rows, packed.batch_sizes, steps)


class DialogueRNN(nn.Module):
    """g_t = GRU([u_t; q_s], g_t-1); c_t = attend(u_t, g_<t); q_s' = GRU([u_t; c_t], q_s); e_t = GRU(q_s', e_t-1).

    The state q_s of the speaker s is updated. The states of the other speakers stay, or with `listener` are updated
    too: q' = GRU([u_t; q_s'], q). Speakers who have not spoken yet share one state, from which each utterance of an
    unnamed speaker starts. Attention is softmax((W u_t) g) over the last `past` g (null: all, which cannot run live),
    or "simple": softmax(w g). Offline a second network runs backwards over utterances and speakers, as in the published
    BiModel; with matching=true emotions attend to each other, as there (with DialogueGCN's tanh). Dropout applies to g,
    q and e. Differs from the published code: there dropout applies to e's own recurrence too.
    """

    def __init__(
        self, dims: dict[str, int], *, stands: Literal["before", "after"] = "after",
        mode: Literal["offline", "causal"] = "offline", dim: int = 100, global_dim: int = 150, party_dim: int = 150,
        past: int | None = 10, attention: Literal["general", "simple"] = "general", listener: bool = False,
        matching: bool = False, dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        if past is not None and past < 1:
            raise BadConfig(f"past={past} leaves nothing to attend to", "give past >= 1, or null for all")
        self.stands, self.mode, self.past = stands, mode, past
        ways = 1 + (mode == "offline")
        self.dims = dict.fromkeys(dims, ways * dim)

        def network(d: int) -> _Direction:
            return _Direction(d, dim, global_dim, party_dim, past, attention == "general", listener, dropout)

        self.ways = nn.ModuleDict({name: nn.ModuleList(network(d) for _ in range(ways)) for name, d in dims.items()})
        self.matching = nn.ModuleDict({name: Matching(ways * dim) for name in dims} if matching else {})
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: dict[str, Tensor], present: Tensor, conversations: Conversations) -> dict[str, Tensor]:
        """x[s] [N, d_s] -> [N, dim], offline [N, 2 dim], for each s."""
        causal = self.mode == "causal"
        ways = [turns(conversations)] + ([] if causal else [turns(conversations, backwards=True)])
        window = (self.past, 0) if causal else (None, None)
        among = blocks(conversations, *window) if len(self.matching) else None
        found = {}
        for name, value in x.items():
            sides = [network(value, way) for network, way in zip(self.ways[name], ways, strict=True)]  # type: ignore[call-overload]
            e = self.dropout(torch.cat(sides, 1))
            found[name] = e if among is None else self.matching[name](e, among)
        return found

    def begin(self) -> tuple[dict[str, int], dict[str, Live]]:
        """The state before the first utterance: each speaker's party, and each stream's state.

        Raises BadConfig if `past` is unbounded.
        """
        if self.past is None:
            raise BadConfig("DialogueRNN attends to all of the past", "bound its past to use it live")
        return {}, {name: Live(ways[0].start(1, 1), None, ()) for name, ways in self.ways.items()}  # type: ignore[index]

    def push(
        self, x: dict[str, Tensor], present: Tensor, speaker: str, state: tuple[dict[str, int], dict[str, Live]]
    ) -> tuple[dict[str, Tensor], tuple[dict[str, int], dict[str, Live]]]:
        """x[s] [1, d_s] -> [1, dim] for each s, and the next state, which grows with the speakers only."""
        parties, lives = state
        new = bool(speaker) and speaker not in parties
        parties = {**parties, speaker: len(parties) + 1} if new else parties
        device = present.device
        place = torch.zeros(len(parties) + 1, dtype=torch.int64, device=device)
        turn = Turn(
            torch.tensor([parties.get(speaker, 0)], device=device), torch.tensor([bool(speaker)], device=device), place
        )
        found, after = {}, {}
        for name, value in x.items():
            e, live = self.ways[name][0].push(value, turn, lives[name], new)  # type: ignore[index]
            emotions = remember(live.emotions, self.dropout(e), self.past) if len(self.matching) else ()
            found[name] = recall(self.matching[name], emotions) if emotions else self.dropout(e)
            after[name] = live._replace(emotions=emotions)
        return found, (parties, after)


class _Direction(nn.Module):
    """The three recurrences, in one direction."""

    def __init__(
        self,
        d: int,
        dim: int,
        global_dim: int,
        party_dim: int,
        past: int | None,
        general: bool,
        listener: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.past, self.sizes = past, (global_dim, party_dim)
        self.whole, self.speaking = _Cell(d, party_dim, global_dim), _Cell(d, global_dim, party_dim)
        self.listening = _Cell(d, party_dim, party_dim) if listener else None
        self.query = nn.Linear(d, global_dim, bias=False) if general else None
        self.score = None if general else nn.Parameter(torch.randn(global_dim) * global_dim**-0.5)
        self.emotion, self.dropout = nn.GRU(party_dim, dim), nn.Dropout(dropout)

    def start(self, n: int, m: int) -> States:
        """The initial states, zeros, of n conversations with m parties."""
        like = self.whole.of_ahead.weight
        global_dim, party_dim = self.sizes
        return States(like.new_zeros(n, global_dim), like.new_zeros(n, 0, global_dim), like.new_zeros(m, party_dim))

    def forward(self, x: Tensor, way: Turns) -> Tensor:
        """x [N, d], sorted rows -> e [N, dim]."""
        sizes = way.sizes.tolist()
        ahead = zip(*(part.split(sizes) for part in self.ahead(x.index_select(0, way.rows))), strict=True)
        states, spoken = self.start(len(way.steps[0].slot), len(way.steps[0].place)), []
        for turn, known in zip(way.steps, ahead, strict=True):
            q, states = self.step(known, turn, states.first(len(turn.slot), len(turn.place)))
            spoken.append(q)
        e = self.emotion(PackedSequence(torch.cat(spoken), way.sizes))[0].data
        return torch.empty_like(e).index_copy(0, way.rows, e)

    def push(self, x: Tensor, turn: Turn, live: Live, new: bool) -> tuple[Tensor, Live]:
        """One utterance x [1, d] -> e [1, dim], and the next state; `new`: the first one of its party."""
        states = live.states
        if new:
            states = states._replace(q=torch.cat([states.q, states.q[:1]]))
        q, states = self.step(self.ahead(x), turn, states)
        e, emotion = self.emotion(q, live.emotion)
        return e, Live(states, emotion, live.emotions)

    def ahead(self, x: Tensor) -> list[Tensor]:
        """Queries, and each cell's part of the gates that depends on utterances only, for all utterances at once."""
        query = self.score.expand(len(x), -1) if self.query is None else self.query(x)  # type: ignore[union-attr]
        cells = [self.whole, self.speaking, *([self.listening] if self.listening else [])]
        return [query, *(cell.of_ahead(x) for cell in cells)]

    def step(self, ahead: Sequence[Tensor], turn: Turn, states: States) -> tuple[Tensor, States]:
        """q [n, d_p] of the parties that speak in this step, and the next states."""
        query, for_whole, for_speaker, *for_others = ahead
        before = states.q.index_select(0, turn.slot)
        g = self.dropout(self.whole(for_whole, before, states.g))
        weights = torch.bmm(states.memory, query.unsqueeze(2)).softmax(1)
        context = (weights * states.memory).sum(1)
        spoken = self.dropout(self.speaking(for_speaker, context, before))
        q = states.q
        if self.listening is not None:
            inputs = (part.index_select(0, turn.place) for part in (*for_others, spoken))
            q = self.dropout(self.listening(*inputs, q))
        own = torch.where(turn.named.unsqueeze(1), spoken, q.index_select(0, turn.slot))
        memory = torch.cat([states.memory, g.unsqueeze(1)], 1)
        memory = memory if self.past is None else memory[:, -self.past :]
        return spoken, States(g, memory, q.index_copy(0, turn.slot, own))


class _Cell(nn.Module):
    """A GRU cell; of its input [a; b], a's part of the gates is computed ahead (`of_ahead`), for all steps at once."""

    def __init__(self, ahead: int, other: int, dim: int) -> None:
        super().__init__()
        self.of_ahead, self.of_state = nn.Linear(ahead, 3 * dim), nn.Linear(dim, 3 * dim)
        self.of_other = nn.Linear(other, 3 * dim, bias=False)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(dim**-0.5), dim**-0.5)

    def forward(self, ahead: Tensor, other: Tensor, h: Tensor) -> Tensor:
        """ahead [n, 3 dim], other [n, d], h [n, dim] -> [n, dim]."""
        i_r, i_z, i_n = (ahead + self.of_other(other)).chunk(3, 1)
        h_r, h_z, h_n = self.of_state(h).chunk(3, 1)
        n = torch.tanh(i_n + torch.sigmoid(i_r + h_r) * h_n)
        return n + torch.sigmoid(i_z + h_z) * (h - n)
