from __future__ import annotations

import torch
from torch import nn

from affuse.core.types import StreamSpec
from affuse.layers.repvgg import RepVGGBlock, fused
from affuse.models.encoders.repvgg import RepVGG


def _settle(module: nn.Module) -> nn.Module:
    """Batch norms as after training: running statistics and affine parameters far from their start."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.running_mean, -0.5, 0.5)
            nn.init.uniform_(m.running_var, 0.5, 2)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -0.5, 0.5)
    return module.eval()


def test_fused_block_equals_its_branches():
    for inputs, outputs, stride in [(8, 8, 1), (8, 16, 1), (8, 8, 2)]:
        block = _settle(RepVGGBlock(inputs, outputs, stride).double())
        x = torch.randn(3, inputs, 12, 12, dtype=torch.float64)
        torch.testing.assert_close(block.fuse()(x), block(x), rtol=1e-10, atol=1e-10)


def test_fused_encoder_equals_unfused_within_1e_4():
    torch.manual_seed(0)
    encoder = _settle(RepVGG(StreamSpec("faces", "vision", (48, 48, 3), 5.0)))
    x, mask = torch.rand(4, 3, 48, 48, 3), torch.ones(4, 3, dtype=torch.bool)
    gap = (fused(encoder)(x, mask).pooled - encoder(x, mask).pooled).abs().max()
    assert gap < 1e-4


def test_fusing_leaves_the_trained_model_alone():
    """Published defect: evaluation fused the training model, whose new convolutions never trained again."""
    encoder = RepVGG(StreamSpec("faces", "vision", (48, 48, 3), 5.0)).train()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    blocks = sum(isinstance(m, RepVGGBlock) for m in encoder.modules())
    fused(encoder)
    assert encoder.training
    assert sum(isinstance(m, RepVGGBlock) for m in encoder.modules()) == blocks > 0
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())


def test_frames_under_the_mask_alone_are_computed():
    encoder = RepVGG(StreamSpec("faces", "vision", (48, 48, 3), 5.0)).eval()
    x, mask = torch.rand(2, 3, 48, 48, 3), torch.tensor([[True, False, True], [False, False, False]])
    noisy = x.clone()
    noisy[~mask] = float("nan")
    torch.testing.assert_close(encoder(noisy, mask).pooled, encoder(x, mask).pooled)


def test_a_model_without_such_blocks_is_not_copied():
    plain = torch.nn.Linear(2, 2)
    assert fused(plain) is plain
