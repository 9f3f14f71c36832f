"""RepVGG encoder for aligned face crops."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import Encoding, StreamSpec
from affuse.layers.masked import AttentionPool, masked_mean
from affuse.layers.over_time import OverTime, over_time
from affuse.layers.repvgg import RepVGGBlock

CARD = {
    "summary": "RepVGG on every face crop, what runs over the frames, then attention or mean over time",
    "source": "Ding et al., RepVGG, CVPR 2021; layout after system 4 (mmer_xlstm)",
    "entry": "RepVGG",
    "modalities": ["vision"],
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0",
}


class RepVGG(nn.Module):
    """x [N, T, H, W, 3] in 0..1, mask [N, T] -> Encoding; only frames under the mask are computed.

    `channels` and `blocks` per stage; each stage halves the picture (the first divides it by `first_stride`). `grey`
    averages the colours first. Every crop is standardised by its own mean and contrast, so that lighting matters less.
    `over`: what reads the frames in both directions before the pooling (layers, heads: its own).
    """

    def __init__(
        self,
        spec: StreamSpec,
        *,
        channels: tuple[int, ...] = (32, 64, 96, 128),
        blocks: tuple[int, ...] = (1, 2, 2, 1),
        grey: bool = True,
        dropout: float = 0.3,
        pooling: str = "attention",
        first_stride: int = 2,
        over: OverTime = "none",
        layers: int = 1,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if len(spec.shape) != 3 or spec.shape[-1] != 3:
            raise BadConfig(f"stream '{spec.name}' has steps of shape {spec.shape}", "repvgg needs pictures (H, W, 3)")
        if len(channels) != len(blocks):
            raise BadConfig(f"{len(channels)} channels but {len(blocks)} blocks", "give one of each per stage")
        if pooling not in ("attention", "mean"):
            raise BadConfig(f"pooling = {pooling!r}", "choose attention or mean")
        self.grey, self.dim, self.rate = grey, channels[-1], spec.rate
        trunk: list[nn.Module] = []
        width, stride = (1 if grey else 3), first_stride
        for out, count in zip(channels, blocks, strict=True):
            for i in range(count):
                trunk.append(RepVGGBlock(width, out, stride=stride if i == 0 else 1))
                width = out
            stride = 2
        self.trunk = nn.Sequential(*trunk)
        self.dropout = nn.Dropout(dropout)
        self.over = over_time(over, self.dim, layers=layers, heads=heads, dropout=dropout)
        self.pool = AttentionPool(self.dim) if pooling == "attention" else None

    def forward(self, x: Tensor, mask: Tensor) -> Encoding:
        """Encoding with tokens [N, T, d], mask [N, T], pooled [N, d]."""
        frames = self._normalise(x[mask]).permute(0, 3, 1, 2)
        tokens = x.new_zeros(*mask.shape, self.dim)
        if len(frames):
            tokens[mask] = self.dropout(self.trunk(frames).mean((2, 3))).to(tokens.dtype)
        if self.over is not None:
            tokens = self.over(tokens, mask)
        pooled = masked_mean(tokens, mask) if self.pool is None else self.pool(tokens, mask)
        return Encoding(tokens, mask, pooled)

    def _normalise(self, frames: Tensor) -> Tensor:
        """frames [M, H, W, 3] -> zero mean, unit contrast per crop."""
        if self.grey:
            frames = frames.mean(-1, keepdim=True)
        std, mean = torch.std_mean(frames, dim=(1, 2, 3), keepdim=True, correction=0)
        return (frames - mean) / (std + 0.02)
