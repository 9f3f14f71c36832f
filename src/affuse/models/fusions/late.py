"""Late fusion: every stream decides, the decisions are added."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import Encoded, Fused

CARD = {
    "summary": "one head per stream (or one for all); the logits of those present are added, averaged, "
    "weighted by learned scalars, or mixed by entropy",
    "source": "common practice (a sum of logits is a product of experts); "
    "entropy, one head: MLA, Zhang et al., CVPR 2024",
    "entry": "Late",
    "needs": ["pooled"],
    "level": "decisions",
    "licence": "Apache-2.0",
}


class Late(nn.Module):
    """logits = sum over present s of z_s, their mean, or a mixture; fused features are the concatenated streams.

    "weighted": sum over present s of w_s z_s, one learned number per stream for all classes, 1 at first (the fusion of
    MMER). "entropy": softmax(logits) = sum over present s of w_s p_s, p_s = softmax(z_s), w = softmax over s of
    -H(p_s); for classes only. These are MLA's weights. Differs from the published code: there they weight z_s, not p_s.
    `shared`: one head for all streams; raises BadConfig where their widths differ.
    """

    level = "decisions"

    def __init__(
        self, dims: dict[str, int], *, how: Literal["sum", "mean", "weighted", "entropy"] = "sum", shared: bool = False
    ) -> None:
        super().__init__()
        if shared and len(set(dims.values())) > 1:
            widths = ", ".join(f"{name} {d}" for name, d in dims.items())
            message = f"fusion.shared is one head for streams of different widths ({widths})"
            raise BadConfig(message, "give their encoders one dim")
        self.dim, self.how, self.one_head = sum(dims.values()), how, shared
        self.weight = nn.Parameter(torch.ones(len(dims))) if how == "weighted" else None
        self.tasks: tuple[str, ...] = ("classes",) if how == "entropy" else ("classes", "multilabel", "values")

    def forward(self, encoded: Encoded) -> Fused:
        """The concatenated streams [N, sum d_s], zeros where absent."""
        there = encoded.present.unsqueeze(-1).unbind(1)
        return Fused(torch.cat([h * t for h, t in zip(encoded.pooled.values(), there, strict=True)], dim=1))

    def combine(self, logits: Tensor, encoded: Encoded) -> Tensor:
        """logits [N, S, C] -> [N, C]; zeros (no opinion) where nothing is present."""
        present = encoded.present
        if self.how == "entropy":
            return _mixture(logits.float().log_softmax(-1), present)
        if self.weight is not None:
            logits = logits * self.weight.unsqueeze(-1)
        total = (logits * present.unsqueeze(-1)).sum(1)
        return total if self.how != "mean" else total / present.sum(1, keepdim=True).clamp_min(1)


def _mixture(log_p: Tensor, present: Tensor) -> Tensor:
    """log sum over present s of w_s p_s, of log_p [N, S, C]."""
    entropy = -(log_p.exp() * log_p).sum(-1)
    log_w = (-entropy).masked_fill(~present, torch.finfo(log_p.dtype).min).log_softmax(1)
    return (log_w.unsqueeze(-1) + log_p).logsumexp(1) * present.any(1, keepdim=True)
