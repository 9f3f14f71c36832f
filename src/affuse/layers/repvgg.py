"""RepVGG: several branches while training, one 3x3 convolution when fused.

Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021. Per branch b with batch norm,
s_b = gamma_b / sqrt(var_b + eps); fused kernel = s_3 W_3 + pad(s_1 W_1) + s_0 delta, bias = sum(beta_b - mu_b s_b).
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from affuse.layers.pointwise import conv2d

Net = TypeVar("Net", bound=nn.Module)


class RepVGGBlock(nn.Module):
    """y = ReLU(BN(3x3 x) + BN(1x1 x) + BN(x)), x [M, C, H, W]; the identity BN(x) only where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv3 = conv2d(inputs, outputs, 3, stride)
        self.conv1 = conv2d(inputs, outputs, 1, stride)
        self.norm3, self.norm1 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.norm0 = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """[M, C_in, H, W] -> [M, C_out, H / stride, W / stride]."""
        y = self.norm3(self.conv3(x)) + self.norm1(self.conv1(x))
        return torch.relu(y if self.norm0 is None else y + self.norm0(x))

    @torch.no_grad()
    def fuse(self) -> nn.Sequential:
        """The same function (in eval mode) as one convolution and ReLU, in new tensors."""
        kernel, bias = _scaled(self.conv3.weight, self.norm3)
        kernel1, bias1 = _scaled(nn.functional.pad(self.conv1.weight, (1, 1, 1, 1)), self.norm1)
        kernel, bias = kernel + kernel1, bias + bias1
        if self.norm0 is not None:
            delta = torch.zeros_like(self.conv3.weight)
            channel = torch.arange(len(delta))
            delta[channel, channel, 1, 1] = 1
            kernel0, bias0 = _scaled(delta, self.norm0)
            kernel, bias = kernel + kernel0, bias + bias0
        conv = nn.Conv2d(self.conv3.in_channels, self.conv3.out_channels, 3, self.stride, 1).to(kernel)
        conv.weight.copy_(kernel)
        conv.bias.copy_(bias)  # type: ignore[union-attr]
        return nn.Sequential(conv, nn.ReLU())


def _scaled(kernel: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return kernel * scale[:, None, None, None], norm.bias - norm.running_mean * scale


def fused(model: Net) -> Net:
    """A copy of `model` in eval mode with every RepVGG block fused; a model without such blocks itself."""
    if not any(isinstance(module, RepVGGBlock) for module in model.modules()):
        return model
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, RepVGGBlock):
                setattr(module, name, child.fuse())
    return model
