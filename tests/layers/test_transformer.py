"""Pre-norm layers against torch's own, and stochastic depth."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from affuse.core.errors import BadConfig
from affuse.layers.transformer import DropPath, Layers


def reference(layers: Layers, h: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """torch's encoder layers with the same weights."""
    for own in layers.layers:
        sizes = h.shape[2], own.heads, own.feed[0].out_features
        theirs = nn.TransformerEncoderLayer(*sizes, activation="gelu", batch_first=True, norm_first=True).eval()
        attention = theirs.self_attn
        attention.in_proj_weight.data, attention.in_proj_bias.data = own.project.weight, own.project.bias
        pairs = {
            attention.out_proj: own.out,
            theirs.linear1: own.feed[0],
            theirs.linear2: own.feed[3],
            theirs.norm1: own.before,
            theirs.norm2: own.between,
        }
        for module, given in pairs.items():
            module.load_state_dict(given.state_dict())
        h = theirs(h, src_key_padding_mask=~mask)
    return layers.last(h)


def test_layers_equal_torchs():
    torch.manual_seed(0)
    layers, h = Layers(8, 2, 3, 4, 0.5, 0.5).eval(), torch.randn(3, 6, 8)
    mask = torch.arange(6) < torch.tensor([[6], [2], [5]])
    torch.testing.assert_close(layers(h, mask)[mask], reference(layers, h, mask)[mask], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layers(h), layers(h, torch.ones_like(mask)))


def test_an_empty_row_is_finite():
    layers, mask = Layers(8, 2, 1, 2, 0.0, 0.0), torch.tensor([[True, True], [False, False]])
    assert torch.isfinite(layers(torch.randn(2, 2, 8), mask)).all()


def test_paths_are_dropped_by_row_and_the_mean_stays():
    torch.manual_seed(0)
    drop, x = DropPath(0.25), torch.ones(4000, 3, 2)
    found = drop(x)
    rows = found[:, 0, 0]
    assert torch.equal(found, rows[:, None, None].expand_as(x))
    torch.testing.assert_close(rows.unique(), torch.tensor([0, 1 / 0.75]))
    assert rows.mean() == pytest.approx(1, abs=0.05)
    assert drop.eval()(x) is x


def test_stochastic_depth_rises_to_the_last_layer_and_draws_nothing_at_0():
    assert [layer.drop_path.p for layer in Layers(4, 1, 3, 1, 0.0, 0.4).layers] == [0.0, 0.2, 0.4]
    before = torch.get_rng_state()
    DropPath(0.0)(torch.ones(2, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_misfits_are_refused():
    with pytest.raises(BadConfig, match="heads=3"):
        Layers(8, 3, 1, 4, 0.0, 0.0)
    with pytest.raises(BadConfig, match="layers=0"):
        Layers(8, 2, 0, 4, 0.0, 0.0)
    with pytest.raises(BadConfig, match=r"drop_path = 1\.0"):
        Layers(8, 2, 2, 4, 0.0, 1.0)
