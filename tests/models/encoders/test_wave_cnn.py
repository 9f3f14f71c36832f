from __future__ import annotations

import pytest
import torch

from affuse.core.errors import BadConfig
from affuse.core.types import StreamSpec
from affuse.models.encoders.wave_cnn import WaveCNN

SPEC = StreamSpec("waveform", "audio", (), 8000.0)
SMALL = {"channels": (8, 8, 8), "pool": 4, "dim": 8}


@pytest.mark.parametrize("samples", [1, 37, 160, 8000, 40001])
def test_any_length_has_its_tokens(samples):
    encoder = WaveCNN(SPEC, channels=(8, 8, 8, 8), dim=8).eval()
    found = encoder(torch.randn(2, samples), torch.ones(2, samples, dtype=torch.bool))
    per_token = SPEC.rate / encoder.rate
    assert found.tokens.shape[1] == -(-samples // per_token) and found.mask.all()
    assert found.pooled.isfinite().all()


def test_an_utterance_does_not_depend_on_its_loudness_or_on_what_is_masked():
    encoder = WaveCNN(SPEC, **SMALL).eval()
    x, mask = torch.randn(2, 4000), torch.ones(2, 4000, dtype=torch.bool)
    torch.testing.assert_close(encoder(x * 0.01, mask).pooled, encoder(x, mask).pooled, rtol=1e-3, atol=1e-4)
    mask = torch.arange(4000) < torch.tensor([[4000], [2500]])
    torch.testing.assert_close(encoder(x * mask, mask).pooled, encoder(x, mask).pooled)


def test_the_loudness_may_be_kept():
    encoder = WaveCNN(SPEC, **SMALL, normalise=False).eval()
    x, mask = torch.randn(2, 4000), torch.arange(4000) < torch.tensor([[4000], [2500]])
    assert not torch.allclose(encoder(x * 0.01, mask).pooled, encoder(x, mask).pooled)
    torch.testing.assert_close(encoder(x * mask, mask).pooled, encoder(x, mask).pooled)


@pytest.mark.parametrize("over", ["none", "xlstm", "lstm", "gru", "transformer"])
def test_what_runs_over_the_frames_sees_both_ends(over):
    torch.manual_seed(0)
    encoder = WaveCNN(SPEC, **SMALL, over=over, normalise=False).double().eval()
    x, mask = torch.randn(1, 2000).double(), torch.ones(1, 2000, dtype=torch.bool)
    changed = x.clone()
    changed[:, -400:] += 1
    first = (encoder(changed, mask).tokens - encoder(x, mask).tokens)[0, 0].abs().max()
    assert (first > 0) == (over != "none")


def test_statistics_know_no_padding():
    torch.manual_seed(0)
    encoder = WaveCNN(SPEC, **SMALL, dropout=0.0)
    x, mask = torch.randn(3, 4000), torch.ones(3, 4000, dtype=torch.bool)
    encoder(x, mask)
    alone = {k: v.clone() for k, v in encoder.state_dict().items() if "running" in k}
    for name in alone:
        torch.nn.init.constant_(encoder.state_dict()[name], float("var" in name))
    encoder(torch.cat([x, torch.zeros(3, 4000)], 1), torch.cat([mask, torch.zeros_like(mask)], 1))
    assert alone
    for name, value in alone.items():
        torch.testing.assert_close(encoder.state_dict()[name], value)


@pytest.mark.parametrize(
    "options",
    [{"channels": (8,)}, {"convs": 0}, {"first": 4, "stride": 8}, {"dim": 7}, {"layers": 0}, {"dim": 6, "heads": 4}],
)
def test_sizes_that_do_not_exist_are_refused(options):
    with pytest.raises(BadConfig):
        WaveCNN(SPEC, **options)


def test_only_samples_are_taken():
    with pytest.raises(BadConfig, match="waveform"):
        WaveCNN(StreamSpec("log_mel", "audio", (64,), 100.0))
