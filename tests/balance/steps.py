"""A Step around one linear layer on the streams side by side."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from affuse.balance.balancer import Features, Step

from .conftest import CLASSES


def make_step(n: int, streams: int, dim: int = 4, target: Tensor | None = None, blocks: Features | None = None) -> Step:
    """n items of all streams [n, dim] with gradient, classes (or `target`), equal weights; its own generator."""
    g = torch.Generator().manual_seed(7)
    features = {f"s{i}": (1 + torch.randn(n, dim, generator=g)).requires_grad_() for i in range(streams)}
    target = torch.randint(CLASSES, (n,), generator=g) if target is None else target
    outputs = target.shape[1] if target.is_floating_point() else CLASSES
    weight = torch.randn(outputs, streams * dim, generator=g) / dim
    items = torch.full((n,), 1 / n)

    def item_loss(logits: Tensor) -> Tensor:
        values = target.is_floating_point()
        return (logits - target).abs().mean(1) if values else F.cross_entropy(logits, target, reduction="none")

    def forward(given: Step, present: Tensor, share: Tensor | float = 1.0) -> tuple[Tensor, Tensor, Features]:
        shown = [h * present[:, i, None] for i, h in enumerate(given.features.values())]
        logits = torch.cat(shown, 1) @ weight.T
        loss = (item_loss(logits) * items * share).sum()
        return loss, logits, {"task": loss}

    return Step(
        features, torch.ones(n, streams, dtype=torch.bool), target, items, forward, lambda f, p: forward(f, p)[1],
        item_loss,
        blocks=lambda: blocks or {},
    )  # fmt: skip
