"""ResNet-18 against the one of transformers, on pictures and on masked spectrograms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import StreamSpec
from affuse.models.encoders.resnet18 import ResNet18

PICTURES = StreamSpec("frames", "vision", (64, 48, 3), 1.0)
SOUND = StreamSpec("log_stft", "audio", (40,), 62.5)


def settled(spec: StreamSpec, width: int = 4) -> ResNet18:
    """As after training: no batch norm is at its start."""
    torch.manual_seed(0)
    encoder = ResNet18(spec, width=width)
    for module in encoder.modules():
        if hasattr(module, "running_var"):
            for value, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
            ):
                nn.init.uniform_(value, low, high)
    return encoder.eval()


def spectrogram(longest: int = 130) -> tuple[Tensor, Tensor]:
    mask = torch.arange(longest) < torch.tensor([[130], [67], [0], [33]])
    x = torch.randn(4, 130, 40, generator=torch.Generator().manual_seed(1))
    return nn.functional.pad(x, (0, 0, 0, longest - 130)) * mask.unsqueeze(-1), mask


def reference(encoder: ResNet18, channels: int) -> nn.Module:
    """The ResNet-18 of transformers with the same weights."""
    transformers = pytest.importorskip("transformers")
    width = encoder.dim // 8
    config = transformers.ResNetConfig(
        num_channels=channels,
        embedding_size=width,
        hidden_sizes=[width, 2 * width, 4 * width, 8 * width],
        depths=[2, 2, 2, 2],
        layer_type="basic",
    )
    model = transformers.ResNetModel(config).eval()
    own = [v for k, v in encoder.trunk.state_dict().items() if "num_batches" not in k]
    theirs = [v for k, v in model.state_dict().items() if "num_batches" not in k]
    with torch.no_grad():
        for a, b in zip(own, theirs, strict=True):
            b.copy_(a)
    return model


def test_parameters_are_those_of_resnet18():
    encoder = ResNet18(StreamSpec("frames", "vision", (224, 224, 3), 1.0))
    assert encoder.dim == 512
    assert sum(p.numel() for p in encoder.parameters()) == 11_689_512 - 513_000  # as published, less its classifier
    sound = ResNet18(StreamSpec("log_stft", "audio", (257,), 62.5))
    assert sum(p.numel() for p in sound.parameters()) == 11_176_512 - 2 * 64 * 49  # one channel in place of three


def test_pictures_equal_the_reference():
    encoder, x = settled(PICTURES), torch.rand(2, 3, 64, 48, 3)
    encoder.fit([(x, torch.ones(2, 3, dtype=torch.bool))])
    wanted = reference(encoder, 3)(encoder.norm(x).flatten(0, 1).permute(0, 3, 1, 2)).pooler_output.view(2, 3, 32)
    mask = torch.tensor([[True, True, True], [True, False, True]])
    found = encoder(x, mask)
    torch.testing.assert_close(found.tokens[mask], wanted[mask], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.pooled[1], wanted[1, [0, 2]].mean(0), rtol=1e-4, atol=1e-5)
    assert not found.tokens[~mask].any()


@pytest.mark.parametrize("length", [1, 33, 66, 67, 130])
def test_a_spectrogram_of_any_length_equals_the_reference_whatever_the_padding(length: int):
    encoder = settled(SOUND)
    x = torch.randn(1, length, 40)
    wanted = reference(encoder, 1)(encoder.norm(x).unsqueeze(1)).pooler_output.flatten(1)
    for padding in (0, 1, 31, 64):
        mask = torch.arange(length + padding)[None] < length
        found = encoder(nn.functional.pad(x, (0, 0, 0, padding)), mask)
        torch.testing.assert_close(found.pooled, wanted, rtol=1e-4, atol=1e-5)
        assert found.mask.sum() == -(-length // 32)


def test_training_on_padding_changes_no_statistic():
    encoder = settled(SOUND).train()
    start = {k: v.clone() for k, v in encoder.state_dict().items()}
    pooled = encoder(*spectrogram()).pooled
    after = {k: v.clone() for k, v in encoder.state_dict().items()}
    encoder.load_state_dict(start)
    torch.testing.assert_close(encoder(*spectrogram(200)).pooled, pooled, rtol=1e-4, atol=1e-4)
    for name, value in encoder.state_dict().items():
        torch.testing.assert_close(value, after[name], rtol=1e-4, atol=1e-5)
    assert not pooled[2].any()


def test_what_is_masked_is_not_seen():
    encoder, (x, mask) = settled(SOUND), spectrogram()
    mask[0, 40:80] = False  # a hole
    noisy = x.masked_fill(~mask.unsqueeze(-1), float("nan"))
    torch.testing.assert_close(encoder(noisy, mask).pooled, encoder(x, mask).pooled)
    encoder, x, mask = settled(PICTURES), torch.rand(2, 3, 64, 48, 3), torch.tensor([[True, False, True], [False] * 3])
    noisy = x.masked_fill(~mask[..., None, None, None], float("nan"))
    torch.testing.assert_close(encoder(noisy, mask).pooled, encoder(x, mask).pooled)
    assert not encoder(x, mask).pooled[1].any()


def test_gradients_stay_within_the_mask():
    encoder, (x, mask) = settled(SOUND).train(), spectrogram()
    encoder(x.requires_grad_(), mask).pooled.square().sum().backward()
    assert not x.grad[~mask].any()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())


def test_colours_and_bands_are_standardised_on_what_is_valid():
    x, mask = spectrogram()
    encoder = ResNet18(SOUND, width=4)
    encoder.fit([(x * 3 + 7, mask)])
    torch.testing.assert_close(encoder.norm.mean, (x * 3 + 7)[mask].mean(0), rtol=1e-4, atol=1e-4)
    encoder = ResNet18(PICTURES, width=4)
    flat = torch.tensor([0.2, 0.5, 0.9]).expand(2, 2, 64, 48, 3).clone()
    flat[0, 1] = 0
    encoder.fit([(flat, torch.tensor([[True, False], [True, True]]))])
    torch.testing.assert_close(encoder.norm.mean, torch.tensor([0.2, 0.5, 0.9]))


@pytest.mark.parametrize(
    "spec",
    [
        StreamSpec("small", "vision", (32, 64, 3), 1.0),
        StreamSpec("grey", "vision", (64, 64, 1), 1.0),
        StreamSpec("face_vectors", "vision", (40,), 5.0),
        StreamSpec("waveform", "audio", (), 16000.0),
    ],
)
def test_misfits_are_refused(spec: StreamSpec):
    with pytest.raises(BadConfig, match=spec.name):
        ResNet18(spec)
    with pytest.raises(BadConfig, match="width = 0"):
        ResNet18(PICTURES, width=0)
