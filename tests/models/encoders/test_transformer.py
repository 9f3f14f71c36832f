"""The transformer encoder against torch's own pre-norm layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import StreamSpec
from affuse.layers.positions import sinusoids
from affuse.models.encoders.transformer import Transformer

WORDS = StreamSpec("mult_text", "text", (12,))


def sentences(longest: int = 9) -> tuple[Tensor, Tensor]:
    mask = torch.arange(longest) < torch.tensor([[9], [4], [0], [1]])
    x = torch.randn(4, 9, 12, generator=torch.Generator().manual_seed(0))
    return nn.functional.pad(x, (0, 0, 0, longest - 9)) * mask.unsqueeze(-1), mask


def encoder(**options) -> Transformer:
    torch.manual_seed(0)
    return Transformer(WORDS, **{"layers": 2, **options}).eval()


def reference(made: Transformer, x: Tensor, mask: Tensor) -> Tensor:
    """torch's encoder layers with the same weights: [N, T, dim]."""
    h = made.project(made.norm(x)) * made.dim**0.5 + sinusoids(torch.arange(x.shape[1]), made.dim)
    for own in made.layers:
        layer = nn.TransformerEncoderLayer(
            made.dim, own.heads, own.feed[0].out_features, batch_first=True, norm_first=True
        )
        theirs = layer.self_attn, layer.linear1, layer.linear2, layer.norm1, layer.norm2
        layer.self_attn.in_proj_weight.data, layer.self_attn.in_proj_bias.data = own.project.weight, own.project.bias
        for a, b in zip(
            (own.out, own.feed[0], own.feed[3], own.before, own.between), (theirs[0].out_proj, *theirs[1:]), strict=True
        ):
            b.load_state_dict(a.state_dict())
        h = layer.train(False)(h, src_key_padding_mask=~mask)
    return made.last(h)


def test_it_equals_torchs_pre_norm_layers():
    made, (x, mask) = encoder(), sentences()
    rows = mask.any(1)
    torch.testing.assert_close(
        made(x, mask).tokens[rows][mask[rows]], reference(made, x[rows], mask[rows])[mask[rows]], rtol=1e-4, atol=1e-5
    )


def test_published_size():
    made = Transformer(StreamSpec("mult_text", "text", (300,)))
    assert (made.dim, len(made.layers), made.layers[0].heads, made.layers[0].feed[0].out_features) == (40, 5, 5, 160)
    layer = 4 * 40 * 40 + 4 * 40 + 2 * 40 * 160 + 160 + 40 + 4 * 40
    assert sum(p.numel() for p in made.parameters()) == 300 * 40 + 40 + 5 * layer + 80


@pytest.mark.parametrize("pool", ["first", "mean"])
def test_padding_is_neither_heard_nor_pooled(pool: str):
    """Published defect: without a padding mask every word attended to the padding."""
    made = encoder(pool=pool)
    x, mask = sentences()
    short = made(x, mask)
    for longer in (10, 23):
        torch.testing.assert_close(made(*sentences(longer)).pooled, short.pooled, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made(x.masked_fill(~mask.unsqueeze(-1), 9.0), mask).pooled, short.pooled)
    torch.testing.assert_close(made(x[1:2, :4], mask[1:2, :4]).pooled[0], short.pooled[1], rtol=1e-4, atol=1e-5)
    assert not short.pooled[2].any()
    assert not short.tokens[~mask].any()


def test_first_is_the_first_valid_step():
    made, (x, mask) = encoder(), sentences()
    mask[0, :3] = False
    found = made(x, mask)
    torch.testing.assert_close(found.pooled[0], found.tokens[0, 3])
    torch.testing.assert_close(found.pooled[1], found.tokens[1, 0])


def test_order_matters_and_the_first_step_hears_the_last():
    made, (x, mask) = encoder(), sentences()
    x = x.requires_grad_()
    made(x, mask).pooled[0, :7].sum().backward()
    assert x.grad[0, 8].any() and not x.grad[~mask].any()
    assert not torch.allclose(made(x[:1].flip(1), mask[:1]).pooled, made(x[:1], mask[:1]).pooled, atol=1e-3)


def test_missing_numbers_and_scale_are_normalised():
    made, (x, mask) = encoder(), sentences()
    made.fit([(x * 1e4, mask)])
    holed = (x * 1e4).clone()
    holed[0, 0, 0] = float("nan")
    assert made(holed, mask).pooled.isfinite().all()
    other = encoder()
    other.fit([(x, mask)])
    torch.testing.assert_close(made(x * 1e4, mask).pooled, other(x, mask).pooled, rtol=1e-3, atol=1e-4)


def test_dropout_in_training_only():
    made, (x, mask) = encoder(), sentences()
    assert torch.equal(made(x, mask).pooled, made(x, mask).pooled)
    made.train()
    assert not torch.equal(made(x, mask).pooled, made(x, mask).pooled)


def test_misfits_are_refused():
    with pytest.raises(BadConfig, match="faces"):
        Transformer(StreamSpec("faces", "vision", (48, 48, 3), 5.0))
    with pytest.raises(BadConfig, match="heads=5"):
        Transformer(WORDS, dim=42)
