"""Face crops of real clips: where a face is, where none is, and what stands in the store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from affuse.core import io, registry
from affuse.core.config import make_recipe, to_yaml
from affuse.core.errors import BadConfig, BadFeatures, MissingDependency
from affuse.core.types import Feature
from affuse.features.face_crops import CARD, FaceCrops
from affuse.media.clip import Clip
from affuse.stores.store import stated, store_card


@pytest.fixture(scope="module")
def crops() -> FaceCrops:
    return FaceCrops()


def of(crops: FaceCrops, shared_data: Path, name: str, end: float = 3.0) -> Feature:
    return crops(Clip(shared_data / "av_clips" / name, end=end))


@pytest.mark.parametrize("name", ["openface__multi_face.avi", "grid__bbaf2n.mpg", "pyfeat__single_face.mp4"])
def test_faces_are_found_in_every_frame(crops: FaceCrops, shared_data: Path, name: str) -> None:
    feature = of(crops, shared_data, name, 2.0)
    assert feature.values.dtype == np.uint8
    assert feature.values.shape[1:] == crops.spec.shape
    assert feature.coverage == 1.0
    assert feature.t0 == 0.0
    assert (feature.values.reshape(len(feature.values), -1).std(1) > 10).all()


def test_no_face_is_masked_not_an_error(crops: FaceCrops, shared_data: Path) -> None:
    feature = of(crops, shared_data, "pyfeat__no_face.mp4")
    assert len(feature.values) == 15
    assert feature.valid is not None
    assert not feature.valid.any()
    assert not feature.values.any()


def test_a_face_that_leaves_is_masked_from_then_on(crops: FaceCrops, shared_data: Path) -> None:
    clip = Clip(shared_data / "av_clips" / "pyfeat__face_noface.mov")
    valid = crops(clip).valid
    assert valid is not None
    assert 0.25 < valid.mean() < 0.55
    assert np.abs(np.diff(valid.astype(int))).sum() <= 3  # in and out, no flicker


def test_sound_without_picture_is_an_absent_stream(crops: FaceCrops, tmp_path: Path) -> None:
    feature = crops(Clip(text="words alone"))
    assert feature.values.shape == (0, 48, 48, 3)
    assert feature.coverage == 0.0


def test_cheap_and_full_searches_agree(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Clip(shared_data / "av_clips" / "grid__lbax4n.mpg")
    cheap = FaceCrops()(clip)
    full = FaceCrops()
    monkeypatch.setattr(full._detector, "refine", lambda images, boxes: [None] * len(images))
    apart = np.abs(cheap.values.astype(float) - full(clip).values).mean((1, 2, 3))
    assert cheap.coverage == 1.0
    assert apart.max() < 12


def test_segments_and_rates(shared_data: Path) -> None:
    clip = Clip(shared_data / "av_clips" / "grid__bbaf2n.mpg", start=1.0, end=2.0)
    feature = FaceCrops(fps=10, size=112)(clip)
    assert feature.values.shape == (10, 112, 112, 3)
    assert feature.coverage == 1.0
    again = FaceCrops(fps=10, size=112)(clip)
    np.testing.assert_array_equal(feature.values, again.values)


def test_constructing_is_cheap_and_the_card_is_honest(monkeypatch: pytest.MonkeyPatch) -> None:
    from affuse.media import mtcnn

    monkeypatch.setattr(mtcnn, "load", lambda device: pytest.fail("weights were read on construction"))
    extractor = FaceCrops(fps=2.0, size=64)
    assert extractor.spec.shape == (64, 64, 3)
    assert extractor.spec.rate == 2.0
    assert extractor.spec.scale == pytest.approx(1 / 255)
    assert extractor.weights_hash == mtcnn.WEIGHTS_HASH
    assert CARD["entry"] == "FaceCrops"
    assert CARD["version"] == 2


def test_crops_show_one_person_and_the_tracks_everybody(crops: FaceCrops, shared_data: Path) -> None:
    clip = Clip(shared_data / "av_clips" / "openface__multi_face.avi", end=4.0)
    tracks = crops.follow(clip)
    assert len(tracks) == 3
    assert all(track.views.shape == (len(track.steps), *crops.spec.shape) for track in tracks)
    front = max(tracks, key=lambda track: track.prominence)
    feature, again = crops(clip), crops.feature(clip, tracks)
    np.testing.assert_array_equal(feature.values, again.values)
    np.testing.assert_array_equal(feature.values[front.steps], front.views)
    for track in tracks:
        asked = crops.feature(clip, tracks, ids=[track.id])
        assert asked.valid is not None
        np.testing.assert_array_equal(np.flatnonzero(asked.valid), track.steps)
        np.testing.assert_array_equal(asked.values[track.steps], track.views)


def test_a_finer_grid_gives_the_same_steps(shared_data: Path) -> None:
    clip = Clip(shared_data / "av_clips" / "grid__bbaf2n.mpg")
    extractor = FaceCrops(fps=2.0)
    tracker = extractor.tracker(finer=5)
    tracks = extractor.follow(clip, tracker)
    fine, coarse = extractor.feature(clip, tracks, finer=5), extractor(clip)
    assert len(tracks[0].steps) == 30
    assert fine.values.shape == coarse.values.shape == (6, 48, 48, 3)
    assert fine.coverage == coarse.coverage == 1.0
    assert np.abs(fine.values.astype(float) - coarse.values).mean((1, 2, 3)).max() < 12


def test_blocks_of_a_recording_keep_the_ids(crops: FaceCrops, shared_data: Path) -> None:
    path = shared_data / "av_clips" / "openface__multi_face.avi"
    tracker = crops.tracker()
    blocks = [crops.follow(Clip(path, start=start, end=start + 2.0), tracker) for start in (0.0, 2.0, 4.0)]
    whole = crops.follow(Clip(path, end=6.0))
    assert {track.id for block in blocks for track in block} == {track.id for track in whole}
    for track in whole:
        parts = [10 * i + part.steps for i, block in enumerate(blocks) for part in block if part.id == track.id]
        np.testing.assert_array_equal(np.concatenate(parts), track.steps)


def test_blocks_are_the_same_crops(crops: FaceCrops, shared_data: Path) -> None:
    clip = Clip(shared_data / "av_clips" / "openface__multi_face.avi", start=1.0, end=4.0)
    whole, parts = crops(clip), list(crops.blocks(clip, 4))
    assert [len(steps) for steps, _ in parts] == [4, 4, 4, 3]
    steps, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    np.testing.assert_array_equal(steps, np.flatnonzero(whole.valid))
    np.testing.assert_array_equal(values, whole.values[steps])
    assert list(crops.blocks(Clip(shared_data / "av_clips" / "pyfeat__no_face.mp4", end=1.0), 4)) == []
    assert list(crops.blocks(Clip(text="words"), 4)) == []


def test_another_detector_sees_the_same_faces(crops: FaceCrops, shared_data: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = shared_data / "weights" / "yunet_n_dynamic.onnx"
    yunet = FaceCrops(detector=file, min_score=0.7, detector_sha256=io.file_sha256(file))
    assert yunet.weights_hash == io.file_sha256(file) != crops.weights_hash
    for name in ("grid__bbaf2n.mpg", "pyfeat__face_noface.mov"):
        mine, other = of(yunet, shared_data, name), of(crops, shared_data, name)
        np.testing.assert_allclose(mine.valid, other.valid, atol=0)
        both = np.flatnonzero(mine.valid)
        assert np.abs(mine.values[both].astype(float) - other.values[both]).mean() < 25
    with pytest.raises(BadFeatures, match="sha256 is"):
        _ = FaceCrops(detector=file, detector_sha256="0" * 64).weights_hash
    with pytest.raises(MissingDependency, match=r"YuNet(.|\n)*detector=FILE"):
        _ = FaceCrops(detector=Path("nowhere.onnx")).weights_hash


def test_the_detectors_file_is_no_parameter_of_the_store() -> None:
    """Stores from before there was a choice of detectors stay what they are; another file is another hash."""
    old = {"fps": 5.0, "size": 48, "min_face": 40, "min_score": 0.9, "margin": 0.2}
    for options in ({}, {"detector": "yunet.onnx", "detector_sha256": "00"}):
        full = registry.resolve("extractors", "face_crops", options, "face_crops")
        card = store_card(FaceCrops().spec, "face_crops", 2, full, weights_hash="abc")
        assert card["parameters"] == old
        recipe = make_recipe({"streams": {"face_crops": {"encoder": "repvgg", "extractor": options}}})
        assert stated("face_crops", recipe.streams["face_crops"].extractor) == old
        again = make_recipe(yaml.safe_load(to_yaml(recipe)))
        assert again.to_dict() == recipe.to_dict()
        json.dumps(recipe.to_dict())


@pytest.mark.parametrize("options", [{"size": 0}, {"min_face": 0}, {"fps": float("inf")}, {"fps": -1.0}])
def test_impossible_crops_are_refused(options) -> None:
    with pytest.raises(BadConfig, match=next(iter(options))):
        FaceCrops(**options)
