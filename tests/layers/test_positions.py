from __future__ import annotations

import math

import torch

from affuse.core.types import Encoded
from affuse.layers.positions import in_time, sinusoids


def test_sinusoids():
    found = sinusoids(torch.tensor([0, 3]), 6)
    assert found[0].tolist() == [0, 1, 0, 1, 0, 1]
    torch.testing.assert_close(
        found[1, 2:4], torch.tensor([math.sin(3 / 10000 ** (1 / 3)), math.cos(3 / 10000 ** (1 / 3))])
    )
    assert sinusoids(torch.arange(4), 5).shape == (4, 5)


def test_steps_of_one_time_have_one_position_at_any_rate():
    """10 Hz from 0 s, 4 Hz from 0.5 s; what has no time is counted."""
    tokens = {"fast": torch.zeros(1, 11, 3), "slow": torch.zeros(1, 3, 3), "words": torch.zeros(1, 4, 3)}
    rate = {"fast": 10.0, "slow": 4.0, "words": 0.0}
    t0 = {s: torch.tensor([0.5 * (s == "slow")], dtype=torch.float64) for s in tokens}
    encoded = Encoded(tuple(tokens), tokens, {}, {}, torch.ones(1, 3, dtype=torch.bool), rate, t0)
    fast, slow, words = (in_time(encoded, s, 8)[0] for s in tokens)
    torch.testing.assert_close(slow[[0, 2]], fast[[5, 10]])
    assert not torch.allclose(slow[1], fast[7]) and not torch.allclose(slow[1], fast[8])
    torch.testing.assert_close(words, sinusoids(torch.arange(4), 8))
