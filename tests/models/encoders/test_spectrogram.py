"""The transformer over patches of a spectrogram: what a patch holds, times, masks, bands."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import StreamSpec
from affuse.layers.positions import sinusoids
from affuse.models.encoders.spectrogram import Spectrogram

SOUND = StreamSpec("log_mel", "audio", (10,), 100.0)
PATCHES = [(10, 0), (4, 4), (1, 10)]


def make(patch=(4, 4), **options) -> Spectrogram:
    torch.manual_seed(0)
    return Spectrogram(SOUND, **{"patch": patch, "dim": 8, "layers": 2, "heads": 2, **options}).eval()


def sounds(longest: int = 23) -> tuple[Tensor, Tensor]:
    mask = torch.arange(longest) < torch.tensor([[23], [9], [0], [12]])
    x = torch.randn(4, 23, 10, generator=torch.Generator().manual_seed(1))
    return nn.functional.pad(x, (0, 0, 0, longest - 23)) * mask.unsqueeze(-1), mask


@pytest.mark.parametrize("patch", PATCHES)
def test_one_token_per_time_patch_at_its_rate(patch):
    encoder, (x, mask) = make(patch), sounds()
    found, time = encoder(x, mask), patch[0]
    assert encoder.rate == pytest.approx(100 / time)
    assert found.tokens.shape == (4, -(-23 // time), 8) and found.pooled.shape == (4, encoder.dim)
    assert found.mask.sum(1).tolist() == [-(-n // time) for n in (23, 9, 0, 12)]
    assert not found.tokens[~found.mask].any() and not found.pooled[2].any()


def test_a_patch_is_its_steps_and_bands():
    """By hand: patches of 4 steps and 4 bands, the last of each filled up with zeros."""
    encoder, (x, _) = make(), sounds()
    found = encoder._patches(x)
    assert found.shape == (4, 6, 3, 16)
    torch.testing.assert_close(found[0, 2, 1], x[0, 8:12, 4:8].flatten())
    edge = torch.zeros(4, 4)
    edge[:3, :2] = x[0, 20:23, 8:10]
    torch.testing.assert_close(found[0, 5, 2], edge.flatten())


def test_without_attention_it_is_the_mean_over_the_bands_of_a_time():
    encoder, (x, mask) = make(), sounds()
    for layer in encoder.layers.layers:
        for last in (layer.out, layer.feed[3]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
    place = sinusoids(torch.arange(6), 8)
    h = encoder.project(encoder._patches(x)) + place[:, None] + encoder.bands
    wanted = nn.functional.layer_norm(h, (8,)).mean(2)
    found = encoder(x, mask)
    torch.testing.assert_close(found.tokens[found.mask], wanted[found.mask], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("longer", [24, 25, 40, 61])
def test_padding_of_any_length_changes_nothing(patch, longer):
    encoder = make(patch)
    x, mask = sounds(longer)
    found, short = encoder(x.masked_fill(~mask.unsqueeze(-1), float("nan")), mask), encoder(*sounds())
    torch.testing.assert_close(found.pooled, short.pooled, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.tokens[:, : short.tokens.shape[1]], short.tokens, rtol=1e-4, atol=1e-5)
    assert not found.mask[:, short.mask.shape[1] :].any()


def test_time_and_bands_have_positions():
    encoder, (x, mask) = make(), sounds()
    x, mask = x[:1, :20, :8], mask[:1, :20]
    encoder = Spectrogram(StreamSpec("log_mel", "audio", (8,), 100.0), patch=(4, 4), dim=8, layers=1, heads=2).eval()
    nn.init.normal_(encoder.bands)
    patches = encoder._patches(x)
    for axis in (1, 2):  # the same patches in another order
        turned = patches.flip(axis).unflatten(3, (4, 4)).transpose(2, 3).flatten(1, 2).flatten(2)
        assert not torch.allclose(encoder(turned, mask).pooled, encoder(x, mask).pooled, atol=1e-3)


def test_bands_are_standardised_on_what_is_valid():
    (x, mask), made = sounds(), make()
    made.fit([((x * 3 - 40) * mask.unsqueeze(-1), mask)])
    torch.testing.assert_close(made.norm.mean, (x * 3 - 40)[mask].mean(0), rtol=1e-4, atol=1e-4)


def test_stochastic_depth_is_for_training_only():
    encoder, given = make(drop_path=0.5, dropout=0.0), sounds()
    assert torch.equal(encoder(*given).pooled, encoder(*given).pooled)
    encoder.train()
    assert not torch.equal(encoder(*given).pooled, encoder(*given).pooled)


def test_misfits_are_refused():
    with pytest.raises(BadConfig, match="waveform"):
        Spectrogram(StreamSpec("waveform", "audio", (), 16000.0))
    for patch in ((0, 4), (4, -1), (4, 11), (4,), (4, 4, 4)):
        with pytest.raises(BadConfig, match="patch = "):
            Spectrogram(SOUND, patch=patch)
