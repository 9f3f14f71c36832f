from __future__ import annotations

import math

import torch

from affuse.layers.positions import sinusoids


def test_sinusoids():
    found = sinusoids(torch.tensor([0, 3]), 6)
    assert found[0].tolist() == [0, 1, 0, 1, 0, 1]
    torch.testing.assert_close(
        found[1, 2:4], torch.tensor([math.sin(3 / 10000 ** (1 / 3)), math.cos(3 / 10000 ** (1 / 3))])
    )
    assert sinusoids(torch.arange(4), 5).shape == (4, 5)
