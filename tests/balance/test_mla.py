from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from affuse.balance import MLA
from affuse.balance.attach import Attached
from affuse.balance.balancer import Features
from affuse.balance.mla import projection
from affuse.core.errors import BadConfig

from .conftest import CLASSES, Planted, network, optimizer_of


class OneHead(nn.Module):
    """The sum of one head's logits of every stream."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, CLASSES, bias=False)

    def forward(self, features: Features) -> Tensor:
        return sum(self.linear(h) for h in features.values())


def attached(balancer: MLA, streams: int = 2, shared: bool = True) -> tuple[Attached, dict[str, nn.Module], OneHead]:
    encoders, _ = network(streams)
    head = OneHead()
    weights = [head.linear.weight] if shared else ()
    return Attached(balancer, encoders, head, optimizer_of(encoders, head), shared=weights), encoders, head


def test_the_published_recursion_divides_by_a_matrix_and_ours_is_the_regularised_projection():
    means = torch.randn(3, 6, dtype=torch.float64)
    closed = torch.linalg.inv(torch.eye(6, dtype=torch.float64) + means.T @ means / 0.1)
    torch.testing.assert_close(projection(means, 0.1), closed)
    assert (projection(means, 1e-9) @ means.T).abs().max() < 1e-6


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
    "nesterov and decay": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.5),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_turn_leaves_the_shared_head_s_mean_logits_of_the_other_streams_under_every_optimiser(name):
    data = Planted([2.0, 1.0, 1.0])
    encoders, _ = network(3)
    head = OneHead()
    optimizer = OPTIMIZERS[name]([p for m in [*encoders.values(), head] for p in m.parameters()])
    at = Attached(MLA(alpha=1e-6), encoders, head, optimizer, shared=[head.linear.weight])
    before, spy = [], optimizer.step
    optimizer.step = lambda: (before.append((head.linear.weight.detach().clone(), at.balancer.means.clone())), spy())
    for _ in range(4):
        at.step({s: encoders[s](x) for s, x in data.x.items()}, data.y, data.x)
    weights = [w for w, _ in before] + [head.linear.weight.detach()]
    for turn in range(3, 12):  # from the second round on, all means are known
        change, others = weights[turn + 1] - weights[turn], before[turn][1][[s for s in range(3) if s != turn % 3]]
        assert change.norm() > 1e-4
        assert (change @ others.T).norm() < 1e-3 * change.norm() * others.norm()


def test_the_published_p_wears_out_over_steps_and_ours_does_not():
    data, seen = Planted([1.0, 1.0]), []
    at, encoders, _ = attached(MLA())
    for _ in range(100):
        some = torch.randperm(96)[:16]
        x = {s: v[some] for s, v in data.x.items()}
        at.step({s: encoders[s](v) for s, v in x.items()}, data.y[some], x)
        seen += list(at.balancer.means.clone())
    rooms = [torch.linalg.eigvalsh(projection(means, 0.1)) for means in (torch.stack(seen), at.balancer.means[1:])]
    assert rooms[0].max() < 0.2  # directions in which the head can still learn, and how much
    assert rooms[1][1:].min() > 0.99


def test_one_turn_moves_one_encoder_even_under_momentum_and_weight_decay():
    data = Planted([2.0, 1.0, 1.0])
    encoders, head = network(3)
    parameters = [p for m in [*encoders.values(), head] for p in m.parameters()]
    at = Attached(MLA(), encoders, head, torch.optim.AdamW(parameters, 0.01, weight_decay=0.5))
    moved = []
    spy = at.optimizer.step

    def step() -> None:
        old = {s: [p.detach().clone() for p in e.parameters()] for s, e in encoders.items()}
        spy()
        pairs = {s: list(zip(old[s], e.parameters(), strict=True)) for s, e in encoders.items()}
        moved.append([s for s, each in pairs.items() if not all(torch.equal(a, b) for a, b in each)])

    at.optimizer.step = step
    for _ in range(2):
        at.step({s: encoders[s](x) for s, x in data.x.items()}, data.y, data.x)
    assert moved == [["s0"], ["s1"], ["s2"]] * 2


def test_the_weights_named_as_shared_must_fit_every_stream():
    data = Planted([1.0, 1.0])
    encoders, head = network(2)
    at = Attached(MLA(), encoders, head, optimizer_of(encoders, head), shared=[head.linear.weight])
    with pytest.raises(BadConfig, match="s0"):
        at.step({s: encoders[s](x) for s, x in data.x.items()}, data.y, data.x)


def test_without_a_shared_head_turns_are_all_there_is():
    data = Planted([1.0, 1.0])
    weights = []
    for alpha in (1e-6, 1e6):
        at, encoders, head = attached(MLA(alpha=alpha), shared=False)
        at.step({s: encoders[s](x) for s, x in data.x.items()}, data.y, data.x)
        weights.append(head.linear.weight)
    assert torch.equal(*weights)
