"""Leader-follower attention: within every step the streams attend to each other, the leader also stands by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import Encoded, Fused
from affuse.layers.masked import masked_mean, masked_softmax

CARD = {
    "summary": "LFAN: attention between the streams within each step, beside the leader's own features",
    "source": "Zhang et al., Multimodal Continuous Emotion Recognition: Leader-Follower Attention, CVPR-W 2022 / 2023",
    "entry": "LFAN",
    "needs": ["grid"],
    "gives": ["pooled", "tokens"],
    "licence": "Apache-2.0",
}


class LFAN(nn.Module):
    """F_t = LN(drop(W_o z_t + b)), z_t = A V + V over the M streams of step t, per head; tokens [x_leader,t ; F_t].

    [q|k|v]_m = W_m x_m + b_m, A = softmax over the present streams of q k^T / sqrt(d_h); z is flattened by head, then
    stream, then feature, M * `dim` wide. An absent stream neither attends nor is attended to. Time is mixed by the
    encoders alone. `leader`: the stream whose features also go on by themselves (the first where empty). Raises
    BadConfig where `heads` does not divide `dim` or the leader is no stream.
    """

    def __init__(
        self, dims: dict[str, int], *, dim: int = 32, heads: int = 2, dropout: float = 0.1, leader: str = ""
    ) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise BadConfig(f"fusion.heads = {heads} does not divide fusion.dim = {dim}", "choose a divisor, such as 1")
        self.leader = leader or next(iter(dims))
        if self.leader not in dims:
            raise BadConfig(f"fusion.leader = '{leader}' is no stream", f"choose one of {', '.join(dims)}")
        self.heads, width = heads, len(dims) * dim
        self.dim = dims[self.leader] + width
        self.project = nn.ModuleDict({name: nn.Linear(d, 3 * dim) for name, d in dims.items()})
        self.out, self.dropout, self.norm = nn.Linear(width, width), nn.Dropout(dropout), nn.LayerNorm(width)
        for layer in [*self.project.values(), self.out]:
            nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, encoded: Encoded) -> Fused:
        """Streams on one grid -> pooled [N, dim], tokens [N, T, dim], mask [N, T]."""
        there = torch.stack([encoded.mask[s] for s in encoded.streams], -1) & encoded.present.unsqueeze(1)
        mask = there.any(-1)
        z = self._attend({s: h[mask] for s, h in encoded.tokens.items()}, there[mask])
        column = encoded.streams.index(self.leader)
        own = encoded.tokens[self.leader][mask] * there[mask][:, column, None]
        steps = torch.cat([own, self.norm(self.dropout(self.out(z)))], -1)
        tokens = steps.new_zeros(*mask.shape, self.dim)
        tokens[mask] = steps
        first = encoded.streams[0]
        return Fused(masked_mean(tokens, mask), tokens, mask, encoded.rate[first], encoded.t0[first])

    def _attend(self, x: dict[str, Tensor], there: Tensor) -> Tensor:
        """Steps x[s] [K, d_s], there [K, M] -> z [K, M * dim], flattened by head, then stream."""
        each = [self.project[s](h).unflatten(-1, (self.heads, 3, -1)) for s, h in x.items()]
        q, k, v = torch.stack(each, 2).unbind(3)  # [K, heads, M, d_h]
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        weights = masked_softmax(scores, there[:, None, None])
        return ((weights @ v + v) * there[:, None, :, None]).flatten(1)
