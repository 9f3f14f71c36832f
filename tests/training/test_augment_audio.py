from __future__ import annotations

import torch

from affuse.training.augment_audio import add_noise, change_gain, change_speed

LENGTHS = torch.tensor([4000, 8000, 0])
MASK = torch.arange(8000) < LENGTHS.unsqueeze(1)
TONE = torch.sin(2 * torch.pi * 500 * torch.arange(8000) / 16000) * MASK


def test_noise_has_the_ratio_and_stays_inside() -> None:
    torch.manual_seed(0)
    y, mask = add_noise(TONE, MASK, snr_db=(20.0, 20.0), p=1.0)
    noise = y - TONE
    assert torch.equal(mask, MASK)
    assert noise[~MASK].abs().max() == 0
    assert y.isfinite().all()
    ratio = 10 * (TONE[:2].square().sum(1) / noise[:2].square().sum(1)).log10()
    torch.testing.assert_close(ratio, torch.full((2,), 20.0), atol=0.5, rtol=0)
    assert torch.equal(add_noise(TONE, MASK, p=0.0)[0], TONE)


def test_gain_is_one_factor_per_row() -> None:
    y, _ = change_gain(TONE, MASK, gain_db=6.0)
    factor = y[:2].square().sum(1).sqrt() / TONE[:2].square().sum(1).sqrt()
    torch.testing.assert_close(y[:2], TONE[:2] * factor.unsqueeze(1))
    assert (20 * factor.log10()).abs().max() <= 6.0


def test_speed_moves_pitch_and_length_together() -> None:
    y, mask = change_speed(TONE, MASK, speed=(1.25, 1.25))
    assert mask.sum(1).tolist() == [3200, 6400, 0]
    assert y.shape == mask.shape == (3, 6400)
    spectrum = torch.fft.rfft(y[1]).abs()
    assert abs(int(spectrum.argmax()) * 16000 / 6400 - 625) < 5
    assert y[~mask].numel() == 0 or y[~mask].abs().max() == 0


def test_speed_one_changes_nothing_and_slower_rows_are_not_cut() -> None:
    y, mask = change_speed(TONE, MASK, speed=(1.0, 1.0))
    torch.testing.assert_close(y, TONE, atol=1e-5, rtol=0)
    assert torch.equal(mask, MASK)
    y, mask = change_speed(TONE, MASK, speed=(0.8, 0.8))
    assert mask.sum(1).tolist() == [5000, 10000, 0]


def test_rows_without_sound_and_equal_seeds() -> None:
    empty = torch.zeros(2, 10, dtype=torch.bool)
    for augment in (add_noise, change_gain, change_speed):
        torch.manual_seed(1)
        first = augment(TONE, MASK)
        torch.manual_seed(1)
        second = augment(TONE, MASK)
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])
        y, mask = augment(torch.zeros(2, 10), empty)
        assert y.isfinite().all()
        assert not mask.any()
