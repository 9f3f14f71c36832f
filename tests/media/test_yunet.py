"""YuNet: decoded as its heads are defined, on real pictures where MTCNN finds the same faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from affuse.core.errors import BadFeatures
from affuse.media.clip import Clip
from affuse.media.faces import FaceDetector
from affuse.media.tracks import track_faces
from affuse.media.yunet import HEADS, STRIDES, YuNet

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
WIDE = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}


def network(path: Path, heads: dict[str, np.ndarray]) -> Path:
    """An ONNX file that answers with `heads`, whatever the picture shows."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("Constant", [], [k], value=numpy_helper.from_array(v, k)) for k, v in heads.items()]
    outputs = [helper.make_tensor_value_info(k, TensorProto.FLOAT, v.shape) for k, v in heads.items()]
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 64, 64])
    graph = helper.make_graph(nodes, "heads", [picture], outputs)
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)]), path)
    return path


def silent() -> dict[str, np.ndarray]:
    return {f"{h}_{s}": np.zeros((1, (64 // s) ** 2, WIDE[h]), np.float32) for h in HEADS for s in STRIDES}


def test_boxes_and_landmarks_are_those_of_the_cell(tmp_path: Path) -> None:
    heads = silent()
    cell = 1 * 4 + 2  # row 1, column 2 of the 4 x 4 cells of stride 16
    heads["cls_16"][0, cell], heads["obj_16"][0, cell] = 0.64, 1.5  # objectness is cut at 1
    heads["bbox_16"][0, cell] = [0.5, 0.25, np.log(2), np.log(3)]
    heads["kps_16"][0, cell] = np.arange(10) / 10
    (face,) = YuNet(network(tmp_path / "n.onnx", heads), min_face=10).detect(np.zeros((128, 128, 3), np.uint8))
    assert face.score == pytest.approx(0.8)
    centre, size = 2 * 16 * np.array([2.5, 1.25]), 2 * 16 * np.array([2, 3])  # the picture is shrunk to a half
    np.testing.assert_allclose(face.box, np.concatenate([centre - size / 2, centre + size / 2]), rtol=1e-5)
    np.testing.assert_allclose(face.landmarks, 2 * 16 * (np.arange(10).reshape(5, 2) / 10 + [2, 1]), rtol=1e-5)


def test_one_find_per_face_and_none_below_the_limits(tmp_path: Path) -> None:
    heads = silent()
    for cell, score in ((0, 0.9), (1, 0.7), (63, 0.6), (36, 0.4)):  # 1 lies on 0; 36 is too unsure
        heads["cls_8"][0, cell] = heads["obj_8"][0, cell] = score
        heads["bbox_8"][0, cell] = [0.5, 0.5, np.log(4), np.log(4)]
    path = network(tmp_path / "n.onnx", heads)
    picture = np.zeros((64, 64, 3), np.uint8)
    assert [round(f.score, 3) for f in YuNet(path, min_face=10).detect(picture)] == [0.9, 0.6]
    assert YuNet(path, min_face=33).detect(picture) == []
    heads["bbox_8"][0, 1, 0] = 3.0  # beside it
    assert len(YuNet(network(tmp_path / "m.onnx", heads), min_face=10).detect(picture)) == 3


def test_other_networks_are_refused(tmp_path: Path) -> None:
    heads = silent()
    del heads["kps_32"]
    with pytest.raises(BadFeatures, match="no output kps_32"):
        YuNet(network(tmp_path / "n.onnx", heads))
    (tmp_path / "b.onnx").write_bytes(b"no network")
    with pytest.raises(BadFeatures, match=r"b\.onnx is not a network"):
        YuNet(tmp_path / "b.onnx")


@pytest.fixture(scope="module")
def weights(shared_data: Path) -> Path:
    return shared_data / "weights"


def frames(shared_data: Path, name: str, count: int = 4) -> np.ndarray:
    return np.stack([f.image for f in Clip(shared_data / "av_clips" / name, end=count / 2).frames(2, 640)])


@pytest.mark.parametrize("file", ["yunet_n_dynamic.onnx", "yunet_n_640_640.onnx"])
@pytest.mark.parametrize(
    "name", ["openface__multi_face.avi", "grid__bbaf2n.mpg", "eamm__happy.mp4", "pyfeat__no_face.mp4"]
)
def test_finds_what_mtcnn_finds(shared_data: Path, weights: Path, file: str, name: str) -> None:
    images = frames(shared_data, name)
    mine = YuNet(weights / file).detect_batch(images)
    for found, wanted in zip(mine, FaceDetector().detect_batch(images), strict=True):
        found, wanted = [f for f in found if f.score >= 0.7], [f for f in wanted if f.score >= 0.9]
        assert len(found) == len(wanted)
        assert [f.score for f in found] == sorted((f.score for f in found), reverse=True)
        for face in wanted:
            apart = [np.linalg.norm(face.landmarks - f.landmarks, axis=1).mean() / face.side for f in found]
            assert min(apart) < 0.1


def test_a_close_up_finds_the_face_again(shared_data: Path, weights: Path) -> None:
    images = frames(shared_data, "openface__multi_face.avi", 2)
    detector = YuNet(weights / "yunet_n_dynamic.onnx")
    faces = detector.detect(images[0])
    boxes = np.stack([f.box for f in faces])
    moved = boxes + 0.2 * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    for again in (detector.refine(images[:1], boxes), detector.refine(images[:1], moved)):
        for old, new in zip(faces, again, strict=True):
            assert new is not None
            assert np.abs(new.landmarks - old.landmarks).max() < 0.1 * old.side
    away = np.array([[0, 0, 60, 60]], np.float32)
    assert detector.refine(images[:1], away) == [None]
    assert detector.refine(images, np.zeros((0, 4))) == []


@pytest.mark.parametrize("file", ["yunet_n_dynamic.onnx", "yunet_n_640_640.onnx"])
def test_the_tracker_follows_with_it(shared_data: Path, weights: Path, file: str) -> None:
    clip = Clip(shared_data / "av_clips" / "openface__multi_face.avi", end=3.0)
    tracks = track_faces(clip.frames(5, 640), YuNet(weights / file), 5, min_score=0.7)
    assert [len(t.steps) for t in tracks] == [15, 15, 15]
