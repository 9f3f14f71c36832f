"""Modality-specific early stopping."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from affuse.balance.balancer import Balancer, Control, Epoch
from affuse.balance.mslr import accuracies

CARD = {
    "summary": "resets a stream's encoder to its best epoch and freezes it once the stream alone does not improve",
    "source": "Fujimori et al., Modality-Specific Learning Rate Control for Multimodal Classification, ACPR 2019",
    "entry": "MSES",
    "licence": "Apache-2.0",
}


class MSES(Balancer):
    """k_s = 0 for the rest of the run once the accuracy of stream s alone on `valid` did not rise in `patience` epochs.

    Before that, k_s = 1. Without `valid` the accuracy is that on `train`. A stopped encoder does not change: its
    gradients are removed, so that neither momentum nor weight decay act on it, and its running statistics are reset. A
    copy of every encoder at its best epoch is part of the state. The rule is that of AGM's implementation, which waits
    for more than 80 epochs; it was not checked against the paper's own code.
    """

    score: Tensor
    since: Tensor
    stopped: Tensor

    def __init__(self, *, patience: int = 10) -> None:
        super().__init__()
        self.patience = patience

    def setup(self, encoders: Mapping[str, nn.Module], dims: Mapping[str, int], outputs: int) -> None:
        self.encoders = dict(encoders)
        self.best = nn.ModuleDict({s: deepcopy(encoder).requires_grad_(False) for s, encoder in encoders.items()})
        self.register_buffer("score", torch.full((len(dims),), float("-inf")))
        self.register_buffer("since", torch.zeros(len(dims), dtype=torch.long))
        self.register_buffer("stopped", torch.zeros(len(dims), dtype=torch.bool))

    @torch.no_grad()
    def gradients(self, control: Control) -> None:
        for stream, stopped in zip(control.parameters, self.stopped.tolist(), strict=True):
            control.note("k", {stream: float(not stopped)})
            if not stopped:
                continue
            for parameter in control.parameters[stream]:
                parameter.grad = None
            for buffer, kept in zip(self.encoders[stream].buffers(), self.best[stream].buffers(), strict=True):
                buffer.copy_(kept)

    def epoch_end(self, epoch: Epoch) -> None:
        now = accuracies(epoch.held_out()[1])
        better = ~self.stopped & (now > self.score)
        self.score.copy_(torch.where(better, now, self.score))
        self.since.copy_(torch.where(better, 0, self.since + self.score.isfinite()))
        over = ~self.stopped & (self.since >= self.patience)
        self.stopped |= over
        for i, (stream, encoder) in enumerate(epoch.encoders.items()):
            if better[i]:
                self.best[stream].load_state_dict(encoder.state_dict())
            if over[i]:
                encoder.load_state_dict(self.best[stream].state_dict())
