"""Concordance with continuous targets over the whole batch, the loss of valence and arousal in the wild."""

from __future__ import annotations

from torch import Tensor, nn

from affuse.core.parts import Computed
from affuse.core.tasks import Task
from affuse.core.types import Batch, Output

CARD = {
    "summary": "1 - concordance correlation over all labelled items of a batch, mean over the dimensions",
    "source": "Lin, Biometrics 1989; as a loss: Trigeorgis et al., ICASSP 2016",
    "entry": "CCCLoss",
    "tasks": ["values"],
    "licence": "Apache-2.0",
}
TINY = 1e-8  # squared units of the target: a batch of one constant label has no variance


class CCCLoss(nn.Module):
    """mean_d 1 - 2 cov(z_d, t_d) / (var z_d + var t_d + (mean z_d - mean t_d)^2), over the batches of all processes."""

    couples = True

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task.name

    def weights(self, batch: Batch) -> Tensor:
        """Weight of every item [N] or frame [N, L]."""
        return batch.target_mask[self.task].float()

    def forward(self, output: Output, batch: Batch, computed: Computed) -> Tensor:
        """The one loss of the batch, for every item [N] or frame [N, L]."""
        known = batch.target_mask[self.task]
        z = computed.gather(output.logits[self.task].float()[known])
        t = computed.gather(batch.target[self.task].float()[known])
        if not len(z):
            return output.logits[self.task].float().sum(-1) * 0
        gap = z.mean(0) - t.mean(0)
        z, t = z - z.mean(0), t - t.mean(0)
        apart = z.square().mean(0) + t.square().mean(0) + gap.square()
        loss: Tensor = (1 - 2 * (z * t).mean(0) / (apart + TINY)).mean()
        return loss.expand(known.shape)
