from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from affuse.balance import MMPareto
from affuse.balance.attach import Attached
from affuse.balance.balancer import Control
from affuse.balance.mmpareto import min_norm

from .conftest import Planted, network, optimizer_of

ALIKE = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 1.0])
APART = torch.tensor([1.0, 0.0]), torch.tensor([-0.5, 0.1])


def joined(g: torch.Tensor, u: torch.Tensor, gamma: float = 1.0) -> torch.Tensor:
    """What becomes of an encoder's gradients g of the fused and u of its own loss, [2]."""
    encoder = nn.Linear(2, 1, bias=False)
    balancer = MMPareto(gamma=gamma)
    balancer.setup({"a": encoder}, {"a": 1}, 2)
    encoder.weight.grad = (g + u)[None]
    balancer.own = {"a": u}
    balancer.gradients(Control({"a": [encoder.weight]}, torch.optim.SGD(encoder.parameters(), 0.1)))
    return encoder.weight.grad[0]


def test_balancebenchmark_accumulated_gradients_have_a_cosine_of_one_and_the_true_ones_have_not():
    data = Planted([2.0, 1.0])
    encoders, head = network(2)
    balancer = MMPareto(gamma=1.0)
    attached = Attached(balancer, encoders, head, optimizer_of(encoders, head, lr=0.1))
    for _ in range(2):  # own heads start at zero: their first gradients are none
        attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y)
    features = {s: encoders[s](x) for s, x in data.x.items()}
    fused = F.cross_entropy(head(features), data.y)
    expected = {}
    for s, h in features.items():
        own, encoder = F.cross_entropy(balancer.heads[s](h), data.y), list(encoders[s].parameters())
        g, u = (torch.autograd.grad(loss, encoder, retain_graph=True) for loss in (fused, own))
        cosine = float(F.cosine_similarity(*(torch.cat([t.reshape(-1) for t in part]) for part in (g, u)), 0))
        expected[s] = cosine, [p.detach() - 0.1 * (a + b) for p, a, b in zip(encoder, g, u, strict=True)]
    attached.step(features, data.y)
    for s, (cosine, weights) in expected.items():
        assert 0 < cosine < 0.99
        assert attached.trace[f"cosine.{s}"] == pytest.approx(cosine, abs=1e-5)
        torch.testing.assert_close([p.detach() for p in encoders[s].parameters()], weights)


def test_without_conflict_the_gradients_are_added():
    torch.testing.assert_close(joined(*ALIKE, gamma=1.5), 1.5 * (ALIKE[0] + ALIKE[1]))


def test_balancebenchmark_never_reached_the_conflict_branch_and_it_is_not_uniform_training():
    g, u = APART
    found, both = joined(g, u), g + u
    assert found.isfinite().all()
    assert F.cosine_similarity(found, both, 0) < 0.99  # another direction, not only another length
    assert found @ g > -1e-6 and found @ u > -1e-6
    assert found.norm() >= both.norm() - 1e-6


@pytest.mark.parametrize(
    ("g", "u"),
    [([1.0, 0.0], [-1.0, 0.0]), ([0.0, 0.0], [1.0, 0.0]), ([1.0, 0.0], [0.0, 0.0]), ([0.0, 0.0], [0.0, 0.0])],
)
def test_opposite_and_missing_gradients_are_finite(g, u):
    assert joined(torch.tensor(g), torch.tensor(u)).isfinite().all()


def test_a_head_that_says_nothing_yet_leaves_the_fused_gradient():
    torch.testing.assert_close(joined(torch.tensor([1.0, 2.0]), torch.zeros(2)), torch.tensor([1.0, 2.0]))


def test_the_min_norm_point_is_the_shortest_and_never_against_either_gradient():
    generator = torch.Generator().manual_seed(0)
    grid = torch.linspace(0, 1, 2001)[:, None]
    for _ in range(50):
        g, u = torch.randn(2, 5, generator=generator)
        w = min_norm(g, u)
        point = w * g + (1 - w) * u
        assert point.norm() <= (grid * g + (1 - grid) * u).norm(dim=1).min() + 1e-5
        assert min(point @ g, point @ u) >= -1e-4 or g @ u > 0


def test_each_tensor_is_no_shorter_than_the_sum_of_its_gradients():
    encoder, generator = nn.Linear(6, 4), torch.Generator().manual_seed(1)
    balancer = MMPareto()
    balancer.setup({"a": encoder}, {"a": 4}, 2)
    for p in encoder.parameters():
        p.grad = torch.randn(p.shape, generator=generator)
    both = [p.grad.clone() for p in encoder.parameters()]
    noisy = [3 * b.reshape(-1) + torch.randn(b.numel(), generator=generator) for b in both]
    balancer.own = {"a": torch.cat(noisy)}  # g = -2 b - noise
    control = Control({"a": list(encoder.parameters())}, torch.optim.SGD(encoder.parameters(), 0.1))
    balancer.gradients(control)
    assert control.trace["cosine.a"] < 0 and not balancer.own
    for p, b in zip(encoder.parameters(), both, strict=True):
        assert p.grad.norm() >= 1.5 * b.norm() * (1 - 1e-5)


def test_the_heads_get_their_plain_gradients():
    data = Planted([2.0, 1.0])
    encoders, head = network(2)
    balancer = MMPareto()
    attached = Attached(balancer, encoders, head, optimizer_of(encoders, head))
    h = encoders["s0"](data.x["s0"])
    attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y)
    alone = nn.Linear(8, 4)
    nn.init.zeros_(alone.weight), nn.init.zeros_(alone.bias)
    F.cross_entropy(alone(h.detach()), data.y).backward()
    torch.testing.assert_close(balancer.heads["s0"].weight, -0.1 * alone.weight.grad)
