"""ResNet-18 on every picture of a stream, or on a spectrogram as one picture of one channel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import Encoding, StreamSpec
from affuse.layers.masked import MaskedBatchNorm, channel_mask, masked_mean, pool_mask
from affuse.layers.pointwise import conv2d
from affuse.layers.standardise import Standardise

CARD = {
    "summary": "ResNet-18 from scratch, on pictures (mean over time) or on a spectrogram as one picture",
    "source": "He et al., Deep Residual Learning for Image Recognition, CVPR 2016; use after OGM-GE and BCGM (CREMA-D)",
    "entry": "ResNet18",
    "modalities": ["audio", "vision"],
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0",
}
STRIDE = 32  # steps of a spectrogram per token
SMALLEST = 33  # pixels a side: after five halvings batch normalisation has more than one pixel


class Conv(nn.Module):
    """Convolution without bias, then batch normalisation: over whole pictures, or over the valid steps of a mask."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, masked: bool) -> None:
        super().__init__()
        self.stride = stride
        self.conv = conv2d(inputs, outputs, kernel, stride)
        self.norm = MaskedBatchNorm(outputs) if masked else nn.BatchNorm2d(outputs)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x [M, C, H, W], mask [M, H] (None: all of it) -> the same, `stride` times smaller; 0 outside the mask."""
        if mask is None:
            return self.norm(self.conv(x)), None
        mask = pool_mask(mask, self.stride)
        return self.norm(self.conv(x), mask), mask


class Block(nn.Module):
    """relu(conv(relu(conv(x))) + x); a block that changes the width halves the picture, and projects that x."""

    def __init__(self, inputs: int, outputs: int, masked: bool) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.shortcut = None if inputs == outputs else Conv(inputs, outputs, 1, stride, masked)
        self.first = Conv(inputs, outputs, 3, stride, masked)
        self.second = Conv(outputs, outputs, 3, 1, masked)

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        identity = x if self.shortcut is None else self.shortcut(x, mask)[0]
        x, mask = self.first(x, mask)
        x, mask = self.second(x.relu(), mask)
        return (x + identity).relu(), mask


class Trunk(nn.Module):
    """x [M, C, H, W] and mask [M, H] or None -> [M, 8 * width, H / 32, W / 32] (rounded up) and its mask."""

    def __init__(self, inputs: int, width: int, masked: bool) -> None:
        super().__init__()
        self.stem = Conv(inputs, width, 7, 2, masked)
        widths = [width * k for k in (1, 1, 1, 2, 2, 4, 4, 8, 8)]
        self.blocks = nn.ModuleList(Block(a, b, masked) for a, b in zip(widths, widths[1:]))

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x, mask = self.stem(x, mask)
        # after the ReLU, zeros outside the mask do not change a maximum, like the border that max pooling adds
        x = nn.functional.max_pool2d(x.relu(), 3, 2, 1)
        if mask is not None:
            mask = pool_mask(mask, 2)
            x = x * channel_mask(mask, x)  # a window just outside reaches back into the row
        for block in self.blocks:
            x, mask = block(x, mask)
        return x, mask


class ResNet18(nn.Module):
    """Pictures [N, T, H, W, 3] or a spectrogram [N, T, F], mask [N, T] -> Encoding with dim = 8 * `width`.

    Pictures: only those under the mask are computed; tokens [N, T, dim] are their vectors. Spectrogram: tokens
    [N, T / 32, dim] are means over its bands; padding reaches no statistic. Either way pooled [N, dim] is the mean
    of the valid tokens. Colours and bands are standardised by the training split (`fit`). Raises BadConfig for
    pictures under 33 pixels, for vectors that are no sound, and for other shapes.
    """

    def __init__(self, spec: StreamSpec, *, width: int = 64) -> None:
        super().__init__()
        self.pictures = len(spec.shape) == 3
        fits = spec.shape[2] == 3 and min(spec.shape[:2]) >= SMALLEST if self.pictures else len(spec.shape) == 1
        if not fits or not (self.pictures or spec.modality == "audio"):
            raise BadConfig(
                f"stream '{spec.name}' ({spec.modality}) has steps of shape {spec.shape}",
                f"resnet18 needs pictures (H, W, 3) of {SMALLEST} pixels or more, or a spectrogram (F,) of sound",
            )
        if width < 1:
            raise BadConfig(f"width = {width}", "give at least 1; ResNet-18 as published has 64")
        self.dim, self.rate = 8 * width, spec.rate if self.pictures else spec.rate / STRIDE
        self.norm = Standardise(spec.shape[-1])
        self.trunk = Trunk(3 if self.pictures else 1, width, masked=not self.pictures)

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the normalisation of colours or bands on (x, mask) of the training split."""
        self.norm.fit(self._rows(batches))

    def _rows(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        for x, mask in batches:
            found = x[:, :, ::4, ::4] if self.pictures else x  # every 16th pixel suffices for the colours
            rows = found[mask].flatten(0, -2)
            yield rows, torch.ones(len(rows), dtype=torch.bool, device=x.device)

    def forward(self, x: Tensor, mask: Tensor) -> Encoding:
        """Encoding with tokens [N, T', dim], mask [N, T'], pooled [N, dim]."""
        tokens, mask = self._frames(x, mask) if self.pictures else self._spectrogram(x, mask)
        return Encoding(tokens, mask, masked_mean(tokens, mask))

    def _frames(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        tokens, frames = x.new_zeros(*mask.shape, self.dim), self.norm(x[mask]).permute(0, 3, 1, 2)
        if len(frames):
            tokens[mask] = self.trunk(frames, None)[0].mean((2, 3)).to(tokens.dtype)
        return tokens, mask

    def _spectrogram(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        image = self.norm(x) * mask.unsqueeze(-1)
        found, mask = self.trunk(image.unsqueeze(1), mask)
        return found.mean(3).transpose(1, 2), mask
