"""A convolutional network on the raw waveform, and what runs over its frames."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from affuse.core.errors import BadConfig
from affuse.core.types import Encoding, StreamSpec
from affuse.layers.masked import AttentionPool, MaskedBatchNorm, even, masked_max_pool, pool_mask
from affuse.layers.over_time import OverTime, over_time

CARD = {
    "summary": "convolutions on the raw waveform, then xLSTM, LSTM, GRU, a transformer or nothing",
    "source": "Nfissi et al., CNN-n-GRU, ICMLA 2022, and its successor with bidirectional xLSTM; xLSTM: Beck et al., "
    "NeurIPS 2024",
    "entry": "WaveCNN",
    "modalities": ["audio"],
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0",
}
SLOPE = 0.01  # of the leaky ReLU


class Conv(nn.Module):
    """leaky_relu(norm(conv(x))) over the valid steps, then the largest of every `pool` steps."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, pool: int = 1) -> None:
        super().__init__()
        self.before, self.after = (kernel - stride) // 2, (kernel - stride + 1) // 2
        self.stride, self.pool = stride, pool
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, bias=False)
        self.norm = MaskedBatchNorm(outputs)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, C, T], 0 outside mask [N, T] -> [N, C', ceil(T / stride / pool)] and its mask."""
        x = self.conv(F.pad(x, (self.before, self.after + -x.shape[2] % self.stride)))
        mask = pool_mask(mask, self.stride)
        x = F.leaky_relu(self.norm(x, mask), SLOPE)
        if self.pool == 1:
            return x, mask
        x, mask = masked_max_pool(x.unsqueeze(-1), mask, (self.pool, 1))
        return x.squeeze(-1), mask


class WaveCNN(nn.Module):
    """Samples x [N, T], mask [N, T] -> Encoding with a token every stride * pool^(len(channels) - 1) samples.

    A convolution of `first` samples every `stride`, as wide as channels[0], then stages of `convs` convolutions over 3
    steps, one for each other number of `channels`; the first convolution and every stage but the last leave the largest
    of every `pool` steps (published: channels=[18, 18, 36, 72, 144], convs=4, stride=4, at 8 kHz). A projection to
    `dim`, what runs `over` the frames in both directions, and attention over the valid ones.

    `normalise`: every utterance is scaled to mean 0 and variance 1, so that the distance of the microphone does not
    matter. Nothing outside the mask reaches a statistic. Raises BadConfig for steps that are no samples, and sizes that
    do not exist.
    """

    def __init__(
        self,
        spec: StreamSpec,
        *,
        channels: tuple[int, ...] = (16, 16, 32, 64, 96),
        convs: int = 2,
        first: int = 160,
        stride: int = 8,
        pool: int = 4,
        dim: int = 64,
        over: OverTime = "xlstm",
        layers: int = 1,
        heads: int = 4,
        dropout: float = 0.15,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        if spec.shape != () or spec.rate <= 0:
            message = f"stream '{spec.name}' has steps of shape {spec.shape} at {spec.rate:g} Hz"
            raise BadConfig(message, "wave_cnn needs samples: extractor `waveform`")
        if len(channels) < 2 or min(*channels, convs, stride, pool) < 1 or first < stride:
            message = f"no network has channels={list(channels)}, convs={convs}, first={first}, stride={stride}"
            raise BadConfig(message, "give the first convolution's and at least one stage's width, and first >= stride")
        self.normalise, self.dim = normalise, dim
        self.front = Conv(1, channels[0], first, stride=stride, pool=pool)
        widths = zip(channels, channels[1:], strict=False)
        last = len(channels) - 2
        self.stages = nn.ModuleList(
            nn.ModuleList(
                Conv(a if k == 0 else b, b, 3, pool=pool if k == convs - 1 and s < last else 1) for k in range(convs)
            )
            for s, (a, b) in enumerate(widths)
        )
        self.rate = spec.rate / (stride * pool ** (last + 1))
        self.dropout, self.project = nn.Dropout(dropout), nn.Linear(channels[-1], dim)
        self.over = over_time(over, dim, layers=layers, heads=heads, dropout=dropout)
        self.pool = AttentionPool(dim)

    def forward(self, x: Tensor, mask: Tensor) -> Encoding:
        """Encoding with tokens [N, T', dim], mask [N, T'], pooled [N, dim]."""
        h, mask = self.front((even(x, mask) if self.normalise else x * mask).unsqueeze(1), mask)
        for stage in self.stages:
            for conv in stage:  # type: ignore[attr-defined]
                h, mask = conv(h, mask)
            h = self.dropout(h)
        tokens = self.project(F.leaky_relu(h.mT, SLOPE)) * mask.unsqueeze(-1)
        if self.over is not None:
            tokens = self.over(tokens, mask)
        return Encoding(tokens, mask, self.pool(tokens, mask))
