"""VideoMAE on windows: which frames go in, when a window counts, the model's own numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from affuse.core.errors import BadConfig, MissingDependency
from affuse.features.networks import pretrained
from affuse.features.video_model import VideoModel, number, windows
from affuse.media.clip import Clip
from affuse.media.write import write_clip

transformers = pytest.importorskip("transformers")
LENGTH = 4


@pytest.fixture(scope="module")
def mae(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random VideoMAE for windows of 4 frames of 16 pixels."""
    folder = tmp_path_factory.mktemp("mae")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.VideoMAEConfig(
        **sizes, num_frames=LENGTH, image_size=16, patch_size=8, use_mean_pooling=False
    )
    transformers.VideoMAEModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 s of grey that brightens from frame to frame, 8 fps."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_clip(path, (np.full((32, 48, 3), 10 * k, np.uint8) for k in range(24)), 8)
    return path


def blocks(steps: list[int], size: int = 3) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks whose pictures show their own step."""
    for i in range(0, len(steps), size):
        at = np.array(steps[i : i + size])
        yield at, at.astype(np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)


def shown(steps: list[int], total: int, stride: int) -> dict[int, tuple[float, list[int]]]:
    return {
        k: (share, images[:, 0, 0, 0].tolist()) for k, share, images in windows(blocks(steps), total, LENGTH, stride)
    }


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("total", [1, 3, 4, 5, 11, 12])
def test_every_step_is_seen_in_its_place(total: int, stride: int) -> None:
    found = shown(list(range(total)), total, stride)
    assert list(found) == list(range(number(total, LENGTH, stride)))
    for k, (share, frames) in found.items():
        assert share == 1.0
        assert frames == [min(step, total - 1) for step in range(k * stride, k * stride + LENGTH)]
    assert max(found) * stride < total
    if stride <= LENGTH:
        assert {step for _, frames in found.values() for step in frames} == set(range(total))


def test_holes_show_the_nearest_picture_of_the_window() -> None:
    found = shown([0, 1, 3, 4, 9], 12, 2)
    assert found[0] == (0.75, [0, 1, 1, 3])
    assert found[2] == (0.25, [4, 4, 4, 4])
    assert found[3] == (0.25, [9, 9, 9, 9])
    assert found[1] == (0.5, [3, 3, 4, 4])
    assert shown([], 12, 2) == {}
    assert 1 not in shown([0, 1, 10], 12, 4)


def test_vectors_are_the_models_own(mae: str, film: Path) -> None:
    extractor = VideoModel(model=mae, view="frame", fps=8.0, hop=0.25)
    feature = extractor(Clip(film))
    assert feature.values.shape == (11, 16)
    assert feature.coverage == 1.0
    assert feature.t0 == pytest.approx(1.5 / 8)
    assert extractor.spec.rate == pytest.approx(4.0)
    frames = [extractor._source.preparation.to_square(f.image) for f in Clip(film).frames(8.0, 640)]
    x = (torch.from_numpy(np.stack(frames[4:8])).float() / 255 - 0.5) / 0.5
    with torch.inference_mode():
        out = pretrained.load(extractor.folder)(pixel_values=x.permute(0, 3, 1, 2)[None])
    np.testing.assert_allclose(feature.values[2:3], out.last_hidden_state.mean(1), atol=1e-5)
    assert np.abs(feature.values[2] - feature.values[3]).max() > 1e-3
    alone = extractor.embed(np.stack(frames[4:8])[None])
    np.testing.assert_allclose(alone, feature.values[2:3], atol=1e-5)


def test_short_clips_pooling_and_absence(mae: str, film: Path) -> None:
    extractor = VideoModel(model=mae, view="frame")
    short = extractor(Clip(film, end=0.25))
    assert short.values.shape == (1, 16) and short.coverage == 1.0
    assert short.t0 < 0.25
    whole, pooled = extractor(Clip(film)), VideoModel(model=mae, view="frame", pool="mean")
    np.testing.assert_allclose(pooled(Clip(film)).values[0], whole.values.mean(0), atol=1e-6)
    assert pooled.spec.rate == 0.0
    assert extractor(Clip(text="words")).values.shape == (0, 16)
    nobody = VideoModel(model=mae)(Clip(film))
    assert len(nobody.values) == len(whole.values) and nobody.coverage == 0.0
    assert VideoModel(model=mae, pool="mean")(Clip(film)).values.shape == (0, 16)


def test_windows_count_while_the_face_is_there(mae: str, shared_data: Path) -> None:
    clip = Clip(shared_data / "av_clips" / "pyfeat__face_noface.mov")
    kinds = [VideoModel(model=mae, fps=4.0, hop=0.5, enough=enough)(clip) for enough in (0.25, 1.0)]
    some, all_ = (feature.valid for feature in kinds)
    assert some is not None and all_ is not None
    assert 0.2 < all_.mean() <= some.mean() < 0.7
    assert not (all_ & ~some).any()
    np.testing.assert_allclose(kinds[0].values[all_], kinds[1].values[all_], atol=1e-5)


def test_misfits_are_refused(mae: str, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"hop = 0\.3 s is 2\.4 steps"):
        VideoModel(model=mae, hop=0.3)
    config = transformers.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    transformers.ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(BadConfig, match="no video transformer"):
        _ = VideoModel(model=str(tmp_path)).spec
    with pytest.raises(MissingDependency, match=r"377 MB, CC-BY-NC-4\.0"):
        _ = VideoModel(model="no such model").spec
