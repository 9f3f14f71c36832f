from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import StreamSpec
from affuse.layers.log_mel import LogMel
from affuse.models.encoders.log_mel_cnn import LogMelCNN
from affuse.models.encoders.log_mel_crnn import LogMelCRNN

WAVE = StreamSpec("audio", "audio", (), 16000.0)
LENGTHS = torch.tensor([16000, 9000, 0, 12345])
SMALL = {"dim": 16, "channels": (4, 6, 8, 8), "trim_db": 0.0}
STILL = {"dropout": 0.0, "conv_dropout": 0.0, "stretch": 0.0, "shift": 0.0, "time_mask": 0.0, "freq_mask": 0.0}


def batch(length: int = 16000) -> tuple[Tensor, Tensor]:
    mask = torch.arange(length) < LENGTHS.unsqueeze(1)
    x = 0.1 * torch.randn(4, 16000, generator=torch.Generator().manual_seed(0))
    return nn.functional.pad(x, (0, length - 16000)) * mask, mask


def trained(cls: type[LogMelCNN] | type[LogMelCRNN], spec: StreamSpec = WAVE) -> LogMelCNN | LogMelCRNN:
    """An encoder whose running statistics and normalisation are not the initial ones."""
    torch.manual_seed(0)
    encoder = cls(spec, **SMALL)
    x, mask = batch()
    if spec.shape:
        x, mask = LogMel(window=640, hop=320)(x), LogMel(window=640, hop=320).frame_mask(mask)
    encoder.fit([(x, mask)])
    for _ in range(3):
        encoder(x, mask)
    return encoder.eval()


both = pytest.mark.parametrize("cls", [LogMelCNN, LogMelCRNN])


@both
def test_padding_and_batch_composition_change_nothing(cls: type[LogMelCNN]) -> None:
    encoder, (x, mask) = trained(cls), batch()
    e = encoder(x, mask)
    assert e.pooled.shape == (4, encoder.dim)
    assert e.tokens.shape == (*e.mask.shape, encoder.dim)
    for length in (16001, 16777, 24000):
        longer = encoder(*batch(length))
        torch.testing.assert_close(longer.pooled, e.pooled, atol=1e-5, rtol=0)
        torch.testing.assert_close(longer.tokens[longer.mask], e.tokens[e.mask], atol=1e-5, rtol=0)
    for i, n in enumerate(LENGTHS.tolist()):
        alone = encoder(x[i : i + 1, : max(n, 1)], mask[i : i + 1, : max(n, 1)])
        torch.testing.assert_close(alone.pooled[0], e.pooled[i], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.tokens[alone.mask], e.tokens[i][e.mask[i]], atol=1e-5, rtol=0)


@both
def test_absent_rows_are_zero_and_masked_samples_unseen(cls: type[LogMelCNN]) -> None:
    encoder, (x, mask) = trained(cls), batch()
    mask[0, 4000:9000] = False  # an interior hole
    e, loud = encoder(x, mask), encoder(x.masked_fill(~mask, 0.9), mask)
    torch.testing.assert_close(e.pooled, loud.pooled)
    assert e.pooled[2].abs().max() == 0
    assert e.tokens[~e.mask].abs().max() == 0
    empty = encoder(torch.zeros(2, 500), torch.zeros(2, 500, dtype=torch.bool))
    assert empty.pooled.abs().max() == 0
    assert not empty.mask.any()


@both
def test_training_statistics_do_not_see_padding(cls: type[LogMelCNN]) -> None:
    torch.manual_seed(0)
    encoder = cls(WAVE, **SMALL, **STILL)
    state = {k: v.clone() for k, v in encoder.state_dict().items()}
    pooled = encoder(*batch()).pooled
    after = {k: v.clone() for k, v in encoder.state_dict().items()}
    encoder.load_state_dict(state)
    torch.testing.assert_close(encoder(*batch(20000)).pooled, pooled, atol=1e-5, rtol=1e-4)
    for name, value in encoder.state_dict().items():
        torch.testing.assert_close(value, after[name], atol=1e-5, rtol=1e-4)


@both
def test_every_parameter_gets_a_gradient(cls: type[LogMelCNN]) -> None:
    torch.manual_seed(0)
    encoder = cls(WAVE, **SMALL)
    encoder.fit([batch()])
    e = encoder(*batch())
    (e.pooled.square().sum() + e.tokens.sum()).backward()
    for name, p in encoder.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, name


@both
def test_stored_log_mel_gives_the_same_as_the_waveform(cls: type[LogMelCNN]) -> None:
    wave, stored = trained(cls), trained(cls, StreamSpec("log_mel", "audio", (64,), 50.0))
    stored.load_state_dict(wave.state_dict())
    x, mask = batch()
    layer = LogMel(window=640, hop=320)
    e, f = wave(x, mask), stored(layer(x), layer.frame_mask(mask))
    torch.testing.assert_close(e.pooled, f.pooled, atol=1e-5, rtol=0)


def test_fit_sets_the_exact_moments_of_valid_frames() -> None:
    encoder, (x, mask) = LogMelCNN(WAVE, trim_db=0.0), batch()
    encoder.fit([(x[:1], mask[:1]), (x[1:], mask[1:])])
    layer = LogMel(window=640, hop=320)
    frames = layer(x)[layer.frame_mask(mask)].double()
    torch.testing.assert_close(encoder.input.mean.double(), frames.mean(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(encoder.input.std.double(), frames.std(0, unbiased=False), atol=1e-4, rtol=0)


def test_misfits_are_refused() -> None:
    with pytest.raises(BadConfig, match="crops"):
        LogMelCNN(StreamSpec("crops", "vision", (48, 48, 3), 25.0))
    with pytest.raises(BadConfig, match="at least two"):
        LogMelCNN(WAVE, channels=(8,))
    with pytest.raises(BadConfig, match="even"):
        LogMelCRNN(WAVE, dim=31)


def test_a_missing_number_does_not_empty_its_utterance() -> None:
    encoder = trained(LogMelCNN, StreamSpec("mel", "audio", (64,), 50.0))
    x = -40 + 10 * torch.randn(2, 30, 64, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 30, dtype=torch.bool)
    whole = encoder(x, mask)
    x[0, 7, 5] = float("nan")
    found = encoder(x, mask)
    assert found.mask.equal(whole.mask)
    torch.testing.assert_close(found.pooled[1], whole.pooled[1])
    assert 0 < (found.pooled[0] - whole.pooled[0]).abs().max() < whole.pooled[0].abs().max()


@pytest.mark.parametrize("stretch", [-0.1, 1.0, float("inf")])
def test_a_stretch_to_nothing_is_refused(stretch: float) -> None:
    with pytest.raises(BadConfig, match="stretch"):
        LogMelCNN(WAVE, stretch=stretch)
