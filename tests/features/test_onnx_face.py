"""ONNX networks on faces: inputs as the options ask, outputs by name, and accuracies that were measured elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from affuse.core import io
from affuse.core.errors import BadConfig, BadFeatures, MissingDependency
from affuse.corpora.fer2013 import decode_jpeg
from affuse.features.onnx_face import LUMA, OnnxFace
from affuse.media.clip import Clip

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def echo(path: Path, shape: list[int | str], flat: bool = True) -> Path:
    """A network that gives its input back, as a vector, and its double."""
    from onnx import TensorProto, helper

    known = [n for n in shape[1:] if isinstance(n, int)]
    size = int(np.prod(known)) if len(known) == 3 else "D"
    nodes = [helper.make_node("Flatten", ["x"], ["same"]), helper.make_node("Add", ["same", "same"], ["double"])]
    picture = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [shape[0], size]) for n in ("same", "double")]
    model = helper.make_model(
        helper.make_graph(nodes, "echo", [picture], outputs), ir_version=8, opset_imports=[helper.make_opsetid("", 13)]
    )
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)


def test_layouts_colours_and_ranges(tmp_path: Path, faces: np.ndarray) -> None:
    nchw, nhwc = echo(tmp_path / "a.onnx", ["N", 3, 4, 4]), echo(tmp_path / "b.onnx", ["N", 4, 4, 3])
    x = faces.astype(np.float32)
    np.testing.assert_allclose(OnnxFace(weights=nchw).embed(faces), x.transpose(0, 3, 1, 2).reshape(5, -1))
    turned = OnnxFace(weights=nhwc, layout="nhwc", colour="bgr", scale=2 / 255, shift=-1.0)
    np.testing.assert_allclose(turned.embed(faces), (x[..., ::-1] / 127.5 - 1).reshape(5, -1), atol=1e-6)
    usual = OnnxFace(weights=nhwc, layout="nhwc", scale=1 / 255, mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3))
    np.testing.assert_allclose(
        usual.embed(faces), ((x / 255 - [0.4, 0.5, 0.6]) / [0.1, 0.2, 0.3]).reshape(5, -1), rtol=1e-4, atol=1e-5
    )
    grey = OnnxFace(weights=echo(tmp_path / "g.onnx", ["N", 1, 4, 4]), colour="gray")
    np.testing.assert_allclose(grey.embed(faces), (x @ LUMA).reshape(5, -1), rtol=1e-5)


def test_outputs_and_sizes(tmp_path: Path, faces: np.ndarray) -> None:
    path = echo(tmp_path / "a.onnx", ["N", 3, 4, 4])
    by_name, by_number = OnnxFace(weights=path, output="double"), OnnxFace(weights=path, output=1)
    np.testing.assert_array_equal(by_name.embed(faces), by_number.embed(faces))
    assert by_name.spec.shape == (48,)
    assert by_name.spec.rate == 5.0
    assert OnnxFace(weights=path, pool="mean").spec.rate == 0.0
    with pytest.raises(BadConfig, match=r"no output 'probs'(.|\n)*same, double"):
        _ = OnnxFace(weights=path, output="probs").spec
    with pytest.raises(BadConfig, match="not 3 channels in nhwc"):
        _ = OnnxFace(weights=path, layout="nhwc").weights_hash
    free = echo(tmp_path / "f.onnx", ["N", 3, "H", "W"])
    assert OnnxFace(weights=free, size=6).spec.shape == (108,)
    with pytest.raises(BadConfig, match="size=0"):
        _ = OnnxFace(weights=free).spec


def test_one_at_a_time_where_the_network_takes_one(tmp_path: Path, faces: np.ndarray) -> None:
    one, many = echo(tmp_path / "1.onnx", [1, 3, 4, 4]), echo(tmp_path / "n.onnx", ["N", 3, 4, 4])
    np.testing.assert_array_equal(OnnxFace(weights=one).embed(faces), OnnxFace(weights=many).embed(faces))


def test_missing_and_changed_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match="a face network"):
        _ = OnnxFace().spec
    path = echo(tmp_path / "a.onnx", ["N", 3, 4, 4])
    assert OnnxFace(weights=path, sha256=io.file_sha256(path)).spec.shape == (48,)
    with pytest.raises(BadFeatures, match="expected 00ff"):
        _ = OnnxFace(weights=path, sha256="00ff").spec


FER = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]


@pytest.mark.parametrize(
    ("file", "size", "options", "order", "wanted"),
    [
        ("fer2013_mini_xception_102.onnx", 64, {"colour": "gray", "scale": 2 / 255, "shift": -1.0}, FER, 0.584),
        (
            "faceapi_face_expression.onnx", 112, {"output": "probs"},
            ["neutral", "happy", "sad", "angry", "fear", "disgust", "surprise"], 0.555,
        ),
    ],
)  # fmt: skip
def test_measured_accuracies_come_back(shared_data: Path, file: str, size: int, options, order, wanted: float) -> None:
    with np.load(shared_data / "fer2013" / "fer2013_dev.npz") as pack:
        data, at, labels = pack["valid_jpeg"], pack["valid_offsets"], pack["valid_labels"][::7]
    pictures = np.stack([decode_jpeg(data[at[i] : at[i + 1]].tobytes()) for i in range(0, len(at) - 1, 7)])
    x = torch.nn.functional.interpolate(torch.from_numpy(pictures)[:, None].float(), (size, size), mode="bilinear")
    faces = x.round().byte()[:, 0, :, :, None].expand(-1, -1, -1, 3).numpy()
    network = OnnxFace(weights=shared_data / "weights" / file, **options)
    said = np.array([FER.index(order[i]) for i in network.embed(faces).argmax(1)])
    assert len(labels) == 503
    assert np.mean(said == labels) == pytest.approx(wanted, abs=0.04)  # standard error 0.022


def test_expressions_of_a_clip(shared_data: Path) -> None:
    network = OnnxFace(weights=shared_data / "weights" / "faceapi_face_expression.onnx", fps=2.0)
    happy = network(Clip(shared_data / "av_clips" / "eamm__happy.mp4", end=2.0))
    assert happy.values.shape == (4, 7)
    assert happy.coverage == 1.0
    np.testing.assert_allclose(happy.values.sum(1), 1, atol=1e-5)
    yunet = OnnxFace(weights=network.weights, fps=2.0, detector=shared_data / "weights" / "yunet_n_dynamic.onnx")
    again = yunet(Clip(shared_data / "av_clips" / "eamm__happy.mp4", end=2.0))
    np.testing.assert_array_equal(again.values.argmax(1), happy.values.argmax(1))
    assert yunet.weights_hash != network.weights_hash
    none = network(Clip(shared_data / "av_clips" / "pyfeat__no_face.mp4", end=2.0))
    assert none.coverage == 0.0 and not none.values.any()
    assert network(Clip(text="words alone")).values.shape == (0, 7)
