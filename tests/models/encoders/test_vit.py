"""The vision transformer: against the one of transformers, which pictures it reads, pretrained networks, training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny_bert import save_tiny_bert
from torch import Tensor, nn

from affuse.cli.app import main
from affuse.core import hub, io
from affuse.core.config import make_recipe
from affuse.core.errors import BadConfig, MissingDependency
from affuse.core.types import StreamSpec
from affuse.corpora.manifest import Corpus
from affuse.corpora.synthetic import make_synthetic
from affuse.features.frames import centres
from affuse.models.encoders import vit
from affuse.models.encoders.vit import ViT, spread
from affuse.training.binding import bind
from affuse.training.train import train

FACES = StreamSpec("face_crops", "vision", (24, 16, 3), 5.0)
TINY = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "patch_size": 8,
}


def make(spec: StreamSpec = FACES, **options) -> ViT:
    torch.manual_seed(0)
    return ViT(spec, **{"dim": 12, "layers": 2, "heads": 2, "expand": 2, "temporal": 1, **options}).eval()


def pictures(n: int = 3, steps: int = 6) -> tuple[Tensor, Tensor]:
    """Rows of 6, 3 and 0 valid pictures, the second with a hole."""
    mask = torch.zeros(n, steps, dtype=torch.bool)
    mask[0], mask[1, [0, 2, 3]] = True, True
    return torch.rand(n, steps, *FACES.shape, generator=torch.Generator().manual_seed(1)), mask


# ---- the network -------------------------------------------------------------------------------------------------


def reference(own: ViT, size: list[int]) -> nn.Module:
    """The ViT of transformers with the weights of our own."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(**TINY, image_size=size, layer_norm_eps=1e-5)
    made = transformers.ViTModel(config, add_pooling_layer=False).eval()
    trunk, state = own.trunk, {}
    state |= {"embeddings.cls_token": trunk.token, "embeddings.position_embeddings": trunk.place}
    named = {"embeddings.patch_embeddings.projection": trunk.patches, "layernorm": trunk.layers.last}
    for i, layer in enumerate(trunk.layers.layers):
        weights, biases = layer.project.weight.chunk(3), layer.project.bias.chunk(3)
        for name, weight, bias in zip("qkv", weights, biases, strict=True):
            state |= {f"layers.{i}.attention.{name}_proj.{k}": v for k, v in (("weight", weight), ("bias", bias))}
        named |= {f"layers.{i}.attention.o_proj": layer.out, f"layers.{i}.mlp.fc1": layer.feed[0]}
        named |= {f"layers.{i}.mlp.fc2": layer.feed[3], f"layers.{i}.layernorm_before": layer.before}
        named[f"layers.{i}.layernorm_after"] = layer.between
    state |= {f"{name}.{k}": v for name, module in named.items() for k, v in module.state_dict().items()}
    made.load_state_dict(state)
    return made


def test_class_tokens_equal_the_reference():
    own, (x, mask) = make(temporal=0, frames=0), pictures()
    own.fit([(x, mask)])
    given = own.norm(x[mask]).permute(0, 3, 1, 2)
    found = own(x, mask)
    wanted = reference(own, [24, 16])(given).last_hidden_state[:, 0]
    torch.testing.assert_close(found.tokens[mask], wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.pooled[0], wanted[:6].mean(0), rtol=1e-4, atol=1e-5)


def test_the_size_of_vit_b_16_is_the_published_one():
    """86 M parameters (Dosovitskiy et al., table 1), by formula and by the network of transformers."""
    transformers = pytest.importorskip("transformers")
    spec = StreamSpec("frames", "vision", (224, 224, 3), 1.0)
    with torch.device("meta"):
        own = ViT(spec, patch=16, dim=768, layers=12, heads=12, temporal=0)
        theirs = transformers.ViTModel(transformers.ViTConfig(), add_pooling_layer=False)
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    formula = 3 * 16 * 16 * 768 + 768 + 768 + 197 * 768 + 12 * layer + 2 * 768
    counts = [sum(p.numel() for p in m.parameters()) for m in (own, theirs)]
    assert counts == [formula, formula] == [85_798_656] * 2


def test_stochastic_depth_is_for_training_only():
    own, given = make(drop_path=0.5, dropout=0.0), pictures()
    assert torch.equal(own(*given).pooled, own(*given).pooled)
    own.train()
    assert not torch.equal(own(*given).pooled, own(*given).pooled)


def test_colours_are_standardised_on_what_is_valid():
    own, mask = make(), torch.tensor([[True, False], [True, True]])
    x = torch.tensor([0.2, 0.5, 0.9]).expand(2, 2, *FACES.shape).clone()
    x[0, 1] = 0
    own.fit([(x, mask)])
    torch.testing.assert_close(own.norm.mean, torch.tensor([0.2, 0.5, 0.9]))


# ---- which pictures ----------------------------------------------------------------------------------------------


def test_the_pictures_are_those_counted_by_hand():
    mask = torch.tensor([[True] * 6, [False, True, True, False, True, False], [False] * 6])
    step, kept = spread(mask, 2)  # of 6: the middles of 0-2 and 3-5; of 1, 2, 4: numbers 0 and 2
    assert step[:2].tolist() == [[1, 4], [1, 4]] and kept.tolist() == [[True, True], [True, True], [False, False]]
    step, kept = spread(mask, 4)  # of 6: 0.75, 2.25, 3.75, 5.25; of 3: all, once each
    assert step[0].tolist() == [0, 2, 3, 5] and step[1][kept[1]].tolist() == [1, 2, 4]
    assert kept.sum(1).tolist() == [4, 3, 0]
    step, kept = spread(mask, 0)
    assert torch.equal(kept, mask) and step[1].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("count", [1, 3, 8, 50])
def test_the_pictures_are_those_of_equal_segments(count):
    lengths = torch.arange(41)
    mask = torch.arange(40) < lengths[:, None]
    step, kept = spread(mask, count)
    assert step.shape == kept.shape == (41, min(count, 40))
    for n in lengths.tolist():
        wanted = centres(n, count) if n > count else np.arange(n)
        assert step[n][kept[n]].tolist() == wanted.tolist()


def test_only_chosen_pictures_are_computed():
    own, (x, mask) = make(frames=4), pictures()
    seen = []
    own.trunk.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    found = own(x, mask)
    assert seen == [4 + 3]
    assert found.tokens.shape == (3, 4, 12) and found.mask.sum(1).tolist() == [4, 3, 0]
    assert own.rate == 0 and not found.tokens[~found.mask].any() and not found.pooled[2].any()
    unread = torch.ones_like(mask)
    unread[0, [0, 2, 3, 5]] = unread[1, [0, 2, 3]] = False
    other = own(x.masked_fill(unread[..., None, None, None], float("nan")), mask)
    assert all(torch.equal(a, b) for a, b in zip(other, found, strict=True))
    own(x[2:], mask[2:])
    assert len(seen) == 2  # nothing to see, nothing computed


def test_all_pictures_keep_their_rate_and_place():
    (x, mask), every = pictures(), make(frames=0)
    found, some = every(x, mask), make(frames=6)(x, mask)
    assert every.rate == 5 and found.tokens.shape == (3, 6, 12) and torch.equal(found.mask, mask)
    torch.testing.assert_close(found.pooled, some.pooled, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.tokens[1, [0, 2, 3]], some.tokens[1, :3], rtol=1e-4, atol=1e-5)


def test_the_order_of_the_pictures_matters_to_the_layers_over_time():
    x, mask = pictures()
    for temporal, same in ((1, False), (0, True)):
        own = make(temporal=temporal)
        found, turned = own(x[:1], mask[:1]).pooled, own(x[:1].flip(1), mask[:1]).pooled
        assert torch.allclose(found, turned, atol=1e-5) == same


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"patch": 16}, "one of 2, 4, 8"),
        ({"patch": 0}, "patch = 0"),
        ({"frames": -1}, "frames = -1"),
        ({"temporal": -1}, "temporal = -1"),
        ({"layers": 0}, "layers=0"),
        ({"heads": 5}, "heads=5"),
        ({"frozen_layers": 0}, "frozen_layers = 0 without"),
    ],
)
def test_misfits_are_refused(options, said):
    with pytest.raises(BadConfig, match=said):
        make(**options)
    with pytest.raises(BadConfig, match="face_vectors"):
        make(StreamSpec("face_vectors", "vision", (9,), 5.0))


# ---- pretrained --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    """A random ViT for pictures of 16 x 16, in transformers' format."""
    transformers, folder = pytest.importorskip("transformers"), tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    with hub.quiet():
        transformers.ViTModel(transformers.ViTConfig(**TINY, image_size=16)).save_pretrained(folder)
    settings = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "do_normalize": True}
    io.write_json(folder / "preprocessor_config.json", settings)
    return str(folder)


@pytest.mark.parametrize("size", [16, 40])
def test_it_equals_the_pretrained_network(tiny, size):
    from transformers import AutoModel

    own = make(StreamSpec("faces", "vision", (size, size, 3), 5.0), model=tiny, temporal=0, frames=0)
    x, mask = torch.rand(2, 3, size, size, 3), torch.tensor([[True] * 3, [True, False, False]])
    own.fit([(x, mask)])  # keeps the normalisation of the folder
    given = ((x[mask] - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.4, 0.5, 0.6])).permute(0, 3, 1, 2)
    given = nn.functional.interpolate(given, (16, 16), mode="bilinear", antialias=True)
    wanted = AutoModel.from_pretrained(tiny).eval()(given).last_hidden_state[:, 0]
    found = own(x, mask)
    torch.testing.assert_close(found.tokens[mask], wanted, rtol=1e-4, atol=1e-5)
    assert own.dim == 12 and not found.tokens[~mask].any()


@pytest.mark.parametrize("frozen", [None, 0, 1, 2])
def test_what_is_frozen_stays_and_the_rest_is_trained(tiny, frozen):
    own = make(model=tiny, frozen_layers=frozen, dropout=0.5).train()
    before = {k: v.clone() for k, v in own.named_parameters()}
    assert not any("pooler" in name for name in before)
    optimizer = torch.optim.AdamW([p for p in own.parameters() if p.requires_grad], lr=0.01)
    encoding = own(*pictures())
    (encoding.pooled.square().sum() + encoding.tokens.sum()).backward()
    optimizer.step()
    still = {k for k, v in own.named_parameters() if torch.equal(v, before[k])}
    parts = () if frozen is None else ("embeddings.", *(f"network.layers.{i}." for i in range(frozen)))
    assert still == {k for k in before if any(part in k for part in parts)}
    modes = [own.trunk.network.embeddings.training, *(layer.training for layer in own.trunk.network.layers)]
    assert modes == [frozen is None, *(i >= (frozen or 0) for i in range(2))]


def test_a_saved_encoder_brings_its_weights(tiny):
    own, again = make(model=tiny), make(model=tiny)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.add_(0.1)
    again.load_state_dict(own.state_dict())
    assert torch.equal(own(*pictures()).pooled, again(*pictures()).pooled)


def test_other_networks_and_absent_ones_say_what_to_do(tiny, tmp_path, monkeypatch):
    with pytest.raises(BadConfig, match="is a 'bert', no ViT"):
        make(model=str(save_tiny_bert(tmp_path)))
    with pytest.raises(BadConfig, match="has 2 layers"):
        make(model=tiny, frozen_layers=3)

    def offline(*_: object, **__: object) -> str:
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(MissingDependency, match=r"346 MB, Apache-2\.0"):
        make(model="vit")
    monkeypatch.setattr(vit, "find_spec", lambda _: None)
    with pytest.raises(MissingDependency, match=r"affuse\[text\]"):
        make(model=tiny)
    make()  # from scratch nothing is needed


# ---- training ----------------------------------------------------------------------------------------------------


PAIRS = [("face_crops", "vit"), ("log_mel", "spectrogram")]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> str:
    """Spoken clips with some faces and sounds missing, and both streams extracted."""
    sizes = {"conversations": 8, "utterances": 6, "speakers": 16, "seconds": 1.0, "noise_vision": 0.0}
    absent = {"missing_audio": 0.1, "missing_vision": 0.1}
    made = make_synthetic(tmp_path_factory.mktemp("corpus"), labels="iemocap-4", **sizes, **absent)
    for stream, _ in PAIRS:
        assert main(["extract", str(made.path), stream]) == 0
    return str(made.path)


def recipe_of(streams: dict, epochs: int) -> dict:
    return {
        "streams": streams,
        "fusion": {"name": "concat", "dim": 0},
        "objectives": {"cross_entropy": {}},
        "optim": {"lr": 0.001},
        "train": {"epochs": epochs, "batch_size": 8, "keep": "last"},
    }


def trained(streams: dict, epochs: int, corpus: str, folder: Path) -> list[float]:
    """The losses of a run of `affuse train`, which then reads a clip."""
    run, answers = folder / "run", folder / "answers"
    io.write_json(folder / "mine.yaml", recipe_of(streams, epochs))  # JSON is YAML
    assert main(["train", str(folder / "mine.yaml"), "--corpus", corpus, "--out", str(run), "--quiet"]) == 0
    clip = str(next(Path(corpus).rglob("*.mp4")))
    assert main(["analyze", clip, "--model", str(run), "--format", "json", "--out", str(answers)]) == 0
    assert list(answers.rglob("*.json"))
    return [row["loss"] for row in io.read_jsonl(run / "metrics.jsonl")]


@pytest.mark.parametrize(("stream", "encoder"), PAIRS)
def test_a_recipe_learns(stream, encoder, corpus, tmp_path):
    small = {"name": encoder, "dim": 32, "layers": 2, "heads": 2}
    losses = trained({stream: {"encoder": small}}, 30, corpus, tmp_path)
    assert len(losses) == 30 and losses[-1] < 0.5 * losses[0], losses


def test_a_recipe_trains_a_pretrained_network(tiny, corpus, tmp_path):
    encoder = {"name": "vit", "model": tiny, "frozen_layers": 1}
    assert np.isfinite(trained({"face_crops": {"encoder": encoder}}, 2, corpus, tmp_path)).all()
    found = io.read_tensors(tmp_path / "run" / "model.safetensors")
    given, prefix = hub.load(Path(tiny)).state_dict(), "encoders.face_crops.trunk.network."
    moved = {k for k, v in given.items() if "pooler" not in k and not torch.equal(v, found[prefix + k])}
    assert moved == {k for k in given if k.startswith(("layers.1.", "layernorm."))}


def test_a_broken_run_goes_on_as_if_it_had_not_stopped(corpus, tmp_path):
    small, opened = {"dim": 8, "layers": 2, "heads": 2, "drop_path": 0.3}, Corpus.open(Path(corpus))
    streams = {stream: {"encoder": {"name": name, **small}} for stream, name in PAIRS}
    recipe = bind(make_recipe(recipe_of(streams, 3)), opened)
    train(recipe, "mine", opened, tmp_path / "straight")

    def stop(row: dict) -> None:
        if row.get("epoch") == 2 and row.get("step") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, "mine", opened, tmp_path / "broken", report=stop)
    train(recipe, "mine", opened, tmp_path / "broken")
    found, wanted = (io.read_tensors(tmp_path / name / "model.safetensors") for name in ("broken", "straight"))
    assert found.keys() == wanted.keys() and all(torch.equal(found[k], v) for k, v in wanted.items())
