"""Diagnosing and re-learning."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from affuse.balance.balancer import Balancer, Control, Epoch, Step
from affuse.core.errors import BadConfig

CARD = {
    "summary": "pulls encoders back towards their start, by how much less their features cluster on held-out data",
    "source": "Wei et al., Diagnosing and Re-learning for Balanced Multimodal Learning, ECCV 2024",
    "entry": "Relearning",
    "licence": "Apache-2.0",
}


class Relearning(Balancer):
    """theta_s <- w_s theta_s(start) + (1 - w_s) theta_s, w_s = tanh(gain |purity_s(train) - purity_s(valid)|).

    This is done every `every` epochs, at most `times` times, never after the last one. purity_s: the share of items
    whose class is the most frequent one in their k-means cluster of features h_s, with as many clusters as classes.
    `scaled`: every dimension is first scaled to -1..1 within its split. Running statistics and the optimiser's moments
    do not change. A copy of every encoder at its start is part of the state. Classes only: raises BadConfig for values,
    or without `valid`.

    Differs from the published code: there every=20, times=3, scaled=true; it acts one epoch later (after 21, 41 and
    61), and starts k-means ten times, not three.
    """

    compares = True
    paced = True
    done: Tensor
    pulled: Tensor

    def __init__(self, *, every: int = 15, times: int = 2, gain: float = 3.0, scaled: bool = False) -> None:
        super().__init__()
        self.every, self.times, self.gain, self.scaled = every, times, gain, scaled

    def setup(self, encoders: Mapping[str, nn.Module], dims: Mapping[str, int], outputs: int) -> None:
        self.initial = nn.ModuleDict({s: deepcopy(encoder).requires_grad_(False) for s, encoder in encoders.items()})
        self.classes = outputs
        self.register_buffer("done", torch.tensor(0))
        self.register_buffer("pulled", torch.zeros(len(dims)))

    def loss(self, step: Step) -> Tensor:
        if not step.categorical:
            raise BadConfig("relearning counts classes, and the task is of values", "choose balance=uniform or another")
        return super().loss(step)

    def gradients(self, control: Control) -> None:
        if self.done:
            control.note("relearned", dict(zip(control.parameters, self.pulled.tolist(), strict=True)))

    @torch.no_grad()
    def epoch_end(self, epoch: Epoch) -> None:
        over = epoch.number + 1
        if over % self.every or over == epoch.epochs or self.done >= self.times:
            return
        train, valid = (purities(step, self.classes, self.scaled) for step in epoch.both())
        self.pulled.copy_(torch.tanh(self.gain * (train - valid).abs()).nan_to_num(0.0))
        self.done += 1
        for (stream, encoder), w in zip(epoch.encoders.items(), self.pulled.tolist(), strict=True):
            for parameter, start in zip(encoder.parameters(), self.initial[stream].parameters(), strict=True):
                if parameter.requires_grad:
                    parameter.lerp_(start, w)


def purities(step: Step, classes: int, scaled: bool = False) -> Tensor:
    """[S]: purity of every stream's features, clustered by k-means; NaN where no item has the stream."""
    target = step.target.argmax(1) if step.target.dim() > 1 else step.target
    kept = [step.counts(s) > 0 for s in step.streams]
    streams = zip(step.features.values(), kept, strict=True)
    return torch.stack([purity(h[k], target[k], classes, scaled) for h, k in streams])


def purity(x: Tensor, target: Tensor, classes: int, scaled: bool = False) -> Tensor:
    """Share of the rows x [N, D] whose class target [N] is the most frequent one of their cluster, 1/classes..1."""
    if not len(x):
        return torch.tensor(float("nan"))
    if scaled:
        low, high = x.amin(0), x.amax(0)
        x = 2 * (x - low) / torch.where(high > low, high - low, 1.0) - 1
    from sklearn.cluster import KMeans

    found = KMeans(min(classes, len(x)), n_init=3, random_state=0).fit_predict(x.float().cpu().numpy())
    pairs = torch.as_tensor(found) * classes + target.cpu()
    return torch.bincount(pairs.long(), minlength=classes * classes).view(classes, classes).amax(1).sum() / len(x)
