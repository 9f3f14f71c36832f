from __future__ import annotations

import pytest
import torch

from affuse.core.errors import BadConfig
from affuse.core.types import StreamSpec
from affuse.models.encoders.wave_cnn import WaveCNN

SPEC = StreamSpec("waveform", "audio", (), 8000.0)
FRONTS = ("filters", "conv")


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("samples", [1, 37, 160, 8000, 40001])
def test_any_length_has_its_tokens(front, samples):
    encoder = WaveCNN(SPEC, front=front, channels=(8, 8, 8, 8), dim=8).eval()
    found = encoder(torch.randn(2, samples), torch.ones(2, samples, dtype=torch.bool))
    per_token = SPEC.rate / encoder.rate
    assert found.tokens.shape[1] == -(-samples // per_token) and found.mask.all()
    assert found.pooled.isfinite().all()


@pytest.mark.parametrize("front", FRONTS)
def test_an_utterance_does_not_depend_on_its_loudness_or_on_what_is_masked(front):
    encoder = WaveCNN(SPEC, front=front, channels=(8, 8, 8), dim=8).eval()
    x, mask = torch.randn(2, 4000), torch.ones(2, 4000, dtype=torch.bool)
    torch.testing.assert_close(encoder(x * 0.01, mask).pooled, encoder(x, mask).pooled, rtol=1e-3, atol=1e-4)
    mask = torch.arange(4000) < torch.tensor([[4000], [2500]])
    torch.testing.assert_close(encoder(x * mask, mask).pooled, encoder(x, mask).pooled)


def test_a_plain_convolution_may_keep_the_loudness():
    encoder = WaveCNN(SPEC, front="conv", channels=(8, 8, 8), dim=8, normalise=False).eval()
    x, mask = torch.randn(2, 4000), torch.arange(4000) < torch.tensor([[4000], [2500]])
    assert not torch.allclose(encoder(x * 0.01, mask).pooled, encoder(x, mask).pooled)
    torch.testing.assert_close(encoder(x * mask, mask).pooled, encoder(x, mask).pooled)


@pytest.mark.parametrize("over", ["none", "xlstm", "lstm", "gru", "transformer"])
def test_what_runs_over_the_frames_sees_both_ends(over):
    torch.manual_seed(0)
    encoder = WaveCNN(SPEC, front="conv", channels=(8, 8, 8), pool=4, dim=8, over=over, normalise=False).double().eval()
    x, mask = torch.randn(1, 2000).double(), torch.ones(1, 2000, dtype=torch.bool)
    changed = x.clone()
    changed[:, -400:] += 1
    first = (encoder(changed, mask).tokens - encoder(x, mask).tokens)[0, 0].abs().max()
    assert (first > 0) == (over != "none")


def test_bands_and_steps_are_hidden_in_training_only():
    encoder = WaveCNN(SPEC, channels=(8, 8, 8), dim=8, dropout=0.0, hide_time=0.9, hide_bands=0.9)
    x, mask = torch.randn(2, 8000), torch.ones(2, 8000, dtype=torch.bool)
    assert not torch.equal(encoder(x, mask).pooled, encoder(x, mask).pooled)
    encoder.eval()
    assert torch.equal(encoder(x, mask).pooled, encoder(x, mask).pooled)


def test_statistics_know_no_padding():
    torch.manual_seed(0)
    off = {"dropout": 0.0, "hide_time": 0.0, "hide_bands": 0.0}
    for encoder in [WaveCNN(SPEC, front=front, channels=(8, 8, 8), dim=8, **off) for front in FRONTS]:
        x, mask = torch.randn(3, 4000), torch.ones(3, 4000, dtype=torch.bool)
        encoder(x, mask)
        alone = {k: v.clone() for k, v in encoder.state_dict().items() if "running" in k}
        for name, value in encoder.state_dict().items():
            if "running" in name:
                value.copy_(torch.ones_like(value) if "var" in name else torch.zeros_like(value))
        longer = torch.cat([x, torch.zeros(3, 4000)], 1), torch.cat([mask, torch.zeros_like(mask)], 1)
        encoder(*longer)
        after = encoder.state_dict()
        assert alone
        for name, value in alone.items():
            torch.testing.assert_close(after[name], value)


@pytest.mark.parametrize(
    "options",
    [
        {"channels": (8,)},
        {"convs": 0},
        {"front": "conv", "first": 4, "stride": 8},
        {"dim": 7},
        {"layers": 0},
        {"dim": 6, "heads": 4},
        {"normalise": False},
        {"hide_time": 1.5},
        {"hide_bands": -0.1},
    ],
)
def test_sizes_that_do_not_exist_are_refused(options):
    with pytest.raises(BadConfig):
        WaveCNN(SPEC, **options)


def test_only_samples_are_taken():
    with pytest.raises(BadConfig, match="waveform"):
        WaveCNN(StreamSpec("log_mel", "audio", (64,), 100.0))
