"""A planted task of several streams, and a plain loop that trains on it with a balancer attached."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from affuse.balance.attach import Attached
from affuse.balance.balancer import Balancer, Features

CLASSES = 4


class Planted:
    """N items of CLASSES classes; stream s shows the class with strength[s] in noise. Inputs [N, 6]."""

    def __init__(self, strength: Sequence[float], n: int = 96, seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)
        means = torch.randn(len(strength), CLASSES, 6, generator=g)
        self.y = torch.arange(n) % CLASSES
        self.x = {
            f"s{i}": power * means[i, self.y] + torch.randn(n, 6, generator=g) for i, power in enumerate(strength)
        }


class LinearHead(nn.Module):
    """One linear layer on the streams side by side."""

    def __init__(self, streams: int, dim: int = 8) -> None:
        super().__init__()
        self.linear = nn.Linear(streams * dim, CLASSES)

    def forward(self, features: Features) -> Tensor:
        return self.linear(torch.cat(list(features.values()), 1))


def network(streams: int, seed: int = 0) -> tuple[dict[str, nn.Module], LinearHead]:
    """Encoders by stream, and the head."""
    torch.manual_seed(seed)
    encoders = {f"s{i}": nn.Sequential(nn.Linear(6, 8), nn.ReLU()) for i in range(streams)}
    return encoders, LinearHead(streams)


def optimizer_of(
    encoders: dict[str, nn.Module], head: nn.Module, name: str = "sgd", lr: float = 0.1
) -> torch.optim.Optimizer:
    parameters = [*(p for e in encoders.values() for p in e.parameters()), *head.parameters()]
    return torch.optim.SGD(parameters, lr=lr) if name == "sgd" else torch.optim.Adam(parameters, lr=lr / 10)


def train(
    balancer: Balancer,
    data: Planted,
    epochs: int = 3,
    size: int = 32,
    optimizer: str = "sgd",
    apply: str = "auto",
    seed: int = 0,
) -> tuple[Attached, dict[str, nn.Module]]:
    """The balancer after some epochs over the data in order."""
    encoders, head = network(len(data.x), seed)
    attached = Attached(balancer, encoders, head, optimizer_of(encoders, head, optimizer), apply=apply, epochs=epochs)
    for _ in range(epochs):
        for start in range(0, len(data.y), size):
            x = {s: v[start : start + size] for s, v in data.x.items()}
            attached.step({s: encoders[s](v) for s, v in x.items()}, data.y[start : start + size], x)
        with torch.no_grad():
            whole = ({s: encoders[s](v) for s, v in data.x.items()}, data.y)
        attached.epoch_end({"train": whole, "valid": whole})
    return attached, encoders


@pytest.fixture
def planted() -> type[Planted]:
    return Planted
