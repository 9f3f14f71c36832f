"""A vision transformer on every picture, then a transformer over the pictures of the utterance."""

from __future__ import annotations

import math
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.core import hub, io
from affuse.core.errors import BadConfig, MissingDependency
from affuse.core.types import Encoding, StreamSpec
from affuse.layers.masked import masked_mean
from affuse.layers.positions import sinusoids
from affuse.layers.standardise import Standardise
from affuse.layers.transformer import Layers

CARD = {
    "summary": "a vision transformer on some pictures of every utterance, then a transformer over these",
    "source": "Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; the layers over time: affuse, for VAT "
    "(Ding et al., MRAC 2023)",
    "entry": "ViT",
    "modalities": ["vision"],
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0; with a pretrained model: that of the model",
}
KNOWN = {"vit": hub.VIT}


class Trunk(nn.Module):
    """Pictures [M, 3, H, W] -> class tokens [M, dim]: patches, a class token, learned positions, pre-norm layers."""

    def __init__(self, size: tuple[int, int], patch: int, dim: int, dropout: float, layers: Layers) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, patch, patch)
        count = (size[0] // patch) * (size[1] // patch)
        self.token, self.place = (nn.Parameter(torch.empty(1, n, dim)) for n in (1, 1 + count))
        for learned in (self.token, self.place):
            nn.init.trunc_normal_(learned, std=0.02)
        self.dropout, self.layers = nn.Dropout(dropout), layers

    def forward(self, x: Tensor) -> Tensor:
        """The class token of every picture after the last layer."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.place
        tokens: Tensor = self.layers(self.dropout(h))[:, 0]
        return tokens


class Pretrained(nn.Module):
    """Pictures [M, 3, H, W] -> class tokens [M, dim] of a ViT in transformers' format, at the size it was trained on.

    The network comes without its pooler. `frozen_layers` as in ViT. Raises BadConfig for a network of another kind.
    """

    def __init__(self, folder: Path, model: str, frozen_layers: int | None, dropout: float) -> None:
        super().__init__()
        kind = hub.config(folder).model_type
        if kind != "vit":
            raise BadConfig(f"model '{model}' is a '{kind}', no ViT", "give a ViT, such as model=vit, or none")
        self.network = hub.load(folder).requires_grad_(True)
        self.network.pooler = None
        side = self.network.config.image_size
        self.size = (side, side) if isinstance(side, int) else tuple(side)
        for module in self.network.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
        self._frozen = hub.freeze_first(self.network, model, frozen_layers)

    def train(self, mode: bool = True) -> Pretrained:
        """Training mode for all but the frozen layers."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """The class token of every picture after the last layer."""
        if x.shape[2:] != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True)
        tokens: Tensor = self.network(pixel_values=x).last_hidden_state[:, 0]
        return tokens


class ViT(nn.Module):
    """x [N, T, H, W, 3] in 0..1, mask [N, T] -> Encoding with tokens [N, F, dim], one of each picture that is read.

    `frames`: how many pictures of every utterance are read, the ones in the middle of as many equal parts of its valid
    pictures, in training and evaluation alike (0: all); others cost nothing, and tokens of chosen pictures have no
    rate. The class tokens, with sinusoids of their steps, go through `temporal` more layers. pooled [N, dim] is the
    mean of the tokens: it needs no parameter, and is of the vectors that a fusion of sequences gets.

    `patch` (pixels a side), `dim`, `layers`, `heads`, `expand` (width of the feed-forward layers, in `dim`) and
    `drop_path` (stochastic depth, rising to this) make a network from scratch, for colours standardised by the training
    split (`fit`). `model` takes a pretrained one instead: `vit`, a folder in transformers' format or a hub id, always
    safetensors; its width and its normalisation then count. `frozen_layers`: its embeddings and that many blocks are
    not trained (None: all is trained).

    Raises BadConfig for steps that are no pictures, for a patch that does not divide them and for sizes below 1,
    MissingDependency where the pretrained model or transformers is missing.
    """

    def __init__(
        self,
        spec: StreamSpec,
        *,
        frames: int = 8,
        temporal: int = 2,
        patch: int = 8,
        dim: int = 96,
        layers: int = 4,
        heads: int = 4,
        expand: int = 4,
        dropout: float = 0.1,
        drop_path: float = 0.0,
        model: str = "",
        frozen_layers: int | None = None,
    ) -> None:
        super().__init__()
        if len(spec.shape) != 3 or spec.shape[-1] != 3:
            raise BadConfig(f"stream '{spec.name}' has steps of shape {spec.shape}", "vit needs pictures (H, W, 3)")
        if min(frames, temporal) < 0:
            raise BadConfig(f"frames = {frames}, temporal = {temporal}", "give 0 or more; frames=0 reads all pictures")
        self.frames, self.rate = frames, 0.0 if frames else spec.rate
        self.norm, self.pretrained = Standardise(3), bool(model)
        if model:
            folder = _find(model)
            self.trunk: nn.Module = Pretrained(folder, model, frozen_layers, dropout)
            dim, heads, expand = _widths(self.trunk.network.config)
            self.norm.mean, self.norm.std = _normalisation(folder)
        else:
            _check_own(spec, patch, frozen_layers)
            made = Layers(dim, heads, layers, expand, dropout, drop_path)
            self.trunk = Trunk(spec.shape[:2], patch, dim, dropout, made)
        self.dim = dim
        self.temporal = Layers(dim, heads, temporal, expand, dropout, drop_path) if temporal else None

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the normalisation of colours on (x, mask) of the training split; a pretrained network keeps its own."""
        if not self.pretrained:
            self.norm.fit(_colours(x, mask) for x, mask in batches)

    def forward(self, x: Tensor, mask: Tensor) -> Encoding:
        """Encoding with tokens [N, F, dim], mask [N, F], pooled [N, dim]."""
        step, mask = spread(mask, self.frames)
        tokens, row = x.new_zeros(*mask.shape, self.dim), torch.arange(len(x), device=x.device).unsqueeze(1)
        pictures = self.norm(x[row.expand_as(step)[mask], step[mask]]).permute(0, 3, 1, 2)
        if len(pictures):
            tokens[mask] = self.trunk(pictures).to(tokens.dtype)
        if self.temporal is not None:
            place = sinusoids(step.flatten(), self.dim).view_as(tokens).to(tokens.dtype)
            tokens = self.temporal(tokens + place, mask) * mask.unsqueeze(-1)
        return Encoding(tokens, mask, masked_mean(tokens, mask))


def spread(mask: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """At most `count` steps of every row of mask [N, T], evenly over its valid ones: steps [N, F], mask [N, F].

    F = min(count, T). Of n valid steps they are number floor((k + 1/2) n / count), k = 0..count-1, and all of them
    where n <= count. With count = 0 every step is read where it is.
    """
    step = torch.arange(mask.shape[1], device=mask.device)
    if not count:
        return step.expand_as(mask), mask
    k, valid = step[:count], mask.sum(1, keepdim=True)
    read = valid.clamp_max(count)
    rank = ((2 * k + 1) * valid // (2 * read.clamp_min(1))).clamp_max(mask.shape[1] - 1)
    order = mask.logical_not().to(torch.int8).argsort(dim=1, stable=True)  # valid steps first, in order
    return order.gather(1, rank), k < read


def _colours(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Every 16th pixel, which is enough for the colours: [N, T, h, w, 3], and the mask of each [N, T, h, w]."""
    pixels = x[:, :, ::4, ::4]
    return pixels, mask[:, :, None, None].expand(pixels.shape[:-1])


def _check_own(spec: StreamSpec, patch: int, frozen_layers: int | None) -> None:
    """BadConfig for a patch that would leave pixels at the edges out, and for freezing what was never trained."""
    if frozen_layers is not None:
        raise BadConfig(f"frozen_layers = {frozen_layers} without a pretrained network", "give model=vit or a folder")
    height, width = spec.shape[:2]
    if patch < 1 or height % patch or width % patch:
        side = math.gcd(height, width)
        fitting = ", ".join(str(p) for p in range(2, side + 1) if side % p == 0) or "1"
        message = f"patch = {patch} does not divide the pictures of stream '{spec.name}', {height} x {width} pixels"
        raise BadConfig(message, f"give one of {fitting}, or extract pictures of another size")


def _find(model: str) -> Path:
    """The folder of a pretrained ViT."""
    if find_spec("transformers") is None:
        raise MissingDependency(f"vit with model={model} needs transformers", "pip install 'affuse[text]'")
    return hub.find(model, KNOWN, "image model")


def _widths(config: Any) -> tuple[int, int, int]:
    """Width, heads and expansion of a pretrained ViT."""
    width, heads = int(config.hidden_size), int(config.num_attention_heads)
    return width, heads, max(1, int(config.intermediate_size) // width)


def _normalisation(folder: Path) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the colours [3], in 0..1, that a pretrained ViT expects."""
    path = folder / "preprocessor_config.json"
    settings = io.read_json(path) if path.is_file() else {}
    if not settings.get("do_normalize", True):
        return torch.zeros(3), torch.ones(3)
    mean, std = (torch.tensor(settings.get(f"image_{name}") or [0.5] * 3) for name in ("mean", "std"))
    return mean, std
