from __future__ import annotations

import math

import torch

from affuse.layers.filterbank import LOWEST, Filterbank
from affuse.layers.log_mel import mel_edges


def tones(rate: int, bands: int) -> torch.Tensor:
    """One second of every band's own frequency [bands, rate], of amplitude 1."""
    t = torch.arange(rate, dtype=torch.float64) / rate
    centres = mel_edges(bands, LOWEST, rate / 2)[1:-1, None]
    return torch.sin(2 * math.pi * centres * t).float()


def test_a_tone_is_loudest_in_its_own_band():
    bank, x = Filterbank(8000.0, 40).eval(), tones(8000, 40)
    energy, _ = bank(x, torch.ones(40, 8000, dtype=torch.bool))
    middle = energy[:, 50]
    assert middle.argmax(1).tolist() == list(range(40))
    assert middle.amax(1).abs().max() < 0.2  # dB


def test_a_step_every_ten_milliseconds_for_any_length():
    for rate in (8000.0, 16000.0, 22050.0):
        bank = Filterbank(rate, 8).eval()
        assert abs(bank.hop / rate - 0.01) < 3e-4
        for samples in (1, bank.hop - 1, bank.hop, bank.hop + 1, int(rate)):
            energy, mask = bank(torch.randn(2, samples), torch.ones(2, samples, dtype=torch.bool))
            assert energy.shape == (2, -(-samples // bank.hop), 8) and mask.all()


def test_a_step_is_where_its_sound_is():
    bank = Filterbank(8000.0, 8).eval()
    x = torch.zeros(1, 8000)
    x[:, 4000] = 100.0
    energy, _ = bank(x, torch.ones(1, 8000, dtype=torch.bool))
    assert int(energy.sum(2).argmax()) in (49, 50)


def test_the_filters_are_learned():
    bank = Filterbank(8000.0, 8)
    bank(torch.randn(2, 800), torch.ones(2, 800, dtype=torch.bool))[0].square().sum().backward()
    assert bank.filters.grad is not None and bank.filters.grad.any()


def test_padding_gives_nothing_and_changes_nothing():
    x, mask, bank = torch.randn(2, 800), torch.ones(2, 800, dtype=torch.bool), Filterbank(8000.0, 8)
    found, _ = bank(x, mask)
    longer, there = bank(torch.cat([x, torch.zeros(2, 800)], 1), torch.cat([mask, torch.zeros_like(mask)], 1))
    assert there.sum(1).tolist() == [10, 10] and not longer[:, 10:].any()
    torch.testing.assert_close(longer[:, :10], found)
