from __future__ import annotations

import pytest
import torch

from affuse.core.errors import BadConfig
from affuse.core.types import StreamSpec
from affuse.models.encoders.xlstm import XLSTMEncoder

SPEC = StreamSpec("vectors", "audio", (5,), 10.0)
MASK = torch.arange(9) < torch.tensor([[9], [4], [0]])


def made(**options) -> tuple[XLSTMEncoder, torch.Tensor]:
    torch.manual_seed(0)
    encoder, x = XLSTMEncoder(SPEC, dim=8, heads=2, **options).eval(), torch.randn(3, 9, 5)
    encoder.fit([(x, MASK)])
    return encoder, x


@pytest.mark.parametrize("blocks", [("mlstm",), ("slstm", "mlstm")])
def test_causal_reads_nothing_that_comes_later(blocks):
    for causal in (True, False):
        encoder, x = made(causal=causal, blocks=blocks)
        later = x.clone()
        later[0, 7:] += 1
        first = (encoder(later, MASK).tokens - encoder(x, MASK).tokens)[0, :7].abs().max()
        assert (first == 0) == causal


def test_the_last_valid_step_the_mean_and_nothing():
    encoder, x = made(pool="last")
    found = encoder(x, MASK)
    torch.testing.assert_close(found.pooled[:2], torch.stack([found.tokens[0, 8], found.tokens[1, 3]]))
    mean = made(pool="mean")[0](x, MASK)
    torch.testing.assert_close(mean.pooled[1], mean.tokens[1, :4].mean(0))
    assert not found.pooled[2].any() and not mean.pooled[2].any()


def test_without_standardisation_missing_numbers_are_zero():
    encoder, x = made(standardise=False)
    x[0, 0, 0], x[0, 1, 1] = float("nan"), float("inf")
    zero = x.nan_to_num(0.0, 0.0, 0.0)
    torch.testing.assert_close(encoder(x, MASK).pooled, encoder(zero, MASK).pooled)


def test_only_vectors_are_taken():
    with pytest.raises(BadConfig, match="vectors"):
        XLSTMEncoder(StreamSpec("waveform", "audio", (), 8000.0))
