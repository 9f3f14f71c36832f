from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor

from affuse.balance import BCGM, CGGM
from affuse.balance.attach import Attached
from affuse.balance.balancer import Balancer, Features, Scores
from affuse.balance.cggm import agreement, magnitudes, residual
from affuse.core.errors import BadConfig

from .conftest import CLASSES, LinearHead, Planted, network, optimizer_of, train
from .steps import make_step


def ready(streams: int = 2, outputs: int = CLASSES, **options: object) -> CGGM:
    cggm = CGGM(**options)
    cggm.setup({}, {f"s{i}": 4 for i in range(streams)}, outputs)
    return cggm


def test_the_magnitudes_of_a_hand_example():
    torch.testing.assert_close(magnitudes(torch.tensor([0.1, 0.3])), torch.tensor([0.75, 0.25]))
    for faithful in (False, True):
        b = magnitudes(torch.tensor([0.1, 0.2, 0.3]), faithful=faithful)
        torch.testing.assert_close(b, torch.tensor([5.0, 4.0, 3.0]) / 6)


def test_cggm_an_unchanged_score_sum_is_no_division_by_zero():
    change = torch.tensor([0.1, -0.1])
    assert magnitudes(change, faithful=True).abs().max() > 1e6  # as published
    assert magnitudes(change).tolist() == [1.0, 1.0]
    assert magnitudes(torch.zeros(3), faithful=True).isfinite().all()
    assert magnitudes(torch.full((2,), float("nan"))).tolist() == [1.0, 1.0]


def test_cggm_no_coefficient_climbs_the_loss():
    torch.manual_seed(0)
    changes = 0.05 * torch.randn(2000, 3)
    robust, faithful = (torch.stack([magnitudes(c, faithful=f) for c in changes]) for f in (False, True))
    assert (faithful < 0).float().mean() > 0.1
    assert robust.min() >= 0 and robust.max() <= 2


def test_cggm_an_exact_copy_of_a_streams_block_is_fully_aligned():
    torch.manual_seed(0)
    blocks = {"s0": torch.randn(CLASSES, 4, requires_grad=True), "s1": torch.randn(CLASSES, 4, requires_grad=True)}
    cggm, step = ready(direction="weights", lam=1.0), make_step(16, 2, blocks=blocks)
    plain = ready(lam=0.0)
    for own in (cggm, plain):
        own.guides.load_state_dict(
            {f"{s}.{n}": p for s, b in blocks.items() for n, p in (("weight", b), ("bias", b[:, 0]))}
        )
    torch.testing.assert_close(cggm.loss(step), plain.loss(step))  # sum |B| - sum B c = 0
    with torch.no_grad():
        cggm.guides["s1"].weight.neg_()
        plain.guides["s1"].weight.neg_()
    torch.testing.assert_close(cggm.loss(step) - plain.loss(step), torch.tensor(1.0))  # (1 - 1 + 1 + 1) / 2


def test_weights_move_towards_the_guides():
    blocks = {s: torch.randn(CLASSES, 4, requires_grad=True) for s in ("s0", "s1")}
    cggm = ready(direction="weights")
    torch.nn.init.normal_(cggm.guides["s0"].weight)
    cggm.loss(make_step(16, 2, blocks=blocks)).backward()
    assert blocks["s0"].grad.abs().sum() > 0
    assert blocks["s1"].grad.abs().sum() == 0  # its guide is zero still: no direction


def test_a_model_without_blocks_is_refused_with_the_remedy():
    with pytest.raises(BadConfig, match=r"fusion.dim=0.*gradients"):
        ready(direction="weights").loss(make_step(8, 2))


def test_a_head_with_blocks_can_be_compared_in_any_loop():
    class Open(LinearHead):
        def blocks(self) -> Features:
            return dict(zip(["s0", "s1"], self.linear.weight.split(8, dim=1), strict=True))

    data = Planted([2.0, 1.0])
    encoders, _ = network(2)
    head = Open(2)
    attached = Attached(CGGM(direction="weights"), encoders, head, optimizer_of(encoders, head))
    for _ in range(3):
        loss = attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y)
    assert loss.isfinite()


def test_the_residual_is_the_gradient_of_the_loss():
    z = torch.randn(16, CLASSES, requires_grad=True)
    step = make_step(16, 2)
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(z, step.target, reduction="sum"), z)
    torch.testing.assert_close(residual(step, z), gradient)
    values = make_step(16, 2, target=torch.randn(16, 1))
    z = torch.randn(16, 1, requires_grad=True)
    (gradient,) = torch.autograd.grad(((z - values.target) ** 2).sum() / 2, z)
    torch.testing.assert_close(residual(values, z), gradient)


def test_the_agreement_of_classes_is_the_mean_over_items():
    step, one, other = make_step(5, 2), torch.randn(5, CLASSES), torch.randn(5, CLASSES)
    weight = torch.tensor([0.1, 0.2, 0.0, 0.3, 0.4])
    by_hand = sum(w * (a @ b) / (a.norm() * b.norm()) for w, a, b in zip(weight, one, other, strict=True))
    torch.testing.assert_close(agreement(step, one, other, weight), by_hand)


@pytest.mark.parametrize("values", [False, True])
def test_the_direction_reaches_the_features_and_never_the_guides(values):
    target = torch.randn(16, 1) if values else None
    found = {}
    for lam in (0.0, 0.5):
        cggm, step = ready(lam=lam, outputs=1 if values else CLASSES), make_step(16, 2, target=target)
        for p in cggm.parameters():
            torch.nn.init.constant_(p, 0.3)
        cggm.loss(step).backward()
        found[lam] = [h.grad for h in step.features.values()], [p.grad for p in cggm.parameters()]
    assert all(not torch.allclose(a, b) for a, b in zip(found[0.0][0], found[0.5][0], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(found[0.0][1], found[0.5][1], strict=True))


def test_cggm_guides_learn_from_their_own_loss_alone_and_leave_the_features_alone():
    cggm, step = ready(lam=0.0), make_step(16, 2)
    for p in cggm.parameters():
        torch.nn.init.normal_(p)
    cggm.loss(step).backward()
    guided = {s: h.grad.clone() for s, h in step.features.items()}
    own = [p.grad.clone() for p in cggm.parameters()]
    plain = make_step(16, 2)
    plain.fused()[0].backward()
    assert all(torch.equal(guided[s], h.grad) for s, h in plain.features.items())
    cggm.zero_grad()
    sum(step.loss(cggm.guides[s](h.detach()), s) for s, h in step.features.items()).backward()
    for a, p in zip(own, cggm.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad)


def test_cggm_guides_have_their_own_rate():
    for balancer in (CGGM(guide_rate=0.25), BCGM(guide_rate=0.25)):
        encoders, head = network(2)
        optimizer = optimizer_of(encoders, head)
        attached = Attached(balancer, encoders, head, optimizer)
        data = Planted([1.0, 1.0])
        attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y)
        guides = {id(p) for p in balancer.parameters()}
        rates = {g["lr"] for g in optimizer.param_groups for p in g["params"] if id(p) in guides}
        assert rates == {0.025}
        assert {g["lr"] for g in optimizer.param_groups for p in g["params"] if id(p) not in guides} == {0.1}


def test_cggm_nothing_grows_with_the_steps():
    data = Planted([2.0, 1.0])
    encoders, head = network(2)
    attached = Attached(BCGM(warmup=0), encoders, head, optimizer_of(encoders, head))
    counts = []
    for steps in (3, 9):
        for _ in range(steps):
            attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y)
        gc.collect()
        counts.append(sum(issubclass(type(o), Tensor) for o in gc.get_objects()))
    assert counts[0] == counts[1]


def test_cggm_a_short_last_batch_is_no_drop_of_the_score():
    """The same items as one of 96 and as one of 4: nothing has changed."""
    data = Planted([2.0, 0.5])
    encoders, head = network(2)
    attached = Attached(CGGM(beta=0.0, guide_rate=0.0), encoders, head, optimizer_of(encoders, head))
    for repeat in (24, 1):
        x = {s: v[:4].repeat(repeat, 1) for s, v in data.x.items()}
        attached.step({s: encoders[s](v) for s, v in x.items()}, data.y[:4].repeat(repeat))
        assert [attached.trace[f"score.s{i}"] for i in range(2)] == pytest.approx([1 / CLASSES] * 2)
    assert attached.trace["k.s0"] == attached.trace["k.s1"] == pytest.approx(1.3)


def test_accuracy_counts_classes_and_signs():
    step = make_step(4, 2)
    right = torch.nn.functional.one_hot(step.target, CLASSES).float()
    assert step.right(right).tolist() == [1.0] * 4
    values = make_step(4, 2, target=torch.tensor([[-2.0], [0.0], [0.5], [3.0]]))
    assert values.right(torch.tensor([[-1.0], [0.2], [0.1], [-1.0]])).tolist() == [1.0, 0.0, 1.0, 0.0]
    scores = Scores(2, measure="accuracy")
    scores.add(step, {"s0": right, "s1": right.roll(1, 1)})
    assert (scores.sums[:, 0] / scores.sums[:, 1]).tolist() == [1.0, 0.0]


def test_an_absent_stream_has_no_part_in_its_score():
    step = make_step(4, 2)
    step.present[2:, 0] = False
    right = torch.nn.functional.one_hot(step.target, CLASSES).float()
    right[2:] = right[2:].roll(1, 1)
    scores = Scores(2, measure="accuracy")
    scores.add(step, {"s0": right, "s1": right})
    assert scores.sums.tolist() == [[2.0, 2.0], [2.0, 4.0]]


def test_multipliers_of_one_are_plain_training_bit_for_bit():
    found = []
    for balancer in (Balancer(), CGGM(rho=1.0, lam=0.0, tol=float("inf"))):
        _, encoders = train(balancer, Planted([2.0, 1.0]))
        found.append([p for e in encoders.values() for p in e.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_what_learns_most_is_slowed():
    attached, _ = train(CGGM(), Planted([3.0, 0.2]), epochs=1)
    assert attached.trace["k.s0"] < attached.trace["k.s1"]
