"""Late fusion: mixture by entropy, one head for all streams, subsets, losses of the streams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.parts import CANDIDATES, random_batch

from affuse.core import io, registry
from affuse.core.errors import BadConfig
from affuse.core.labels import SPACES
from affuse.core.parts import Part
from affuse.core.tasks import Task
from affuse.core.types import Encoded
from affuse.models.build import Architecture
from affuse.models.fusions.late import Late
from affuse.models.model import Model
from affuse.models.predict import predict_subsets
from affuse.models.saved import describe, load_model

STREAMS = (CANDIDATES[1], CANDIDATES[3], CANDIDATES[4])
SPACE = SPACES["iemocap-4"]
PRESENT = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [False, False, False]])


def encoded(present):
    return Encoded(("a", "b", "c"), {}, {}, {}, present)


def make(fusion, space=SPACE, unimodal=False, context=(), **options):
    torch.manual_seed(0)
    encoder = Part("mlp", registry.resolve("encoders", "mlp", {}, "mlp"))
    chosen = Part(fusion, registry.resolve("fusions", fusion, options, fusion))
    parts = Architecture({s.name: encoder for s in STREAMS}, chosen, tuple(context), unimodal)
    return Model(parts, STREAMS, {"emotion": Task("emotion", space)})


class OneBatch:
    def __init__(self, batch):
        self.batch = batch

    def parts(self, size, whole):
        yield np.arange(len(self.batch)), self.batch


def test_the_mixture_by_entropy_is_its_equation():
    torch.manual_seed(0)
    logits = 3 * torch.randn(4, 3, 5)
    found = Late({"a": 1, "b": 1, "c": 1}, how="entropy").combine(logits, encoded(PRESENT))
    for row in range(3):
        p = [np.exp(z) / np.exp(z).sum() for z in logits[row, PRESENT[row]].double().numpy()]
        weight = np.exp([(q * np.log(q)).sum() for q in p])
        expected = sum(w * q for w, q in zip(weight / weight.sum(), p, strict=True))
        np.testing.assert_allclose(found[row].softmax(0).numpy(), expected, rtol=1e-5)
    assert (found[3] == 0).all()


def test_the_mixture_is_finite_with_its_gradient_for_extreme_logits():
    logits = (1e4 * torch.randn(4, 3, 5)).requires_grad_()
    found = Late({"a": 1, "b": 1, "c": 1}, how="entropy").combine(logits, encoded(PRESENT))
    found.log_softmax(-1)[:, 0].sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[~PRESENT] == 0).all()


@pytest.mark.parametrize("how", ["sum", "mean", "entropy"])
def test_the_order_of_streams_does_not_matter(how):
    logits, part = torch.randn(4, 3, 5), Late({"a": 1, "b": 1, "c": 1}, how=how)
    turned = part.combine(logits[:, [2, 0, 1]], encoded(PRESENT[:, [2, 0, 1]]))
    torch.testing.assert_close(turned, part.combine(logits, encoded(PRESENT)))


def test_one_head_for_all_streams_is_kept_once(tmp_path):
    model, apart = make("late", shared=True).eval(), make("late")
    heads = [key for key in model.state_dict() if key.startswith("stream_heads")]
    assert heads == ["stream_heads.every.emotion.weight", "stream_heads.every.emotion.bias"]
    assert len([k for k in apart.state_dict() if k.startswith("stream_heads")]) == 6
    batch = random_batch(STREAMS, 5, len(SPACE))
    output = model(batch)
    pooled, head = model.encode(batch).pooled, model.stream_heads["every"]["emotion"]
    assert list(output.unimodal) == [s.name for s in STREAMS]
    for name, own in output.unimodal.items():
        torch.testing.assert_close(own["emotion"], head(pooled[name]))
    io.write_tensors(tmp_path / "model.safetensors", model.state_dict())
    io.write_json(tmp_path / "model.json", describe(model))
    again = load_model(io.read_json(tmp_path / "model.json"), tmp_path / "model.safetensors")
    assert torch.equal(again(batch).logits["emotion"], output.logits["emotion"])


def test_one_head_for_streams_of_different_widths_is_refused():
    with pytest.raises(BadConfig, match="sound 4, face 3"):
        Late({"sound": 4, "face": 3}, shared=True)


@pytest.mark.parametrize(("fusion", "options"), [("late", {"how": "entropy"}), ("cosine", {})])
def test_values_are_refused_where_they_mean_nothing(fusion, options):
    with pytest.raises(BadConfig, match="values"):
        make(fusion, SPACES["vad"], **options)


@pytest.mark.parametrize("fusion", ["late", "cosine", "experts"])
def test_a_context_cannot_follow_decisions(fusion):
    with pytest.raises(BadConfig, match=r"attention.*hybrid"):
        make(fusion, context=[Part("recurrent", {"stands": "after"})])


@pytest.mark.parametrize(
    ("fusion", "options"),
    [
        ("late", {"how": "mean"}),
        ("late", {"how": "entropy"}),
        ("late", {"shared": True}),
        ("late", {"how": "entropy", "shared": True}),
        ("cosine", {"scale": 4.0}),
        *(("hybrid", {"how": how}) for how in ("concat", "gated", "sum", "attention")),
    ],
)
def test_subsets_and_losses_of_streams(fusion, options):
    model, batch = make(fusion, **options), random_batch(STREAMS, 8, len(SPACE))
    for row in range(6):
        batch.present[row, row % 3] = False
    loss = registry.build("objectives", "cross_entropy", Task("emotion", SPACE), unimodal=0.5)
    loss(model(batch), batch).sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    assert [name for name, g in grads.items() if g is None or not g.any() or not g.isfinite().all()] == []
    subsets = [None, {"audio"}, {"vision", "text"}, set()]
    answers = predict_subsets(model, OneBatch(batch), torch.device("cpu"), subsets)
    for found, subset in zip(answers, subsets, strict=True):
        assert np.isfinite(found["emotion"]).all()
        np.testing.assert_allclose(found["emotion"].sum(1), 1, rtol=1e-5)
        gone = {s.name for s in STREAMS if subset is not None and s.modality not in subset}
        with torch.no_grad():
            model.eval()
            expected = model(batch.without(gone)).logits["emotion"].softmax(-1)
        np.testing.assert_allclose(found["emotion"], expected, rtol=1e-4, atol=1e-6)


def test_weighted_is_one_learned_number_per_stream_for_all_classes():
    """The published late fusion of MMER: a linear layer from three logits to one, without bias."""
    fusion = Late({"a": 2, "b": 2, "c": 2}, how="weighted")
    logits = torch.randn(4, 3, 5)
    torch.testing.assert_close(fusion.combine(logits, encoded(PRESENT)), (logits * PRESENT.unsqueeze(-1)).sum(1))
    with torch.no_grad():
        fusion.weight.copy_(torch.tensor([0.5, 2.0, -1.0]))
    expected = (logits * PRESENT.unsqueeze(-1) * torch.tensor([0.5, 2.0, -1.0])[:, None]).sum(1)
    torch.testing.assert_close(fusion.combine(logits, encoded(PRESENT)), expected)
    fusion.combine(logits, encoded(PRESENT)).square().sum().backward()
    assert fusion.weight.grad is not None and fusion.weight.grad.all()
