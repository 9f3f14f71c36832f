"""On-the-fly prediction modulation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from affuse.balance.balancer import Balancer, Control, Measure, Scores, Step

CARD = {
    "summary": "drops the features of streams that predict better than the others, so that the others must learn",
    "source": "Wei et al., On-the-fly Modulation for Balanced Multimodal Learning, TPAMI 2024",
    "entry": "OPM",
    "random": True,
    "licence": "Apache-2.0",
}


class OPM(Balancer):
    """h_is <- m_is h_is / (1 - theta_i), m_is ~ Bernoulli(1 - q_s), with probability `p_exe`, after `warmup` epochs.

    q_s = min(1, q (1 + gain r_s)) where r_s > 0, else 0; r_s = tanh(relu(mean over t != s of score_s / score_t - 1));
    theta_i = sum d_s q_s / sum d_s over the streams that item i has, d_s: width. The scores are those of predictions
    from one stream, up to the step before, averaged over steps with `beta`. At least one stream of every item stays,
    and the divisor is corrected for that; `faithful`: an item that loses all its streams is left out, by weight 0.

    Differs from the published code: there scores are sums over the same batch whose streams are dropped, and there is
    one draw with `p_exe` for a batch that is run in pieces; here each piece has its own draw.
    """

    rates: Tensor

    def __init__(
        self, *, q: float = 0.5, gain: float = 0.5, p_exe: float = 0.7, warmup: int = 6, measure: Measure = "true_prob",
        beta: float = 0.9, faithful: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.q, self.gain, self.p_exe, self.warmup = q, gain, p_exe, warmup
        self.measure, self.beta, self.faithful = measure, beta, faithful

    def setup(self, encoders: Mapping[str, nn.Module], dims: Mapping[str, int], outputs: int) -> None:
        self.scores = Scores(len(dims), self.beta, self.measure)
        self.register_buffer("rates", torch.zeros(len(dims)))

    def loss(self, step: Step) -> Tensor:
        self.scores.add(step)
        return super().loss(self.dropped(step))

    def gradients(self, control: Control) -> None:
        self.rates.copy_(drop_rates(self.scores.update(control), self.q, self.gain))
        control.note("drop", dict(zip(control.parameters, self.rates.tolist(), strict=True)))

    def dropped(self, step: Step) -> Step:
        """The step with streams dropped; unchanged in the warm-up, where no rate is above 0, or by chance."""
        if step.epoch < self.warmup or not self.rates.any() or torch.rand(()) >= self.p_exe:
            return step
        q = torch.where(step.present, self.rates.clamp_max(1 - 1e-6), 1.0)
        keep = torch.rand_like(q) >= q if self.faithful else keep_some(q)
        width = torch.tensor([float(h.shape[1]) for h in step.features.values()], device=q.device) * step.present
        theta = (width * q).sum(1) / width.sum(1).clamp_min(1)
        factor = keep / (1 - theta)[:, None]
        if not self.faithful:
            factor = factor * (1 - q.prod(1, keepdim=True))  # a stream stays with (1 - q_s) / (1 - prod q)
        shown = step.scaled(factor)
        return shown.with_shares(_left(step, keep)) if self.faithful else shown


def drop_rates(score: Tensor, q: float, gain: float) -> Tensor:
    """q [S] from scores [S]; 0 for a stream that is not ahead of the others, or never occurred."""
    ratio = score[:, None] / score.clamp_min(1e-12)
    apart = ~torch.eye(len(score), dtype=torch.bool, device=score.device)
    lead = ratio.where(apart, torch.nan).nanmean(1).nan_to_num(0.0)
    r = torch.tanh(torch.relu(lead - 1))
    return (q * (1 + gain * r)).clamp(0, 1) * (r > 0)


def keep_some(q: Tensor) -> Tensor:
    """Draws [N, S] bool of Bernoulli(1 - q), given that at least one stream stays; where all q are 1, none does."""
    draw, all_dropped = torch.rand_like(q), q.flip(1).cumprod(1).flip(1)  # this stream and those after it
    keep = torch.zeros_like(q, dtype=torch.bool)
    for s in range(q.shape[1]):
        given = torch.where(keep.any(1), 1.0, 1 - all_dropped[:, s]).clamp_min(1e-12)
        keep[:, s] = draw[:, s] < (1 - q[:, s]) / given
    return keep


def _left(step: Step, keep: Tensor) -> Tensor:
    """Shares [N] that leave out items without any stream left, and give their weight to the others."""
    left = (keep.any(1) | ~step.present.any(1)).to(step.weight.dtype)
    return left * step.weight.sum() / (step.weight * left).sum().clamp_min(1e-12)
