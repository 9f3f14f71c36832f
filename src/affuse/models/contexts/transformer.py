"""A transformer over the utterances of each conversation."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.core.errors import BadConfig
from affuse.layers.attention import attend
from affuse.layers.blocks import Block, Blocks, blocks, rows
from affuse.layers.conversation import Conversations

CARD = {
    "summary": "transformer over the utterances of a conversation, with relative positions and speakers",
    "source": "Vaswani et al. 2017, pre-norm as Xiong et al. 2020; relative positions after Raffel et al. 2020",
    "entry": "ContextTransformer",
    "stands": ["after", "before"],
    "modes": ["offline", "causal", "lookahead"],
    "licence": "Apache-2.0",
}


class ContextTransformer(nn.Module):
    """Pre-norm encoder layers, one stack per node set; others do not attend to an utterance that is absent.

    To the score q_i k_j is added q_i r where i and j have the same speaker (an unnamed one is another each time), and
    with positions="relative" a learned bias per head for the distance j - i (64 at most). "sinusoidal" counts from the
    start of the conversation, so that it cannot run live. `lookahead` is that of the whole stack.
    """

    def __init__(
        self, dims: dict[str, int], *, stands: Literal["before", "after"] = "after",
        mode: Literal["offline", "causal", "lookahead"] = "offline", lookahead: int = 0, past: int | None = None,
        dim: int = 128, layers: int = 2, heads: int = 4, expand: int = 2, dropout: float = 0.1,
        positions: Literal["relative", "sinusoidal"] = "relative",
    ) -> None:  # fmt: skip
        super().__init__()
        if dim % (2 * heads) or min(layers, heads) < 1:
            raise BadConfig(
                f"no transformer has dim={dim}, heads={heads}, layers={layers}", "dim: a multiple of 2 * heads"
            )
        if min(past or 0, lookahead) < 0 or (lookahead and mode != "lookahead"):
            found = f"mode={mode}, past={past}, lookahead={lookahead}"
            raise BadConfig(f"no window has {found}", "past and lookahead are >= 0, lookahead goes with mode=lookahead")
        self.stands, self.mode, self.past, self.positions = stands, mode, past, positions
        self.dims = dict.fromkeys(dims, dim)
        ahead = [lookahead // layers + (k < lookahead % layers) for k in range(layers)]
        self.future: list[int | None] = [None] * layers if mode == "offline" else [*ahead]
        self.start = nn.ModuleDict({name: nn.Linear(d, dim) for name, d in dims.items()})
        relative = positions == "relative"
        self.layers = nn.ModuleDict(
            {n: nn.ModuleList(_Layer(dim, heads, expand, dropout, relative) for _ in range(layers)) for n in dims}
        )
        self.norm = nn.ModuleDict({name: nn.LayerNorm(dim) for name in dims})

    @property
    def reach(self) -> int | None:
        """How many utterances back a prediction depends on; None: on all."""
        bounded = self.past is not None and self.positions == "relative"
        return len(self.future) * self.past if bounded else None  # type: ignore[operator]

    def forward(self, x: dict[str, Tensor], present: Tensor, conversations: Conversations) -> dict[str, Tensor]:
        """x[s] [N, d_s], present [N, S] -> [N, dim] for each s."""
        among = {future: blocks(conversations, self.past, future) for future in set(self.future)}
        found = {}
        for i, (name, value) in enumerate(x.items()):
            h = self.start[name](value)
            if self.positions == "sinusoidal":
                h = h + _sinusoids(conversations.position, h)
            for layer, future in zip(self.layers[name], self.future, strict=True):  # type: ignore[call-overload]
                h = layer(h, among[future], conversations.speaker, present[:, i])
            found[name] = self.norm[name](h)
        return found


def _sinusoids(position: Tensor, like: Tensor) -> Tensor:
    """[N, d]: sines and cosines of wavelengths 2 pi to 10000 * 2 pi utterances."""
    half = like.shape[1] // 2
    rate = torch.exp(torch.arange(half, device=like.device) * (-math.log(10000) / half))
    angle = position.unsqueeze(1) * rate
    return torch.cat([angle.sin(), angle.cos()], 1).to(like.dtype)


class _Layer(nn.Module):
    """h + attention(norm(h)), then + feed-forward(norm(.))."""

    farthest = 64

    def __init__(self, dim: int, heads: int, expand: int, dropout: float, relative: bool) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before, self.between = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.same = nn.Parameter(torch.randn(heads, dim // heads) * 0.1)
        self.distance = nn.Parameter(torch.zeros(2 * self.farthest + 1, heads)) if relative else None
        self.feed = nn.Sequential(
            nn.Linear(dim, expand * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(expand * dim, dim)
        )

    def forward(self, h: Tensor, among: Blocks, speaker: Tensor, attended: Tensor) -> Tensor:
        """h [N, dim], speaker [N], attended [N] (which utterances others attend to) -> [N, dim]."""
        q, k, v = self.project(self.before(h)).unflatten(1, (3, self.heads, -1)).unbind(1)
        q = q * q.shape[-1] ** -0.5
        bonus = (q * self.same).sum(-1)  # [N, H]: q_i r

        def scored(scores: Tensor, block: Block) -> Tensor:
            scores = scores + rows(bonus, block.query).transpose(1, 2).unsqueeze(3) * _same(speaker, block)
            if self.distance is None:
                return scores
            far = block.later.clamp(-self.farthest, self.farthest) + self.farthest
            return scores + F.embedding(far, self.distance).permute(0, 3, 1, 2)

        dropout = self.dropout if self.training else 0.0
        mixed = attend(q, k, v, among, dropout=dropout, attended=attended, scored=scored)
        h = h + F.dropout(self.out(mixed.flatten(1)), dropout)
        return h + F.dropout(self.feed(self.between(h)), dropout)


def _same(speaker: Tensor, block: Block) -> Tensor:
    """[B, 1, Q, K]: whether both have the same speaker; utterances of unnamed speakers only match themselves."""
    one, other = speaker[block.query].unsqueeze(2), speaker[block.key].unsqueeze(1)
    return (((one == other) & (one >= 0)) | (block.later == 0)).unsqueeze(1)
