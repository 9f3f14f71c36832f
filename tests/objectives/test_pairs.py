"""Contrast and matching of two streams, and what distils them: closed forms, queue, hard negatives, and old faults."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch.nn.functional import normalize

from affuse.core import registry
from affuse.core.errors import BadConfig, UnknownName
from affuse.core.labels import SPACES
from affuse.core.parts import Computed, Part
from affuse.core.tasks import Task
from affuse.core.types import Batch, StreamSpec
from affuse.layers.pairs import Queue, choose, codes, draws
from affuse.models.build import Architecture
from affuse.models.model import Model
from affuse.objectives.momentum_distillation import MomentumDistillation
from affuse.objectives.pair_contrastive import PairContrastive
from affuse.objectives.pair_matching import PairMatching
from affuse.objectives.supervised_contrastive import SupervisedContrastive
from affuse.objectives.unimodal_blend import UnimodalBlend
from affuse.training.teacher import Teacher

SPECS = (StreamSpec("sound", "audio", (6,), 10.0), StreamSpec("face", "vision", (5,), 4.0))
TASK = Task("emotion", SPACES["iemocap-4"])


def make_model(fusion: str = "cross_modal", specs=SPECS, unimodal: bool = False, **options: object) -> Model:
    torch.manual_seed(0)
    encoder = Part("mlp", registry.resolve("encoders", "mlp", {"hidden": 8, "dropout": 0.0}, "mlp"))
    given = {"dim": 8, "heads": 2, "layers": 1, "dropout": 0.0} if fusion == "cross_modal" else {}
    part = Part(fusion, registry.resolve("fusions", fusion, given | options, "fusion"))
    made = Architecture({s.name: encoder for s in specs}, part, unimodal=unimodal)
    return Model(made, specs, {"emotion": TASK}).eval()


def make_batch(n: int = 6, specs=SPECS, **named: list[str]) -> Batch:
    generator = torch.Generator().manual_seed(n)
    x = {s.name: torch.randn(n, 4, *s.shape, generator=generator) for s in specs}
    mask = {s.name: torch.ones(n, 4, dtype=torch.bool) for s in specs}
    names = {"id": [f"u{i}" for i in range(n)], "speaker": [""] * n, "source": [""] * n} | named
    target = {"emotion": torch.arange(n) % 4}
    known = {"emotion": torch.ones(n, dtype=torch.bool)}
    return Batch(specs, x, mask, torch.ones(n, len(specs), dtype=torch.bool), {}, target, known, **names)


def step(model: Model, batch: Batch, *parts: torch.nn.Module, **more: object) -> tuple[list[torch.Tensor], Counter]:
    """The item losses of the objectives one after the other, and what they counted."""
    counts: Counter[str] = Counter()
    encoded = model.encode(batch)
    computed = Computed(model, encoded, count=lambda k, v: counts.update({k: float(v)}), **more)
    output = model.fuse(encoded, batch)
    return [part(output, batch, computed) for part in parts], counts


def contrast(model: Model, **options: object) -> PairContrastive:
    part = PairContrastive(TASK, **{"dim": 4, "teacher": False, **options})
    part.setup(model)
    return part


def vectors(model: Model, batch: Batch, part: PairContrastive) -> list[np.ndarray]:
    pooled = model.encode(batch).pooled
    both = zip(part.project, (pooled[s] for s in part.pair), strict=True)
    return [normalize(linear(x), dim=1).detach().numpy().astype(float) for linear, x in both]


# ---- contrast ---------------------------------------------------------------------------------------------------


def test_the_closed_form_of_the_symmetric_loss():
    model, batch = make_model(), make_batch()
    part = contrast(model, temperature=0.2)
    (found,), _ = step(model, batch, part)
    a, b = vectors(model, batch, part)
    similar = a @ b.T / 0.2
    expected = -(np.diag(log_softmax(similar, 1)) + np.diag(log_softmax(similar.T, 1))) / 2
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_identical_vectors_cost_log_n():
    model, batch = make_model(), make_batch(7)
    part = contrast(model)
    for linear in part.project:
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.ones_(linear.bias)
    (found,), _ = step(model, batch, part)
    torch.testing.assert_close(found, torch.full((7,), math.log(7)))


def test_the_gradient_reaches_the_model_and_never_the_teacher():
    model, batch = make_model().train(), make_batch()
    part = contrast(model, teacher=True)
    teacher = Teacher(model, 0.9, averaged=part.averaged)
    (found,), _ = step(model, batch, part, teacher=teacher.taught(batch))
    found.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.project.parameters())
    assert not any(p.requires_grad for p in [*part.taught.parameters(), *teacher.model.parameters()])
    shared = {p.data_ptr() for p in [*model.parameters(), *part.project.parameters()]}
    assert not shared & {p.data_ptr() for p in [*teacher.model.parameters(), *part.taught.parameters()]}


def test_the_copies_of_the_projections_follow_like_the_teacher():
    model = make_model()
    part = contrast(model, teacher=True)
    teacher = Teacher(model, 0.9, "constant", averaged=part.averaged)
    before = [p.clone() for p in part.taught.parameters()]
    with torch.no_grad():
        for p in part.project.parameters():
            p.add_(1)
    for _ in range(3):
        teacher.update()
    for p, old in zip(part.taught.parameters(), before, strict=True):
        torch.testing.assert_close(p, old * 0.9**3 + (old + 1) * (1 - 0.9**3))


@pytest.mark.parametrize("sizes", [[3, 5, 1, 7], [8], [11, 2], [1] * 20])
def test_a_queue_holds_the_last_rows_for_any_size_of_batch(sizes):
    queue, pushed = Queue(8, 2, ("a",), ("id",)), torch.zeros(0, 2)
    assert len(queue.read()["a"]) == 0
    for n in sizes:
        rows = torch.arange(len(pushed), len(pushed) + n).float().unsqueeze(1).expand(-1, 2)
        queue.push({"a": rows, "id": rows[:, 0].long()})
        pushed = torch.cat([pushed, rows])
        found = queue.read()
        assert sorted(found["a"][:, 0].tolist()) == sorted(pushed[-8:, 0].tolist())
        assert torch.equal(found["a"][:, 0].long(), found["id"])


def test_a_queue_gives_negatives_to_a_batch_of_one_and_fills_after_the_step():
    model = make_model()
    part = contrast(model, queue=5).train()
    (alone,), counts = step(model, make_batch(1), part)
    assert alone.tolist() == [0.0] and counts["without_negative"] == 1
    part.stepped()
    other = replace(make_batch(1), id=["other"])
    (found,), counts = step(model, other, part)
    assert found.item() > 0 and counts["without_negative"] == 0


def test_an_utterance_in_the_queue_is_no_negative_of_itself():
    model, batch = make_model(), make_batch(1)
    part = contrast(model, queue=5).train()
    step(model, batch, part)
    part.stepped()
    (found,), counts = step(model, batch, part)
    torch.testing.assert_close(found, torch.full((1,), math.log(2)))  # two keys of the same vector share the target
    assert counts["without_negative"] == 1


@pytest.mark.parametrize("negatives", ["other_speaker", "other_source"])
def test_what_shares_a_speaker_or_source_is_left_out(negatives):
    named = {negatives.removeprefix("other_"): ["x", "x", "y", "", ""]}
    model, batch = make_model(), make_batch(5, **named)
    part = contrast(model, negatives=negatives, temperature=0.2)
    (found,), _ = step(model, batch, part)
    a, b = vectors(model, batch, part)
    similar = a @ b.T / 0.2
    similar[0, 1] = similar[1, 0] = -np.inf  # an empty name is nobody
    expected = -(np.diag(log_softmax(similar, 1)) + np.diag(log_softmax(similar.T, 1))) / 2
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_share_of_the_negatives_is_of_the_same_speaker(share):
    model, batch = make_model(), make_batch(5, speaker=["x", "x", "x", "y", "z"])
    part = contrast(model, negatives="same_speaker", share=share, temperature=0.3)
    (found,), counts = step(model, batch, part)
    a, b = vectors(model, batch, part)
    weight = np.ones((5, 5))
    same = np.array([[i < 3 and j < 3 and i != j for j in range(5)] for i in range(5)])
    other = ~same & ~np.eye(5, dtype=bool)
    for i in range(3):
        weight[i, same[i]], weight[i, other[i]] = share * 4 / 2, (1 - share) * 4 / 2
    with np.errstate(divide="ignore"):
        each = [log_softmax(s + np.log(weight), 1) for s in (a @ b.T / 0.3, b @ a.T / 0.3)]
    expected = -(np.diag(each[0]) + np.diag(each[1])) / 2
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    assert counts["without_same_speaker"] == 2


def test_a_clip_that_lacks_a_stream_is_in_no_pair():
    model, batch = make_model(), make_batch()
    part = contrast(model)
    lacking = replace(batch, present=batch.present & (torch.arange(6) != 2).unsqueeze(1) | torch.tensor([True, False]))
    (found,), counts = step(model, lacking, part)
    kept = [0, 1, 3, 4, 5]
    rest = replace(
        batch,
        x={k: v[kept] for k, v in batch.x.items()},
        mask={k: v[kept] for k, v in batch.mask.items()},
        present=batch.present[kept],
        id=[batch.id[i] for i in kept],
        speaker=[""] * 5,
        source=[""] * 5,
    )
    (expected,), _ = step(model, rest, part)
    torch.testing.assert_close(found[kept], expected)
    assert found[2] == 0 and part.weights(lacking).tolist() == [1, 1, 0, 1, 1, 1] and counts["without_pair"] == 1


def test_a_batch_without_any_pair_costs_nothing_and_is_counted():
    model, batch = make_model(), make_batch()
    bare = batch.without({"face"})
    losses, counts = step(model, bare, contrast(model), matching(model))
    assert all(loss.tolist() == [0.0] * 6 for loss in losses) and counts["without_pair"] == 6


def test_a_learned_temperature_stays_within_its_limits():
    model, batch = make_model(), make_batch()
    part = contrast(model)
    with torch.no_grad():
        part.log_temperature.fill_(10.0)
    step(model, batch, part)
    assert part.log_temperature.exp().item() == pytest.approx(0.5)
    with pytest.raises(BadConfig, match="temperature"):
        PairContrastive(TASK, temperature=0.0)


def test_streams_are_two_of_the_model():
    three = (*SPECS, StreamSpec("words", "text", (3,)))
    with pytest.raises(BadConfig, match="compares two streams"):
        contrast(make_model(specs=three))
    with pytest.raises(UnknownName, match="face"):
        contrast(make_model(), streams=("sound", "fce"))
    assert contrast(make_model(specs=three), streams=("words", "face")).pair == ("words", "face")


# ---- matching ---------------------------------------------------------------------------------------------------


def matching(model: Model, **options: object) -> PairMatching:
    part = PairMatching(TASK, **{"hidden": 8, **options})
    part.setup(model)
    return part


def test_the_matching_loss_is_the_mean_over_the_true_and_two_foreign_pairs():
    model, batch = make_model(), make_batch()
    first, part = contrast(model), matching(model)
    (_, found), _ = step(model, batch, first, part)
    encoded = model.encode(batch)
    computed = Computed(model, encoded)
    first(model.fuse(encoded, batch), batch, computed)
    j, k, alone = part.others(codes(batch.id), codes(batch.id), computed)
    assert not alone.any()
    each = [
        -part.head(model.fuse(e, batch).fused.pooled).log_softmax(1)[:, truth]
        for e, truth in ((encoded, 1), (encoded.repaired("face", j), 0), (encoded.repaired("sound", k), 0))
    ]
    torch.testing.assert_close(found, torch.stack(each).mean(0))


def test_a_hard_negative_is_never_the_utterance_itself_and_follows_similarity():
    model, batch = make_model(), make_batch(5)
    part = matching(model)
    similar = torch.zeros(5, 5)
    similar[0, 3] = 6.0  # one very similar impostor
    encoded = model.encode(batch)
    computed = Computed(model, encoded)
    first = contrast(model)
    first(model.fuse(encoded, batch), batch, computed)
    pairs = computed.pairs[part.pair]
    own, drawn = codes(batch.id), []
    for number in range(1000):
        given = {part.pair: replace(pairs, similar=(similar, torch.zeros(5, 5)))}
        j, k, _ = part.others(own, own, replace(computed, pairs=given, step=number))
        drawn.append(torch.stack([j, k]))
    found = torch.stack(drawn)
    assert not (found == torch.arange(5)).any()
    assert (found[:, 0, 0] == 3).float().mean() > 0.9
    share = torch.bincount(found[:, 1, 1], minlength=5) / 1000
    torch.testing.assert_close(share[[0, 2, 3, 4]], torch.full((4,), 0.25), rtol=0, atol=0.06)


def test_a_draw_does_not_depend_on_the_rest_of_the_batch():
    one, many = codes(["a", "b"]), codes(["x", "b", "y", "a"])
    torch.testing.assert_close(draws(one, many, 7)[:, [3, 1]], draws(one, one, 7))
    assert not torch.equal(draws(one, many, 7), draws(one, many, 8))
    uniform = draws(codes([str(i) for i in range(300)]), codes([str(i) for i in range(300)]), 1).flatten().numpy()
    assert abs(uniform.mean() - 0.5) < 0.01 and abs(uniform.var() - 1 / 12) < 0.002
    scores = torch.tensor([[0.0, 1.0, 2.0]]).expand(4000, -1)
    found = torch.bincount(choose(scores, torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)))) / 4000
    np.testing.assert_allclose(found.numpy(), softmax([0, 1, 2]), atol=0.03)


def test_one_utterance_has_nobody_to_be_mistaken_for():
    model = make_model()
    (_, found), counts = step(model, make_batch(1), contrast(model), matching(model))
    assert found.tolist() == [0.0] and counts["without_negative"] == 2  # once by each objective


@pytest.mark.parametrize("fusion", ["cross_modal", "concat"])
def test_the_head_tells_matched_from_mismatched(fusion):
    """A linear score of joined vectors cannot: it has no term of both streams."""
    torch.manual_seed(0)
    specs = (StreamSpec("sound", "audio", (4,), 4.0), StreamSpec("face", "vision", (4,), 4.0))
    model = make_model(fusion, specs).train()
    part = matching(model, negatives="random", hidden=32).train()
    optimizer = torch.optim.AdamW([*model.parameters(), *part.parameters()], lr=3e-3)
    kind = torch.arange(32) % 2
    losses = []
    for number in range(200):
        batch = make_batch(32, specs)
        sign = (kind * 2.0 - 1).view(-1, 1, 1)
        batch.x = {k: sign + 0.1 * torch.randn_like(v) for k, v in batch.x.items()}
        batch.id = [f"{number}-{i}" for i in range(32)]
        (loss,), _ = step(model, batch, part, step=number)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        losses.append(loss.mean().item())
    # half of the random negatives are of the same kind, which nothing tells apart: the best is .578 (by hand)
    best = (-math.log(0.5) + 2 * (0.5 * -math.log(0.5))) / 3
    assert np.mean(losses[:5]) > 0.62 and np.mean(losses[-20:]) < best + 0.05


def test_foreign_sound_changes_the_score():
    model, batch = make_model(), make_batch()
    encoded, part = model.encode(batch), matching(model)
    own = part.head(model.fuse(encoded, batch).fused.pooled)
    other = part.head(model.fuse(encoded.repaired("sound", torch.tensor([1, 2, 3, 4, 5, 0])), batch).fused.pooled)
    assert (own - other).abs().max() > 1e-4


@pytest.mark.parametrize("fusion", ["late"])
def test_a_fusion_of_decisions_is_refused(fusion):
    with pytest.raises(BadConfig, match="joins decisions"):
        matching(make_model(fusion, unimodal=True))


# ---- distillation -----------------------------------------------------------------------------------------------


def test_the_target_is_a_share_of_label_and_teacher():
    model, batch = make_model(), make_batch()
    teacher = Teacher(model, 0.9)
    with torch.no_grad():
        for p in teacher.model.parameters():
            p.mul_(1.3)
    part = MomentumDistillation(TASK, alpha=0.4, ramp=0.0)
    part.setup(model)
    (found,), _ = step(model, batch, part, teacher=teacher.taught(batch))
    logits = model(batch).logits["emotion"]
    q = teacher.model(batch).logits["emotion"].softmax(1)
    torch.testing.assert_close(q.sum(1), torch.ones(6))
    hard = torch.nn.functional.cross_entropy(logits, batch.target["emotion"], reduction="none")
    soft = torch.nn.functional.cross_entropy(logits, q, reduction="none")
    torch.testing.assert_close(hard + found, 0.6 * hard + 0.4 * soft)


def test_without_a_label_the_teacher_alone_teaches_where_it_is_sure():
    model, batch = make_model(), make_batch()
    teacher = Teacher(model, 0.9)
    batch.target_mask["emotion"][:3] = False
    q = model(batch).logits["emotion"].softmax(1)
    sure = float(q.amax(1)[:3].median())
    part = MomentumDistillation(TASK, alpha=0.4, ramp=0.0, items="unlabelled", confidence=sure)
    part.setup(model)
    (found,), counts = step(model, batch, part, teacher=teacher.taught(batch))
    assert part.weights(batch).tolist() == [1, 1, 1, 0, 0, 0]
    entropy = -(q * q.log()).sum(1)
    kept = q.amax(1)[:3] >= sure
    torch.testing.assert_close(found[:3], 0.4 * entropy[:3] * kept)
    assert counts["sure"] == 2 and counts["unsure"] == 1


def test_alpha_rises_in_a_line():
    model, batch = make_model(), make_batch()
    teacher = Teacher(model, 0.9)
    part = MomentumDistillation(TASK, alpha=0.4, ramp=0.5)
    part.setup(model)
    each = [
        step(model, batch, part, teacher=teacher.taught(batch), step=k, steps=100)[0][0].sum().item()
        for k in (0, 25, 50, 99)
    ]
    assert each[0] == 0 and each[2] == pytest.approx(each[3]) and each[1] == pytest.approx(each[2] / 2)


def test_a_contrast_is_distilled_into_the_same_keys():
    model, batch = make_model(), make_batch()
    first = contrast(model, teacher=True, temperature=0.2)
    teacher = Teacher(model, 0.9, averaged=first.averaged)
    with torch.no_grad():
        for p in teacher.model.parameters():
            p.mul_(1.3)
    part = MomentumDistillation(TASK, alpha=0.4, ramp=0.0, streams=("sound", "face"))
    part.setup(model)
    (hard, found), _ = step(model, batch, first, part, teacher=teacher.taught(batch))
    a, b = vectors(model, batch, first)
    at, bt = vectors(teacher.model, batch, first)
    expected = np.zeros(6)
    for own, seen, keys in ((a, at, bt), (b, bt, at)):
        q = 0.4 * softmax(seen @ keys.T / 0.2, 1) + 0.6 * np.eye(6)
        expected -= (q * log_softmax(own @ keys.T / 0.2, 1)).sum(1) / 2
    np.testing.assert_allclose((hard + found).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


# ---- by class, by stream ----------------------------------------------------------------------------------------


def test_the_supervised_contrast_is_equation_2():
    model, batch = make_model(), make_batch(7)
    part = SupervisedContrastive(TASK, dim=4, temperature=0.5)
    part.setup(model)
    (found,), counts = step(model, batch, part)
    z = normalize(part.project[0](model(batch).fused.pooled), dim=1).detach().numpy()
    label = np.arange(7) % 4
    for i in range(7):
        others = [a for a in range(7) if a != i]
        like = [a for a in others if label[a] == label[i]]
        log_p = log_softmax(z[i] @ z[others].T / 0.5)
        expected = -np.mean([log_p[others.index(p)] for p in like]) if like else 0.0
        assert found[i].item() == pytest.approx(expected, abs=1e-5)
    assert counts["alone"] == 1  # class 3 has one utterance


def test_the_blend_weighs_each_stream_that_is_there():
    model, batch = make_model(unimodal=True), make_batch()
    batch.present[1, 0] = False
    part = UnimodalBlend(TASK, weights={"face": 0.3})
    part.setup(model)
    (found,), _ = step(model, batch, part)
    each = model(batch).unimodal
    loss = {
        s: torch.nn.functional.cross_entropy(each[s]["emotion"], batch.target["emotion"], reduction="none")
        for s in each
    }
    expected = loss["sound"] * batch.present[:, 0] + 0.3 * loss["face"]
    torch.testing.assert_close(found, expected)
    with pytest.raises(UnknownName, match="face"):
        UnimodalBlend(TASK, weights={"fce": 0.3}).setup(model)
