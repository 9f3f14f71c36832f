"""BCGM: dropped streams (OPM) and guided gradients (CGGM) together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from affuse.balance.balancer import Apply, Balancer, Control, Measure, Step
from affuse.balance.cggm import CGGM
from affuse.balance.opm import OPM

CARD = {
    "summary": "OPM drops the features of leading streams, CGGM scales and aligns the gradients",
    "source": "BCGM, SoICT 2025",
    "entry": "BCGM",
    "random": True,
    "licence": "Apache-2.0",
}


class BCGM(Balancer):
    """OPM and CGGM; all options are theirs, and `faithful` is that of both.

    The guides read the features before the drop, and their scores set the drop rates too, as in the published code for
    CMU-MOSI; that for CREMA-D was not published in a form that runs.
    """

    def __init__(
        self, *, q: float = 0.5, gain: float = 0.5, p_exe: float = 0.7, warmup: int = 6,
        rho: float = 1.3, lam: float = 0.2,
        direction: Literal["gradients", "weights"] = "gradients", measure: Measure = "true_prob", beta: float = 0.9,
        guide_rate: float = 0.5, tol: float = 1e-3, faithful: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.opm = OPM(q=q, gain=gain, p_exe=p_exe, warmup=warmup, measure=measure, beta=beta, faithful=faithful)
        self.cggm = CGGM(
            rho=rho, lam=lam, direction=direction, measure=measure, beta=beta,
            guide_rate=guide_rate, tol=tol, faithful=faithful,
        )  # fmt: skip

    def setup(self, encoders: Mapping[str, nn.Module], dims: Mapping[str, int], outputs: int) -> None:
        self.opm.setup(encoders, dims, outputs)
        self.cggm.setup(encoders, dims, outputs)

    def acts(self, apply: Apply) -> Apply:
        return self.cggm.acts(apply)

    def loss(self, step: Step) -> Tensor:
        logits = self.cggm.guide_logits(step)
        self.opm.scores.add(step, logits)
        return self.cggm.guided(step, self.opm.dropped(step), logits)

    def gradients(self, control: Control) -> None:
        self.opm.gradients(control)
        self.cggm.gradients(control)
