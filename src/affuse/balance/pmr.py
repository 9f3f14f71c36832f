"""Prototypical modality rebalance."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from affuse.balance.balancer import Balancer, Control, Epoch, Features, Scores, Step
from affuse.balance.mlb import others
from affuse.core.errors import BadConfig

CARD = {
    "summary": "pulls the features of slower streams to their class means, and at first spreads those of faster ones",
    "source": "Fan et al., PMR: Prototypical Modal Rebalance for Multimodal Learning, CVPR 2023",
    "entry": "PMR",
    "licence": "Apache-2.0",
}


class PMR(Balancer):
    """L = L_fused + alpha sum_s clip(1/rho_s - 1, 0, 1) l(z_s, y) - mu sum_s clip(rho_s - 1, 0, 1) H(softmax z_s).

    z_sc = -||h_s - P_sc||; rho_s = score_s / mean of the other streams' scores, of z and of the steps before, averaged
    with `beta`. H counts in epochs < `early`. P_sc: class means, P <- momentum P + (1 - momentum) mean of the epoch;
    the first epoch is joint training. Classes only: raises BadConfig for values.

    Differs from the published code: means are collected during training, not in a separate pass over a tenth of the
    data; weights are those of the paper, not a switch.
    """

    prototypes: Tensor
    known: Tensor
    sums: Tensor
    whole: Tensor

    def __init__(
        self, *, alpha: float = 1.0, mu: float = 0.1, early: int = 10, momentum: float = 0.2, beta: float = 0.9
    ) -> None:
        super().__init__()
        self.alpha, self.mu, self.early, self.momentum, self.beta = alpha, mu, early, momentum, beta

    def setup(self, encoders: Mapping[str, nn.Module], dims: Mapping[str, int], outputs: int) -> None:
        self.widths, total = list(dims.values()), sum(dims.values())
        self.scores = Scores(len(dims), self.beta)
        self.register_buffer("prototypes", torch.zeros(outputs, total))  # the streams' side by side
        self.register_buffer("known", torch.zeros(outputs, len(dims), dtype=torch.bool))
        self.register_buffer("sums", torch.zeros(outputs, total + len(dims)), persistent=False)  # and the counts
        self.register_buffer("whole", torch.zeros(outputs, total + len(dims)), persistent=False)

    def loss(self, step: Step) -> Tensor:
        if not step.categorical:
            message = "balance 'pmr' compares features with class means, and the targets are values"
            raise BadConfig(message, "choose balance=mlb")
        shares = step.shares(len(self.prototypes))
        self.collect(step, shares)
        loss = super().loss(step)
        if not self.known.any():
            return loss
        own_logits = self.prototype_logits(step)
        self.scores.add(step, own_logits)
        slow, fast = lags(self.scores.value)
        for i, (stream, logits) in enumerate(own_logits.items()):
            log_p, counts = logits.log_softmax(1), step.counts(stream)
            near = -self.alpha * slow[i] * ((shares * self.known[:, i] * log_p).sum(1) * counts).sum()
            loss = loss + step.term("balance.prototypes", near)
            if step.epoch < self.early:
                negentropy = ((log_p.exp() * log_p).sum(1) * counts).sum()
                loss = loss + step.term("balance.entropy", self.mu * fast[i] * negentropy)
        return loss

    @torch.no_grad()
    def collect(self, step: Step, shares: Tensor) -> None:
        """Add a piece's features to the sums of their classes."""
        there = torch.stack([(step.counts(s) > 0).to(self.sums) for s in step.streams], 1)
        features = [h.to(self.sums) * there[:, i, None] for i, h in enumerate(step.features.values())]
        self.sums += shares.to(self.sums).T @ torch.cat([*features, there], 1)

    def prototype_logits(self, step: Step) -> Features:
        """Logits [N, C] of every stream from its prototypes; -10000 for a class without one."""
        parts = self.prototypes.split(self.widths, 1)
        return {
            s: (-distances(h.to(self.prototypes), parts[i])).masked_fill(~self.known[:, i], -1e4)
            for i, (s, h) in enumerate(step.features.items())
        }

    def gradients(self, control: Control) -> None:
        self.whole += control.total(self.sums.clone())
        self.sums.zero_()
        if self.known.any():
            slow, _ = lags(self.scores.update(control))
            control.note("slow", dict(zip(control.parameters, slow.tolist(), strict=True)))

    def epoch_end(self, epoch: Epoch) -> None:
        total, count = self.whole.split([sum(self.widths), len(self.widths)], 1)
        wide = torch.tensor(self.widths, device=count.device)
        count, known = count.repeat_interleave(wide, 1), self.known.repeat_interleave(wide, 1)
        mean = total / count.clamp_min(1e-12)
        moved = torch.where(known, self.prototypes.lerp(mean, 1 - self.momentum), mean)
        self.prototypes.copy_(torch.where(count > 0, moved, self.prototypes))
        self.known.logical_or_(self.whole[:, -len(self.widths) :] > 0)
        self.whole.zero_()


def lags(score: Tensor) -> tuple[Tensor, Tensor]:
    """(clip(1/rho - 1, 0, 1), clip(rho - 1, 0, 1)) [S] of scores [S]; 0 for a stream that never occurred."""
    rho = score / others(score).clamp_min(1e-12)
    slow, fast = ((x - 1).nan_to_num(0.0).clamp(0, 1) for x in (1 / rho.clamp_min(1e-12), rho))
    return slow, fast


def distances(h: Tensor, prototypes: Tensor) -> Tensor:
    """||h - P|| of [N, d] and [C, d], [N, C], without cancellation; its gradient is 0 where h lies on P."""
    return torch.cdist(h, prototypes, compute_mode="donot_use_mm_for_euclid_dist")
