"""Vision transformers on faces and frames: the model's own numbers, own preparation, flat memory, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affuse.core.errors import BadConfig, MissingDependency
from affuse.features.image_model import KNOWN, ImageModel
from affuse.features.networks import pretrained
from affuse.features.networks.pictures import Preparation
from affuse.media.clip import Clip
from affuse.media.write import write_clip

transformers = pytest.importorskip("transformers")
SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
PICTURE = {"image_size": 32, "patch_size": 8}
FAMILIES = {
    "ViT": ("ViTConfig", "ViTModel", {**SIZES, **PICTURE}, 1),
    "ViT classifier": ("ViTConfig", "ViTForImageClassification", {**SIZES, **PICTURE}, 1),
    "DINOv2": ("Dinov2Config", "Dinov2Model", {**SIZES, **PICTURE}, 1),
    "registers": (
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersModel",
        {**SIZES, **PICTURE, "num_register_tokens": 3},
        4,
    ),
    "BEiT": ("BeitConfig", "BeitModel", {**SIZES, **PICTURE}, 1),
    "CLIP tower": ("CLIPVisionConfig", "CLIPVisionModel", {**SIZES, **PICTURE}, 1),
}


def save(folder: Path, family: str = "ViT", **said: Any) -> Path:
    """A random model of a family in transformers' format, with preprocessor_config.json if anything is `said`."""
    torch.manual_seed(0)
    config, model, sizes, _ = FAMILIES[family]
    with pretrained.quiet():
        getattr(transformers, model)(getattr(transformers, config)(**sizes)).save_pretrained(folder)
    if said:
        (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


def pictures(n: int = 5, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save(tmp_path_factory.mktemp("vit")))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 s of 64 x 96 noise that changes every frame, 10 fps."""
    path, rng = tmp_path_factory.mktemp("film") / "film.mp4", np.random.default_rng(1)
    noise = (np.kron(rng.integers(0, 256, (8, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(40))
    write_clip(path, noise, 10)
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_are_the_models_own(family: str, tmp_path: Path) -> None:
    save(tmp_path, family, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4], size={"height": 32, "width": 32})
    x = pictures(3)
    fed = (torch.from_numpy(x).float() / 255 - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.2, 0.3, 0.4])
    network = pretrained.load(tmp_path)
    with torch.inference_mode():
        out = network(pixel_values=fed.permute(0, 3, 1, 2), output_hidden_states=True)
    first, states = FAMILIES[family][3], out.hidden_states
    extractor = ImageModel(model=str(tmp_path))
    assert extractor.spec.shape == (16,)
    np.testing.assert_allclose(extractor.embed(x), out.last_hidden_state[:, 0], atol=1e-5)
    mean = ImageModel(model=str(tmp_path), token="mean", layers=(1, 2), weights=(3.0, 1.0))
    expected = (0.75 * states[1] + 0.25 * states[2])[:, first:].mean(1)
    np.testing.assert_allclose(mean.embed(x), expected, atol=1e-5)
    assert len(states) == 4


def test_the_picture_half_of_clip(tmp_path: Path) -> None:
    words = {
        "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9,
    }
    config = transformers.CLIPConfig(text_config=words, vision_config={**SIZES, **PICTURE}, projection_dim=4)
    torch.manual_seed(0)
    whole = transformers.CLIPModel(config).eval()
    whole.save_pretrained(tmp_path)
    extractor = ImageModel(model=str(tmp_path))
    with torch.inference_mode():
        fed = extractor._source.preparation.to_tensor(pictures())
        expected = whole.vision_model(pixel_values=fed).last_hidden_state[:, 0]
    assert extractor.spec.shape == (16,)
    np.testing.assert_allclose(extractor.embed(pictures()), expected, atol=1e-5)


def test_batches_change_nothing_and_other_sizes_are_interpolated(tmp_path: Path) -> None:
    for family in ("ViT", "DINOv2", "CLIP tower"):
        folder = save(tmp_path / family, family, size=48)
        extractor = ImageModel(model=str(folder))
        together = extractor.embed(pictures(5, 48))
        assert together.shape == (5, 16)
        np.testing.assert_allclose(extractor.embed(pictures(5, 48)[2:3]), together[2:3], atol=1e-5)


@pytest.mark.parametrize(
    ("said", "size", "resize"),
    [
        ({}, 32, (32, 32)),
        ({"size": 24}, 24, (24, 24)),
        ({"size": 28, "crop_size": 24, "do_center_crop": True}, 24, 28),
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 24, "width": 24}, "do_center_crop": True}, 24, 40),
        ({"size": 24, "crop_size": 20, "do_center_crop": False}, 24, (24, 24)),
    ],
)
def test_sizes_as_the_processors_mean_them(tmp_path: Path, said: dict[str, Any], size: int, resize: Any) -> None:
    ready = Preparation.of(save(tmp_path, **said))
    assert (ready.size, ready.resize) == (size, resize)
    assert ready.to_square(pictures(1, 50)[0]).shape == (size, size, 3)


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("shape", [(90, 140), (140, 90), (20, 30)])
def test_frames_are_resized_as_pil_does(tmp_path: Path, resample: int, shape: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image")
    frame = np.random.default_rng(2).integers(0, 256, (*shape, 3), dtype=np.uint8)
    said = {"size": {"shortest_edge": 40}, "crop_size": 32, "do_center_crop": True, "resample": resample}
    height, width = (40 if n == min(shape) else int(40 * n / min(shape)) for n in shape)
    resized = np.asarray(image.fromarray(frame).resize((width, height), resample))
    top, left = (height - 32) // 2, (width - 32) // 2
    mine = Preparation.of(save(tmp_path, **said)).to_square(frame)
    assert np.abs(mine.astype(int) - resized[top : top + 32, left : left + 32]).max() <= 1


def test_frames_of_a_clip(vit: str, film: Path) -> None:
    extractor = ImageModel(model=vit, view="frame", fps=5.0)
    feature = extractor(Clip(film))
    assert feature.values.shape == (20, 16)
    assert feature.coverage == 1.0
    assert feature.t0 == 0.0
    assert extractor.spec.rate == 5.0
    later = extractor(Clip(film, start=1.0, end=2.0))
    np.testing.assert_allclose(later.values, feature.values[5:10], atol=1e-5)
    frame = next(iter(Clip(film).frames(5.0, 640))).image
    np.testing.assert_allclose(
        extractor.embed(extractor._source.preparation.to_square(frame)[None]), feature.values[:1], atol=1e-5
    )


def test_one_mean_vector_and_absence(vit: str, film: Path) -> None:
    pooled = ImageModel(model=vit, view="frame", pool="mean")
    feature = pooled(Clip(film))
    assert feature.values.shape == (1, 16)
    assert pooled.spec.rate == 0.0
    np.testing.assert_allclose(
        feature.values[0], ImageModel(model=vit, view="frame")(Clip(film)).values.mean(0), atol=1e-6
    )
    assert pooled(Clip(text="words")).values.shape == (0, 16)
    nobody = ImageModel(model=vit)(Clip(film))
    assert nobody.values.shape == (20, 16)
    assert nobody.coverage == 0.0 and not nobody.values.any()
    assert ImageModel(model=vit, pool="mean")(Clip(film)).values.shape == (0, 16)


def test_faces_are_masked_where_there_is_none(vit: str, shared_data: Path) -> None:
    extractor = ImageModel(model=vit, fps=2.0)
    clip = Clip(shared_data / "av_clips" / "pyfeat__face_noface.mov")
    feature, crops = extractor(clip), extractor._source.crops(clip)
    assert crops.valid is not None
    np.testing.assert_array_equal(feature.valid, crops.valid)
    assert 0.2 < crops.valid.mean() < 0.6
    np.testing.assert_allclose(feature.values[crops.valid], extractor.embed(crops.values[crops.valid]), atol=1e-5)


def test_few_pictures_at_a_time(vit: str, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor, seen = ImageModel(model=vit, view="frame", fps=10.0), []
    embed = extractor.embed
    monkeypatch.setattr(extractor, "embed", lambda images: seen.append(len(images)) or embed(images))
    assert len(extractor(Clip(film)).values) == 40
    assert seen == [16, 16, 8]


def test_spec_reads_the_config_only(vit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "load", lambda *_, **__: pytest.fail("weights were read"))
    assert ImageModel(model=vit).spec.shape == (16,)


def test_misfits_are_refused(vit: str, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="no layer 7"):
        ImageModel(model=vit, layers=(7,)).embed(pictures(1))
    folder = save(tmp_path / "wide", size={"height": 32, "width": 48})
    with pytest.raises(BadConfig, match="32 x 48"):
        ImageModel(model=str(folder)).embed(pictures(1))
    config = transformers.BertConfig(**SIZES, vocab_size=9)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(BadConfig, match="no plain vision transformer"):
        _ = ImageModel(model=str(tmp_path / "bert")).spec


@pytest.mark.parametrize("model", [*KNOWN, "nobody/no-such-model"])
def test_absent_model_says_how_to_get_it(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def offline(*_: object, **__: object) -> str:
        raise hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(MissingDependency, match=r"MB, Apache-2\.0|MB, MIT") as caught:
        _ = ImageModel(model=model).spec
    assert model in str(caught.value)
