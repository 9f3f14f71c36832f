"""VGGish: the embedding of each second of sound by a network trained to tag millions of videos."""

from __future__ import annotations

import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from affuse.core import checkpoints, io
from affuse.core.errors import BadConfig, BadFeatures, MissingDependency, MissingFile
from affuse.core.types import Feature, StreamSpec
from affuse.features.networks import pretrained
from affuse.features.waveform import muted

if TYPE_CHECKING:
    from torch import Tensor, nn

    from affuse.media.clip import Clip

CARD = {
    "summary": "VGGish embeddings of AudioSet, one vector per 0.96 s of sound or every `hop` seconds",
    "source": "Hershey et al., ICASSP 2017; TensorFlow Models, research/audioset/vggish",
    "entry": "VGGish",
    "modalities": ["audio"],
    "licence": "Apache-2.0",
    "version": 1,
    "download": "weights=FILE, brought by the user (289 MB, Apache-2.0): vggish-10086976.pth of torchvggish, or "
    "TensorFlow's "
    'vggish_model.ckpt as npz, converted once: python -c "from affuse.features.vggish import convert; '
    "convert('vggish-10086976.pth', 'vggish.safetensors')\"; for pca=true also pca_params=vggish_pca_params.npz (73 "
    "kB)",
    "rate": "1 / hop (1.04); an example every `hop` seconds",
    "dim": "128",
}
RATE, WINDOW, HOP, FFT = 16000, 400, 160, 512  # samples: 25 ms every 10 ms
BANDS, LOWEST, HIGHEST, OFFSET = 64, 125.0, 7500.0, 0.01
FRAMES, EXAMPLE = 96, 0.96  # mel frames and seconds of one example
CONVS = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0)  # channels; 0 halves time and frequency
HIDDEN, DIM = 4096, 128
LIMIT = 2.0  # published range after PCA
BATCH, SPAN = 32, 60.0  # examples and seconds of sound that run together
TENSORFLOW = {
    "features.0": "conv1", "features.3": "conv2", "features.6": "conv3/conv3_1", "features.8": "conv3/conv3_2",
    "features.11": "conv4/conv4_1", "features.13": "conv4/conv4_2",
    "embeddings.0": "fc1/fc1_1", "embeddings.2": "fc1/fc1_2", "embeddings.4": "fc2",
}  # fmt: skip


class VGGish:
    """Clip -> [T, 128]; example k is the 0.96 s from k * `hop` s on, step k stands at its middle (t0 = 0.48 s).

    Equal to the published network and framing except at the end: an example that reaches beyond the sound is completed
    with zeros when at least half of it is sound, so a clip under 0.48 s is absent; an example of which less than half
    was recorded is invalid. `weights`: file made by `convert`; `sha256`: its checksum ("" = not checked). `relu`: as
    torchvggish gives them, after a last ReLU. `pca`: the whitening of the AudioSet release, clipped to -2..2, with
    `pca_params` its npz; `quantise`: that in 8 bits (cut off as TensorFlow does; a model sees 0..1). `pool` "mean": the
    mean over valid examples [1, 128]. `hop` is rounded to 10 ms per example, without drift.
    """

    def __init__(
        self,
        *,
        weights: Path | None = None,
        sha256: str = "",
        hop: float = EXAMPLE,
        relu: bool = False,
        pca: bool = False,
        pca_params: Path | None = None,
        quantise: bool = False,
        pool: Literal["none", "mean"] = "none",
    ) -> None:
        if hop < HOP / RATE:
            raise BadConfig(
                f"vggish.hop = {hop} s is shorter than a mel frame", "give hop=0.01 or more; 0.96 is published"
            )
        if (relu and pca) or (quantise and not pca):
            raise BadConfig(
                f"vggish: relu={relu}, pca={pca}, quantise={quantise} do not go together",
                "the PCA was fitted without ReLU, and only its values are quantised: pca=true quantise=true, or "
                "relu=true",
            )
        self.weights, self.sha256, self.hop, self.relu = weights, sha256, hop, relu
        self.pca, self.pca_params, self.quantise, self.pool = pca, pca_params, quantise, pool

    @property
    def spec(self) -> StreamSpec:
        """One embedding per example, or one for the clip."""
        rate = 0.0 if self.pool == "mean" else 1 / self.hop
        return StreamSpec("vggish", "audio", (DIM,), rate, 1 / 255 if self.quantise else 1.0)

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights file, with the PCA parameters where they are used."""
        own = io.file_sha256(self._file)
        return io.digest([own, *(x.tolist() for x in self._pca)]) if self.pca else own

    @cached_property
    def _file(self) -> Path:
        what = (
            "a VGGish weights file (289 MB, Apache-2.0; made by affuse.features.vggish.convert, see affuse show vggish)"
        )
        path = pretrained.file(self.weights, self.sha256, what)
        if path.suffix != ".safetensors":
            raise BadFeatures(
                f"{path} is no safetensors file", "convert it once: affuse.features.vggish.convert(src, dst)"
            )
        return path

    @cached_property
    def _network(self) -> nn.ModuleDict:
        made = network()
        made.load_state_dict(_checked(_read(self._file), self._file), assign=True)
        return made.eval().requires_grad_(False)

    @cached_property
    def _pca(self) -> tuple[np.ndarray, np.ndarray]:
        return read_pca(self.pca_params)

    def __call__(self, clip: Clip) -> Feature:
        """The embeddings of the clip's sound."""
        absent = Feature(np.zeros((0, DIM), np.uint8 if self.quantise else np.float32))
        audio = clip.read_audio(RATE)
        if audio is None or not audio.valid.any():
            return absent
        starts = self._starts(len(audio.samples) / RATE)
        valid = _recorded(audio.valid & ~muted(audio.samples, RATE), starts)
        if not valid.any():
            return absent
        values = self._postprocess(self._embed(audio.samples, starts))
        if self.pool == "mean":
            return Feature(self._quantise(values[valid].mean(0, keepdims=True)))
        return Feature(self._quantise(values), None if valid.all() else valid, EXAMPLE / 2)

    def _starts(self, seconds: float) -> np.ndarray:
        """First mel frame of each example that lies in the sound with at least half of it."""
        count = int((seconds - EXAMPLE / 2) / self.hop + 1e-6) + 1 if seconds >= EXAMPLE / 2 else 0
        return np.floor(np.arange(count) * (self.hop * RATE / HOP) + 0.500001).astype(int)

    def _embed(self, samples: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """The network's output for examples that begin at mel frames `starts`: [T, 128], in memory independent of T."""
        import torch

        samples = np.pad(samples, (0, max(0, (starts[-1] + FRAMES - 1) * HOP + WINDOW - len(samples))))
        size = max(1, min(BATCH, int(SPAN / self.hop)))
        made = []
        for block in np.split(starts, range(size, len(starts), size)):
            mel = log_mel(samples[block[0] * HOP : (block[-1] + FRAMES - 1) * HOP + WINDOW])
            examples = mel[(block - block[0])[:, None] + np.arange(FRAMES)]
            with torch.inference_mode():
                made.append(embed(self._network, torch.from_numpy(examples)).numpy())
        return np.concatenate(made)

    def _postprocess(self, values: np.ndarray) -> np.ndarray:
        if self.relu:
            return np.maximum(values, 0)
        if self.pca:
            vectors, means = self._pca
            return np.clip((values - means) @ vectors.T, -LIMIT, LIMIT).astype(np.float32)
        return values

    def _quantise(self, values: np.ndarray) -> np.ndarray:
        return ((values + LIMIT) * (255 / (2 * LIMIT))).astype(np.uint8) if self.quantise else values


def _recorded(valid: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Whether at least half of the example from each start (in mel frames) was recorded."""
    counts = np.add.reduceat(valid, np.arange(0, len(valid), HOP), dtype=np.int64)  # per 10 ms
    sums = np.concatenate([[0], np.cumsum(counts)])
    recorded: np.ndarray = sums[np.minimum(starts + FRAMES, len(counts))] - sums[starts]
    return 2 * recorded >= FRAMES * HOP


def log_mel(samples: np.ndarray) -> np.ndarray:
    """log(mel + 0.01) of 16 kHz sound: [frames, 64] float32, frame t from sample 160 t on, only whole windows.

    Magnitudes, not powers; periodic Hann window of 25 ms, 512-point transform, 64 HTK bands of 125 to 7500 Hz.
    """
    hann = 0.5 - 0.5 * np.cos(2 * np.pi / WINDOW * np.arange(WINDOW))
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP] * hann.astype(np.float32)
    return np.log(np.abs(np.fft.rfft(frames, FFT)) @ mel_filters() + np.float32(OFFSET))


def mel_filters() -> np.ndarray:
    """Triangles of height 1, straight on HTK's mel scale: [257, 64] float32."""
    lowest, highest = _mel(np.array([LOWEST, HIGHEST]))
    edges = np.linspace(lowest, highest, BANDS + 2)
    bins = _mel(np.arange(FFT // 2 + 1) * RATE / FFT)[:, None]
    slopes = (bins - edges[:-1]) / np.diff(edges)
    return np.maximum(0, np.minimum(slopes[:, :-1], 1 - slopes[:, 1:])).astype(np.float32)


def _mel(hz: np.ndarray) -> np.ndarray:
    mel: np.ndarray = 1127.0 * np.log1p(hz / 700.0)
    return mel


def network() -> nn.ModuleDict:
    """The layers without weights (on the meta device), named as in torchvggish's files."""
    import torch
    from torch import nn

    layers: list[nn.Module] = []
    width = 1
    with torch.device("meta"):
        for channels in CONVS:
            layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU()] if channels else [nn.MaxPool2d(2)]
            width = channels or width
        pooled = 2 ** CONVS.count(0)
        first = nn.Linear(FRAMES // pooled * (BANDS // pooled) * width, HIDDEN)
        dense = nn.Sequential(first, nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, DIM))
    return nn.ModuleDict({"features": nn.Sequential(*layers), "embeddings": dense})


def embed(made: nn.ModuleDict, x: Tensor) -> Tensor:
    """Log-mel examples x [N, 96, 64] -> embeddings [N, 128], before any ReLU."""
    x = made["features"](x.unsqueeze(1))
    # the published weights are TensorFlow's: its flattening runs over time, frequency, then channels
    embeddings: Tensor = made["embeddings"](x.permute(0, 2, 3, 1).flatten(1))
    return embeddings


def convert(src: Path | str, dst: Path | str) -> Path:
    """Write published VGGish weights as the safetensors file that `weights` takes; returns its path.

    `src`: a torch state dict (.pth; torchvggish's names, read without running code), safetensors with the same
    names, or an npz of TensorFlow's checkpoint: reader = tf.train.load_checkpoint("vggish_model.ckpt");
    np.savez("vggish.npz", **{n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map()}).
    Raises MissingFile, BadFeatures (not such a file, or tensors missing or of another shape).
    """
    src, dst = Path(src).expanduser(), Path(dst).expanduser()
    if not src.is_file():
        raise MissingFile(f"no weights at {src}", "give the path of vggish-10086976.pth or of an npz")
    io.write_tensors(dst, _checked(_read(src), src))
    return dst


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors of a weights file under torchvggish's names."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return _from_tensorflow(dict(arrays))
        if path.suffix in (".pth", ".pt"):
            return {k: torch.tensor(v) for k, v in checkpoints.load_state(path).items()}
        return load_file(path)
    except (SafetensorError, zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, TypeError, EOFError) as error:
        raise BadFeatures(
            f"{path} holds no readable weights ({type(error).__name__}: {error})"[:300],
            "download it again, and convert it anew",
        ) from error


def _from_tensorflow(arrays: dict[str, Any]) -> dict[str, Tensor]:
    """Kernels [height, width, in, out] and matrices [in, out] as torch has them; the order of inputs stays."""
    import torch

    made = {}
    for ours, theirs in TENSORFLOW.items():
        for kind, name in (("weight", f"vggish/{theirs}/weights"), ("bias", f"vggish/{theirs}/biases")):
            if name in arrays:
                x = arrays[name]
                made[f"{ours}.{kind}"] = torch.from_numpy(x.transpose(3, 2, 0, 1) if x.ndim == 4 else x.T)
    return made


def _checked(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The network's own tensors as float32; BadFeatures names the first that is missing or of another shape."""
    made = {}
    for name, layer in network().state_dict().items():
        found = list(tensors[name].shape) if name in tensors else "missing"
        if found != list(layer.shape):
            raise BadFeatures(
                f"{path}: {name} is {found}, VGGish has {list(layer.shape)}",
                "give vggish-10086976.pth, an npz of vggish_model.ckpt, or what affuse.features.vggish.convert made of "
                "them",
            )
        made[name] = tensors[name].float()
    return made


def read_pca(path: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Vectors [128, 128] and means [128] of vggish_pca_params.npz; MissingDependency or BadFeatures name the file."""
    if path is None or not path.expanduser().is_file():
        raise MissingDependency(
            f"vggish.pca=true needs vggish_pca_params.npz (73 kB, Apache-2.0, TensorFlow Models); given: {path}",
            "give its path as pca_params=FILE",
        )
    try:
        with np.load(path.expanduser(), allow_pickle=False) as arrays:
            vectors, means = arrays["pca_eigen_vectors"], arrays["pca_means"].reshape(-1)
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BadFeatures(f"{path} holds no VGGish PCA ({error})", "download vggish_pca_params.npz again") from error
    if vectors.shape != (DIM, DIM) or means.shape != (DIM,):
        raise BadFeatures(
            f"{path}: PCA of shapes {vectors.shape} and {means.shape}", "VGGish's are (128, 128) and (128,)"
        )
    return vectors, means
