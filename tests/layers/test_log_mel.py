from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from affuse.core.errors import BadConfig
from affuse.layers.log_mel import MFCC, LogMel, deltas, mel_filters, spec_augment, stretch, trim_silence


def sound(samples: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 16000
    return (0.3 * np.sin(2 * np.pi * (200 + 300 * t) * t) + 0.01 * rng.normal(size=samples)).astype(np.float32)


def librosa_log_mel(y: np.ndarray, **parameters: float | int | None) -> np.ndarray:
    mel = librosa.feature.melspectrogram(y=y, sr=16000, pad_mode="constant", **parameters)
    return librosa.power_to_db(mel, top_db=None).T


@pytest.mark.parametrize(
    ("n_fft", "n_mels", "f_min", "f_max"), [(400, 64, 0.0, None), (512, 40, 50.0, 7600.0), (1024, 128, 0.0, None)]
)
def test_filters_equal_librosa(n_fft: int, n_mels: int, f_min: float, f_max: float | None) -> None:
    want = librosa.filters.mel(sr=16000, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max).T
    np.testing.assert_allclose(mel_filters(16000, n_fft, n_mels, f_min, f_max), want, atol=1e-7)


@pytest.mark.parametrize("samples", [16000, 15999, 16159, 161, 100])
@pytest.mark.parametrize(("window", "hop"), [(400, 160), (512, 320)])
def test_log_mel_equals_librosa(samples: int, window: int, hop: int) -> None:
    y = sound(samples)
    got = LogMel(16000, 64, window, hop)(torch.from_numpy(y)[None])[0]
    want = librosa_log_mel(y, n_fft=window, hop_length=hop, n_mels=64)
    assert got.shape == want.shape == (1 + samples // hop, 64)
    np.testing.assert_allclose(got, want, atol=1e-3)


def test_silence_is_the_floor() -> None:
    assert torch.equal(LogMel()(torch.zeros(1, 800)), torch.full((1, 6, 64), -100.0))


def test_mfcc_equals_librosa() -> None:
    y = sound(20000)
    want = librosa.feature.mfcc(S=librosa_log_mel(y, n_fft=400, hop_length=160, n_mels=64).T, n_mfcc=20).T
    np.testing.assert_allclose(MFCC()(torch.from_numpy(y)[None])[0], want, atol=1e-3)


@pytest.mark.parametrize("length", [0, 1, 159, 160, 161, 4800, 5000])
def test_frame_mask_leaves_the_frames_of_the_sound_alone(length: int) -> None:
    layer, x = LogMel(), torch.zeros(1, 5000)
    x[0, :length] = torch.from_numpy(sound(5000))[:length]
    mask = layer.frame_mask(torch.arange(5000)[None] < length)
    assert mask.shape[1] == layer(x).shape[1]
    assert mask.sum() == (1 + length // 160 if length else 0)
    if length:
        torch.testing.assert_close(layer(x)[mask], layer(x[:, :length])[0], atol=1e-3, rtol=0)


def test_gradient_is_finite_even_in_silence() -> None:
    x = torch.cat([torch.zeros(1, 2000), torch.from_numpy(sound(2000))[None]], dim=1).requires_grad_()
    LogMel()(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0


def test_deltas_are_centred_differences_of_valid_neighbours() -> None:
    x = torch.arange(8.0).square().reshape(1, 8, 1)
    mask = torch.tensor([[True] * 6 + [False] * 2])
    assert deltas(x, mask).flatten().tolist() == [0, 2, 4, 6, 8, 0, 0, 0]
    assert deltas(x[:, :2], mask[:, :2]).abs().max() == 0


def test_spec_augment_blanks_whole_steps_and_bands_within_their_share() -> None:
    torch.manual_seed(0)
    lengths = torch.randint(0, 101, (200,))
    mask = torch.arange(100) < lengths.unsqueeze(1)
    x = spec_augment(torch.ones(200, 3, 100, 40), mask, time_masks=1, time_share=0.2, freq_masks=1, freq_share=0.25)
    assert torch.equal(x[:, 0], x[:, 2])
    blank_t, blank_f = (x[:, 0] == 0).all(2), (x[:, 0] == 0).all(1)
    assert torch.equal(x[:, 0] == 0, blank_t.unsqueeze(2) | blank_f.unsqueeze(1))
    assert not (blank_t & ~mask).any(), "stretches lie within the valid part"
    assert (blank_t.sum(1) <= 0.2 * lengths + 1).all()
    assert (blank_f.sum(1) <= 11).all()
    assert blank_t.any()
    assert blank_f.any()
    assert len(set(blank_t.sum(1).tolist())) > 5
    same = torch.ones(2, 100, 40)
    assert torch.equal(spec_augment(same, mask[:2], time_masks=0, freq_masks=0), same)


def test_trimming_keeps_from_the_first_to_the_last_loud_frame() -> None:
    level = torch.full((3, 10, 4), -80.0)
    level[0, 3:7] = -10.0
    level[0, 5] = -70.0  # a pause inside stays
    level[1, 0:10] = -20.0
    mask = torch.ones(3, 10, dtype=torch.bool)
    mask[1, 6:] = False
    mask[2] = False
    x, kept = trim_silence(level, mask, 35.0)
    assert kept.sum(1).tolist() == [4, 6, 0]
    torch.testing.assert_close(x[0, :4], level[0, 3:7])
    alone, alone_kept = trim_silence(level[:1], mask[:1], 35.0)
    torch.testing.assert_close(alone[alone_kept], x[0][kept[0]])


def test_stretching_by_nothing_is_nothing_and_keeps_to_its_bounds() -> None:
    x, mask = torch.rand(4, 20, 6), torch.arange(20) < torch.tensor([[20], [10], [5], [0]])
    same, same_mask = stretch(x, mask, time=0.0, shift=0.0)
    torch.testing.assert_close(same, x)
    assert torch.equal(same_mask, mask)
    y, longer = stretch(x, mask, time=0.3, shift=2.0)
    assert y.shape[1] == longer.shape[1] == 26
    lengths = longer.sum(1)
    assert (lengths >= torch.tensor([14, 7, 3, 0])).all()
    assert (lengths <= torch.tensor([26, 13, 7, 0])).all()
    assert y.min() >= 0
    assert y.max() <= 1


@pytest.mark.parametrize(
    "options",
    [{"hop": 0}, {"window": 0}, {"n_mels": -1}, {"f_min": -1.0}, {"f_min": 5000.0, "f_max": 400.0}, {"f_max": -1.0}],
)
def test_impossible_spectrograms_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(BadConfig, match="no spectrogram"):
        LogMel(**options)
