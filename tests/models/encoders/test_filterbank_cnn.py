from __future__ import annotations

import pytest
import torch

from affuse.core.errors import BadConfig
from affuse.core.types import StreamSpec
from affuse.models.encoders.filterbank_cnn import FilterbankCNN

SPEC = StreamSpec("waveform", "audio", (), 8000.0)
SMALL = {"bands": 12, "channels": (6, 8, 8), "dim": 8}


@pytest.mark.parametrize("samples", [1, 37, 160, 8000, 20001])
def test_any_length_has_its_tokens(samples):
    encoder = FilterbankCNN(SPEC, **SMALL).eval()
    found = encoder(torch.randn(2, samples), torch.ones(2, samples, dtype=torch.bool))
    assert encoder.rate == 50.0 and found.tokens.shape[1] == -(-samples // 160) and found.mask.all()
    assert found.pooled.isfinite().all()


def test_an_utterance_does_not_depend_on_its_loudness_or_on_what_is_masked():
    encoder = FilterbankCNN(SPEC, **SMALL).eval()
    x, mask = torch.randn(2, 4000), torch.arange(4000) < torch.tensor([[4000], [2500]])
    torch.testing.assert_close(encoder(x * 0.01, mask).pooled, encoder(x, mask).pooled, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(encoder(x * mask, mask).pooled, encoder(x, mask).pooled)


def test_quiet_ends_are_left_out():
    torch.manual_seed(0)
    encoder = FilterbankCNN(SPEC, **SMALL, trim_db=30.0).eval()
    x, quiet = torch.randn(1, 3200), 1e-4 * torch.randn(1, 4000)
    whole = torch.cat([quiet, x, quiet], 1)
    found = encoder(whole, torch.ones(1, 11200, dtype=torch.bool))
    assert encoder.rate == 0.0 and 20 <= found.mask.sum() <= 22


def test_bands_and_steps_are_hidden_in_training_only():
    encoder = FilterbankCNN(SPEC, **SMALL, dropout=0.0, conv_dropout=0.0, hide_time=0.9, hide_bands=0.9)
    x, mask = torch.randn(2, 8000), torch.ones(2, 8000, dtype=torch.bool)
    assert not torch.equal(encoder(x, mask).pooled, encoder(x, mask).pooled)
    encoder.eval()
    assert torch.equal(encoder(x, mask).pooled, encoder(x, mask).pooled)


@pytest.mark.parametrize(
    "options", [{"bands": 1}, {"channels": (8,)}, {"hide_time": 1.5}, {"hide_bands": -0.1}, {"dim": 7}, {"layers": 0}]
)
def test_sizes_that_do_not_exist_are_refused(options):
    with pytest.raises(BadConfig):
        FilterbankCNN(SPEC, **options)


def test_only_samples_are_taken():
    with pytest.raises(BadConfig, match="waveform"):
        FilterbankCNN(StreamSpec("log_mel", "audio", (64,), 100.0))
