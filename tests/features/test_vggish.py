"""VGGish: its input, network, framing and post-processing against what was published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from affuse.core import registry
from affuse.core.errors import BadConfig, BadFeatures, MissingDependency, MissingFile
from affuse.features import vggish
from affuse.features.vggish import VGGish, convert, log_mel
from affuse.media.clip import Clip

soundfile = pytest.importorskip("soundfile")
RNG = np.random.default_rng(0)
SOUND = (0.1 * RNG.standard_normal(16000 * 12)).astype(np.float32)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vggish, "CONVS", (2, 0, 3, 0, 4, 4, 0, 5, 5, 0))
    monkeypatch.setattr(vggish, "HIDDEN", 8)


@pytest.fixture
def arrays(tiny: None) -> dict[str, np.ndarray]:
    """A random checkpoint as TensorFlow stores it: kernels [height, width, in, out], matrices [in, out]."""
    names = [
        ("conv1", 1, 2),
        ("conv2", 2, 3),
        ("conv3/conv3_1", 3, 4),
        ("conv3/conv3_2", 4, 4),
        ("conv4/conv4_1", 4, 5),
    ]
    names += [("conv4/conv4_2", 5, 5), ("fc1/fc1_1", 6 * 4 * 5, 8), ("fc1/fc1_2", 8, 8), ("fc2", 8, 128)]
    made = {}
    for name, ins, outs in names:
        shape = (3, 3, ins, outs) if "conv" in name else (ins, outs)
        made[f"vggish/{name}/weights"] = RNG.standard_normal(shape).astype(np.float32) * 0.4
        made[f"vggish/{name}/biases"] = RNG.standard_normal(outs).astype(np.float32) * 0.1
    return made | {"global_step": np.array(1)}


@pytest.fixture
def weights(arrays: dict[str, np.ndarray], tmp_path: Path) -> Path:
    np.savez(tmp_path / "vggish.npz", **arrays)
    return convert(tmp_path / "vggish.npz", tmp_path / "vggish.safetensors")


def clip(tmp_path: Path, samples: np.ndarray, name: str = "a", **segment: float) -> Clip:
    soundfile.write(tmp_path / f"{name}.wav", samples, 16000, subtype="FLOAT")
    return Clip(audio=tmp_path / f"{name}.wav", **segment)


def plain_log_mel(samples: np.ndarray) -> np.ndarray:
    """The published recipe, one frame and one band at a time."""

    def mel(hz: float) -> float:
        return 1127.0 * np.log(1.0 + hz / 700.0)

    edges = np.linspace(mel(125.0), mel(7500.0), 66)
    filters = np.zeros((257, 64))
    for k in range(1, 257):
        at = mel(k * 16000 / 512)
        for band in range(64):
            low, middle, high = edges[band : band + 3]
            filters[k, band] = max(0.0, min((at - low) / (middle - low), (high - at) / (high - middle)))
    window = np.array([0.5 - 0.5 * np.cos(2 * np.pi * n / 400) for n in range(400)])
    frames = []
    for start in range(0, len(samples) - 399, 160):
        spectrum = np.abs(np.fft.fft(np.concatenate([samples[start : start + 400] * window, np.zeros(112)])))[:257]
        frames.append(np.log(spectrum @ filters + 0.01))
    return np.array(frames)


def tensorflow_forward(arrays: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The network as TensorFlow runs it: [N, height, width, channels] throughout."""

    def weight(name: str) -> tuple[np.ndarray, np.ndarray]:
        return arrays[f"vggish/{name}/weights"], arrays[f"vggish/{name}/biases"]

    def conv(x: np.ndarray, name: str) -> np.ndarray:
        kernel, bias = weight(name)
        views = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2))
        return np.maximum(np.einsum("nhwcij,ijco->nhwo", views, kernel) + bias, 0)

    def pool(x: np.ndarray) -> np.ndarray:
        n, h, w, c = x.shape
        return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))

    x = pool(conv(pool(conv(x[..., None], "conv1")), "conv2"))
    x = pool(conv(conv(x, "conv3/conv3_1"), "conv3/conv3_2"))
    x = pool(conv(conv(x, "conv4/conv4_1"), "conv4/conv4_2")).reshape(len(x), -1)
    for name in ("fc1/fc1_1", "fc1/fc1_2"):
        x = np.maximum(x @ weight(name)[0] + weight(name)[1], 0)
    return x @ weight("fc2")[0] + weight("fc2")[1]


def test_log_mel_is_the_published_recipe(shared_data: Path) -> None:
    audio = Clip(audio=shared_data / "speech_misc" / "emotion2vec_test.wav").read_audio()
    assert audio is not None
    for samples in (audio.samples[:8000], SOUND[:4000], np.zeros(560, np.float32)):
        np.testing.assert_allclose(log_mel(samples), plain_log_mel(samples), atol=2e-4)
    assert log_mel(SOUND[:15600]).shape == (96, 64)
    assert log_mel(SOUND[:15599]).shape == (95, 64)


def test_network_is_the_published_one() -> None:
    state = vggish.network().state_dict()
    assert sum(t.numel() for t in state.values()) == 72_141_184
    assert list(state["embeddings.0.weight"].shape) == [4096, 12288]
    assert list(state["features.13.weight"].shape) == [512, 512, 3, 3]


def test_tensorflow_weights_keep_their_flattening(arrays, weights: Path) -> None:
    x = RNG.standard_normal((2, 96, 64)).astype(np.float32)
    made = vggish.network()
    made.load_state_dict(load_file(weights), assign=True)
    with torch.inference_mode():
        np.testing.assert_allclose(
            vggish.embed(made, torch.as_tensor(x)), tensorflow_forward(arrays, x), atol=1e-4, rtol=1e-4
        )


def test_torch_weights_stay_as_they_are(weights: Path, tmp_path: Path) -> None:
    """torchvggish moves the channels back before its first matrix: the same numbers under its own names."""
    tensors = load_file(weights)
    torch.save({**tensors, "pproc.pca_means": torch.zeros(128)}, tmp_path / "vggish.pth")
    again = load_file(convert(tmp_path / "vggish.pth", tmp_path / "again.safetensors"))
    assert tensors.keys() == again.keys()
    assert all(torch.equal(tensors[k], again[k]) for k in tensors)
    x = torch.randn(2, 96, 64)
    made = vggish.network()
    made.load_state_dict(tensors, assign=True)
    kept = made["features"](x[:, None]).transpose(1, 3).transpose(1, 2).contiguous().view(2, -1)
    with torch.inference_mode():
        torch.testing.assert_close(vggish.embed(made, x), made["embeddings"](kept))


def test_examples_equal_the_published_framing(arrays, weights: Path, tmp_path: Path) -> None:
    extractor = VGGish(weights=weights)
    feature = extractor(clip(tmp_path, SOUND[: 16000 * 10]))
    mel = plain_log_mel(SOUND[: 16000 * 10])
    published = mel[: 96 * (len(mel) // 96)].reshape(-1, 96, 64)
    assert len(published) == 10
    assert feature.values.shape == (10, 128)  # 0.4 s remain: less than half an example
    assert feature.t0 == 0.48
    assert extractor.spec.rate == pytest.approx(1 / 0.96)
    np.testing.assert_allclose(feature.values, tensorflow_forward(arrays, published), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("seconds", "examples"), [(0.01, 0), (0.4799, 0), (0.48, 1), (0.96, 1), (1.43, 1), (1.44, 2), (1.92, 2), (9.6, 10)]
)
def test_the_last_example_needs_half_of_itself(seconds: float, examples: int, weights: Path, tmp_path: Path) -> None:
    short = SOUND[: round(16000 * seconds)]
    feature = VGGish(weights=weights)(clip(tmp_path, short))
    assert feature.values.shape == (examples, 128)
    assert feature.valid is None
    if examples:
        longer = np.concatenate([short, np.full(8000, 1e-9, np.float32)])
        completed = VGGish(weights=weights)(clip(tmp_path, longer, "longer"))
        np.testing.assert_allclose(completed.values[:examples], feature.values, atol=1e-3)


def test_hop_is_free_and_does_not_drift(weights: Path, tmp_path: Path) -> None:
    whole = clip(tmp_path, SOUND)
    fine = VGGish(weights=weights, hop=0.01)(whole).values
    for hop in (1 / 24, 0.1, 0.96):
        extractor = VGGish(weights=weights, hop=hop)
        feature = extractor(whole)
        assert extractor.spec.rate == pytest.approx(1 / hop)
        assert len(feature.values) == int((12 - 0.48) / hop + 1e-6) + 1
        starts = np.floor(np.arange(len(feature.values)) * hop * 100 + 0.500001).astype(int)
        np.testing.assert_allclose(feature.values, fine[starts], atol=2e-4, rtol=1e-4)


def test_few_examples_at_a_time_change_nothing(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = clip(tmp_path, SOUND)
    expected = VGGish(weights=weights, hop=0.25)(whole).values
    monkeypatch.setattr(vggish, "BATCH", 3)
    np.testing.assert_allclose(VGGish(weights=weights, hop=0.25)(whole).values, expected, atol=5e-5, rtol=1e-5)


def test_absence_and_gaps(weights: Path, tmp_path: Path) -> None:
    extractor = VGGish(weights=weights)
    for silent in (Clip(text="words"), clip(tmp_path, np.zeros(48000, np.float32))):
        assert extractor(silent).values.shape == (0, 128)
    gap = SOUND[: round(16000 * 9.6)].copy()
    gap[round(16000 * 1.92) : round(16000 * 4.9)] = 0
    feature = extractor(clip(tmp_path, gap))
    assert feature.valid is not None
    assert feature.valid.tolist() == [True, True, False, False, False, True, True, True, True, True]
    tail = extractor(clip(tmp_path, SOUND[: 16000 * 5], "tail", end=8.0))
    assert tail.valid is not None
    assert tail.valid.tolist() == [True] * 5 + [False] * 3  # 0.2 s of the sixth were recorded
    pooled = VGGish(weights=weights, pool="mean")
    one = pooled(clip(tmp_path, gap))
    assert (pooled.spec.rate, one.t0, one.valid) == (0, 0, None)
    np.testing.assert_allclose(one.values, feature.values[feature.valid].mean(0, keepdims=True), atol=1e-5)


def test_post_processing_with_the_published_parameters(weights: Path, tmp_path: Path, shared_data: Path) -> None:
    path = shared_data / "weights" / "vggish_pca_params.npz"
    with np.load(path) as params:
        vectors, means = params["pca_eigen_vectors"], params["pca_means"].reshape(-1, 1)
    sound = clip(tmp_path, SOUND)
    raw = VGGish(weights=weights)(sound).values
    expected = np.clip((vectors @ (raw.T - means)).T, -2, 2)
    np.testing.assert_allclose(VGGish(weights=weights, pca=True, pca_params=path)(sound).values, expected, atol=2e-3)
    extractor = VGGish(weights=weights, pca=True, pca_params=path, quantise=True)
    stored = extractor(sound)
    assert stored.values.dtype == np.uint8
    off = stored.values.astype(int) - ((expected + 2) * (255.0 / 4)).astype(np.uint8)
    assert np.abs(off).max() <= 1 and (off == 0).mean() > 0.99  # float32 sums may fall on the other side of a step
    assert extractor.spec.scale == 1 / 255
    assert len({VGGish(weights=weights).weights_hash, extractor.weights_hash}) == 2
    relu = VGGish(weights=weights, relu=True)(sound).values
    np.testing.assert_array_equal(relu, np.maximum(raw, 0))


def test_spec_needs_no_weights_and_absent_ones_are_explained(tmp_path: Path) -> None:
    assert VGGish().spec.shape == (128,)
    with pytest.raises(MissingDependency, match=r"289 MB, Apache-2\.0") as caught:
        _ = VGGish().weights_hash
    assert "weights=" in caught.value.remedy
    with pytest.raises(MissingDependency, match="vggish_pca_params") as caught:
        vggish.read_pca(tmp_path / "none.npz")
    assert "pca_params=" in caught.value.remedy


def test_wrong_files_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(BadFeatures, match="sha256"):
        _ = VGGish(weights=weights, sha256="0" * 64).weights_hash
    with pytest.raises(MissingFile):
        convert(tmp_path / "none.pth", tmp_path / "out.safetensors")
    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if "embeddings.2" not in k}, tmp_path / "part.safetensors")
    with pytest.raises(BadFeatures, match=r"embeddings\.2\.weight is missing"):
        VGGish(weights=tmp_path / "part.safetensors")(clip(tmp_path, SOUND))
    save_file({**tensors, "features.0.weight": torch.zeros(2, 1, 5, 5)}, tmp_path / "shape.safetensors")
    with pytest.raises(BadFeatures, match=r"\[2, 1, 5, 5\]"):
        convert(tmp_path / "shape.safetensors", tmp_path / "out.safetensors")
    torch.save(tensors, tmp_path / "vggish.pth")
    with pytest.raises(BadFeatures, match="convert"):
        _ = VGGish(weights=tmp_path / "vggish.pth").weights_hash
    np.savez(tmp_path / "pca.npz", pca_eigen_vectors=np.eye(4), pca_means=np.zeros(4))
    with pytest.raises(BadFeatures, match="PCA of shapes"):
        vggish.read_pca(tmp_path / "pca.npz")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("name", ["a.pth", "a.npz", "a.safetensors"])
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"no weights at all" * 9)
    with pytest.raises(BadFeatures, match="no readable"):
        convert(tmp_path / name, tmp_path / "out.safetensors")


def test_a_compressed_file_with_damage_inside_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(
        path, pca_eigen_vectors=np.random.default_rng(0).normal(size=(128, 128)), pca_means=np.zeros(128)
    )
    data = bytearray(path.read_bytes())
    data[90:400] = b"\xff" * 310
    path.write_bytes(data)
    with pytest.raises(BadFeatures, match="holds no VGGish PCA"):
        vggish.read_pca(path)


def test_a_program_in_a_torch_file_is_not_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self):
            return Path.touch, (tmp_path / "harm",)

    torch.save({"features.0.weight": Harm()}, tmp_path / "a.pth")
    with pytest.raises(BadFeatures, match="could run code"):
        convert(tmp_path / "a.pth", tmp_path / "out.safetensors")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("given", [{"hop": 0.001}, {"pca": True, "relu": True}, {"quantise": True}])
def test_options_that_do_not_go_together_are_refused(given: dict[str, object]) -> None:
    full = registry.resolve("extractors", "vggish", given, "vggish")
    with pytest.raises(BadConfig):
        registry.build("extractors", "vggish", **full)
