"""Joint cross-attention over time: each stream, and all of them joined, attend to one another; then to themselves."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import Encoded, Fused
from affuse.layers.cross_attention import CrossLayer
from affuse.layers.masked import masked_mean

CARD = {
    "summary": "JMT: streams and their joint representation attend to one another over time, then the results do",
    "source": "Waligora et al., Joint Multimodal Transformer for Emotion Recognition in the Wild, CVPR-W 2024",
    "entry": "JointCrossAttention",
    "needs": ["grid"],
    "gives": ["pooled", "tokens"],
    "licence": "Apache-2.0",
}


class JointCrossAttention(nn.Module):
    """tokens = the last of the results of all pairs, after each step's results attended to one another.

    Every stream m is projected to `dim`, all of them together to a joint j (none where `joint` is off, the plain
    multimodal transformer); each goes through self-attention over time, then every ordered pair (a, b) through
    cross-attention, a's steps over b's. The P results of a step form a set [P, dim], which one more layer mixes:
    attention is over the P results of one step, never over steps of other utterances; all P are averaged, so that each
    has a part in the answer (the published code permutes the axes, mixes utterances and keeps one of six). `causal`:
    steps attend to their past only. An absent stream is attended to by nobody, and pairs with it take no part. Raises
    BadConfig for fewer than two streams and where `heads` does not divide `dim`.
    """

    def __init__(
        self, dims: dict[str, int], *, dim: int = 128, heads: int = 1, hidden: int = 128, dropout: float = 0.0,
        joint: bool = True, causal: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if heads < 1 or dim % heads:
            raise BadConfig(f"fusion.heads = {heads} does not divide fusion.dim = {dim}", "choose a divisor, such as 1")
        if len(dims) < 2:
            raise BadConfig("a fusion by cross-attention of one stream", "add a stream, or choose fusion=framewise")
        self.dim, self.causal = dim, causal
        self.project = nn.ModuleDict({name: nn.Linear(d, dim) for name, d in dims.items()})
        self.joint = nn.Linear(len(dims) * dim, dim) if joint else None
        names = [*dims, *(["joint"] if joint else [])]
        self.alone = nn.ModuleDict({f"{name} alone": CrossLayer(dim, heads, hidden, dropout) for name in names})
        self.pairs = list(permutations(range(len(names)), 2))
        keys = [f"{names[a]} on {names[b]}" for a, b in self.pairs]
        self.cross = nn.ModuleDict({key: CrossLayer(dim, heads, hidden, dropout) for key in keys})
        self.mix = CrossLayer(dim, heads, hidden, dropout)

    def forward(self, encoded: Encoded) -> Fused:
        """Streams on one grid -> pooled [N, dim], tokens [N, T, dim], mask [N, T]."""
        shown = [encoded.mask[s] & encoded.present[:, i, None] for i, s in enumerate(encoded.streams)]
        x = [self.project[s](encoded.tokens[s]) * m.unsqueeze(-1) for s, m in zip(encoded.streams, shown, strict=True)]
        mask = torch.stack(shown).any(0)
        if self.joint is not None:
            x, shown = [*x, self.joint(torch.cat(x, -1)) * mask.unsqueeze(-1)], [*shown, mask]
        alone = zip(self.alone.values(), x, shown, strict=True)
        x = [layer(h, h, self._past(m)) * m.unsqueeze(-1) for layer, h, m in alone]
        over = zip(self.cross.values(), self.pairs, strict=True)
        found = torch.stack([layer(x[a], x[b], self._past(shown[b])) for layer, (a, b) in over], 2)
        there = torch.stack([shown[a] & shown[b] for a, b in self.pairs], 2)
        there = torch.where(there.any(-1, keepdim=True), there, torch.stack([shown[a] for a, _ in self.pairs], 2))
        tokens = torch.zeros_like(x[0])
        tokens[mask] = self._mixed(found[mask], there[mask])
        first = encoded.streams[0]
        return Fused(masked_mean(tokens, mask), tokens, mask, encoded.rate[first], encoded.t0[first])

    def _mixed(self, results: Tensor, there: Tensor) -> Tensor:
        """Results of steps [K, P, d], there [K, P] -> their mean [K, d] after they attended to one another."""
        return masked_mean(self.mix(results, results, there.unsqueeze(1)), there)

    def _past(self, mask: Tensor) -> Tensor:
        """Which steps [N, 1 or T, T] may be attended to."""
        allowed = mask.unsqueeze(1)
        if not self.causal:
            return allowed
        return allowed & torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).tril()
