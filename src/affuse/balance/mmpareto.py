"""MMPareto: fused and unimodal gradients combined so that neither loss increases."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from affuse.balance.balancer import Balancer, Control, Step, linear_heads

CARD = {
    "summary": "combines each encoder's gradients of the fused loss and of its own so that neither loss increases",
    "source": "Wei and Hu, MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance, ICML 2024",
    "entry": "MMPareto",
    "licence": "Apache-2.0",
}


class MMPareto(Balancer):
    """G = 2 w g + 2 (1 - w) u, g: encoder s' gradient of L_fused, u: of L_s; w = 1/2 unless g.u < 0, then `min_norm`.

    Each tensor of G is scaled up to at least the norm of that of g + u, then multiplied by `gamma`, which Adam cancels.
    All other parameters, also those of the heads, have the plain gradient of L_fused + sum_s L_s. Both gradients are
    those of the whole batch.
    """

    def __init__(self, *, gamma: float = 1.5) -> None:
        super().__init__()
        self.gamma = gamma

    def setup(self, encoders: Mapping[str, nn.Module], dims: Mapping[str, int], outputs: int) -> None:
        self.heads = linear_heads(dims, outputs)
        self.encoders = dict(encoders)  # a dict, so that they are no submodules
        self.piece: dict[str, Tensor] = {}  # L_s of the piece at hand
        self.own: dict[str, Tensor] = {}  # u_s of the pieces so far, flat

    def loss(self, step: Step) -> Tensor:
        self.piece = {s: step.loss(self.heads[s](h), s) for s, h in step.features.items()}
        return super().loss(step) + step.term("balance.heads", sum(self.piece.values(), step.weight.new_zeros(())))

    def backward(self, loss: Tensor, step: Step) -> None:
        for s, own in self.piece.items():
            if trained := [p for p in self.encoders[s].parameters() if p.requires_grad]:
                u = torch.autograd.grad(own, trained, retain_graph=True, materialize_grads=True)
                self.own[s] = self.own.get(s, 0) + _flat(u)
        self.piece = {}
        super().backward(loss, step)

    @torch.no_grad()
    def gradients(self, control: Control) -> None:
        for s, trained in control.parameters.items():
            if not trained:
                continue
            # g + u: L_s was part of the loss
            both = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
            u = control.total(self.own.pop(s, torch.zeros_like(_flat(both))))
            g = _flat(both) - u
            w = min_norm(g, u) if g @ u < 0 else 0.5
            joined = 2 * w * g + 2 * (1 - w) * u
            for p, total, part in zip(trained, both, joined.split([p.numel() for p in trained]), strict=True):
                longer = (total.norm() / part.norm().clamp_min(1e-12)).clamp_min(1)
                p.grad = self.gamma * longer * part.view_as(p)
            control.note("cosine", {s: float(torch.cosine_similarity(g, u, 0))})
            control.note("fused_share", {s: w})


def min_norm(g: Tensor, u: Tensor) -> float:
    """w in 0..1 of the shortest w g + (1 - w) u: its products with g and u are not negative."""
    w = ((u - g) @ u) / (g - u).square().sum().clamp_min(1e-24)
    return float(w.clamp(0, 1))


def _flat(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])
