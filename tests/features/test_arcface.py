"""ArcFace: weights of both families from either kind of file, aligned faces, vectors of unit length."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from affuse.core.errors import BadFeatures, MissingDependency
from affuse.features.arcface import ArcFace
from affuse.layers.iresnet import IResNet
from affuse.media.clip import Clip


def state(units: tuple[int, ...] = (1, 1, 1, 1), dim: int = 512) -> dict[str, torch.Tensor]:
    """Random weights under face.evoLVe's names, for pictures of 32 pixels."""
    torch.manual_seed(0)
    ours = IResNet(units, insight=False, grid=2, dim=dim).state_dict()
    rules = (
        ("stem.", "input_layer."), ("head.", "output_layer."), (".body.", ".res_layer."),
        (".shortcut.", ".shortcut_layer."), ("units.", "body."),
    )
    names = {}
    for key in ours:
        name = key
        for a, b in rules:
            name = name.replace(a, b)
        names[name] = ours[key]
    return names


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ir") / "ir.safetensors"
    save_file(state(), path)
    return path


def test_files_of_either_kind_are_one(weights: Path, tmp_path: Path) -> None:
    faces = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    torch.save({"state_dict": state(), "epoch": 3}, tmp_path / "ir.pth")
    a, b = ArcFace(weights=weights).embed(faces), ArcFace(weights=tmp_path / "ir.pth").embed(faces)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(ArcFace(weights=weights).embed(faces[1:2]), a[1:2], atol=1e-5)
    raw = ArcFace(weights=weights, unit=False).embed(faces)
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), a, atol=1e-5)
    x = (torch.from_numpy(faces).permute(0, 3, 1, 2) - 127.5) / 128
    np.testing.assert_allclose(
        ArcFace(weights=weights, unit=False, divisor=128.0).embed(faces), ArcFace(weights=weights).network(x), atol=1e-5
    )


def test_what_is_no_network_is_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match=r"an IR network's weights.*170 MB"):
        _ = ArcFace().weights_hash
    with pytest.raises(BadFeatures, match="sha256 is"):
        _ = ArcFace(weights=weights, sha256="0" * 64).weights_hash
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(print, protocol=2))
    with pytest.raises(BadFeatures, match="could run code"):
        _ = ArcFace(weights=tmp_path / "evil.pth").network
    save_file(state(dim=64), tmp_path / "small.safetensors")
    with pytest.raises(BadFeatures, match="64 numbers per face"):
        _ = ArcFace(weights=tmp_path / "small.safetensors").network


def test_spec_reads_nothing() -> None:
    assert ArcFace(weights=Path("nowhere.pth"), fps=2.0).spec.shape == (512,)
    assert ArcFace(weights=Path("nowhere.pth"), fps=2.0).spec.rate == 2.0
    assert ArcFace(pool="mean").spec.rate == 0.0


def test_faces_of_a_clip(weights: Path, shared_data: Path) -> None:
    extractor = ArcFace(weights=weights, fps=2.0)
    clip = Clip(shared_data / "av_clips" / "pyfeat__face_noface.mov")
    feature = extractor(clip)
    assert feature.values.shape == (13, 512)
    assert feature.valid is not None and 0.2 < feature.valid.mean() < 0.6
    assert not feature.values[~feature.valid].any()
    mean = ArcFace(weights=weights, fps=2.0, pool="mean")(clip)
    np.testing.assert_allclose(mean.values[0], feature.values[feature.valid].mean(0), atol=1e-6)
    assert mean.valid is None
    nobody = ArcFace(weights=weights, fps=2.0, pool="mean")(Clip(shared_data / "av_clips" / "pyfeat__no_face.mp4"))
    assert nobody.values.shape == (0, 512)
    assert extractor(Clip(text="words")).values.shape == (0, 512)
