"""The mean over time of what is there."""

from __future__ import annotations

import torch

from affuse.core.types import StreamSpec
from affuse.layers.masked import masked_mean
from affuse.models.encoders.mean import Mean


def test_missing_numbers_have_no_part_in_the_mean():
    x, mask = torch.randn(3, 4, 2), torch.arange(4) < torch.tensor([[4], [2], [0]])
    encoder = Mean(StreamSpec("answers", "audio", (2,)))
    assert torch.equal(encoder(x, mask).pooled, masked_mean(x, mask))
    x[0, 1, 0] = x[1, :, 1] = float("nan")
    found = encoder(x, mask)
    assert torch.isfinite(found.tokens).all()
    torch.testing.assert_close(found.pooled[0, 0], x[0, [0, 2, 3], 0].mean())
    torch.testing.assert_close(found.pooled[0, 1], x[0, :, 1].mean())
    assert found.pooled[1, 1] == 0
