"""1x1 convolutions with a stride: first every `stride`th pixel is taken, then a convolution without a stride follows.

The weight gradient of a strided 1x1 convolution with few channels in channels_last writes beyond its buffer in
oneDNN (uxlfoundation/oneDNN issue 6035): depending on the processor's cache it crashes or is silently wrong.
"""

from __future__ import annotations

from torch import Tensor, nn


class Pointwise(nn.Conv2d):
    """x [M, C_in, H, W] -> [M, C_out, ceil(H / stride), ceil(W / stride)], without bias.

    Weights and results are those of a 1x1 convolution with this stride.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, 1, bias=False)
        self.every = stride

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of every `stride`th pixel; pooling over single pixels is the fastest way to take them."""
        return super().forward(x if self.every == 1 else nn.functional.avg_pool2d(x, 1, self.every))


def conv2d(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded so that only its stride changes the size (odd `kernel`)."""
    if kernel == 1:
        return Pointwise(inputs, outputs, stride)
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
