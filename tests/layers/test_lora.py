"""LoRA: it starts at the pretrained layer, only A and B are trained, and merging changes no answer."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from affuse.core.errors import BadConfig
from affuse.layers.lora import LoRALinear, adapt, merge


def layer(rank: int = 3, alpha: float = 6.0, moved: bool = True, **options) -> LoRALinear:
    torch.manual_seed(0)
    made = LoRALinear(nn.Linear(5, 4), rank, alpha, **options)
    if moved:
        nn.init.normal_(made.b)
    return made


def test_it_is_the_equation_of_the_paper():
    made, x = layer(), torch.randn(2, 7, 5)
    w = made.base.weight + 6.0 / 3 * made.b @ made.a
    torch.testing.assert_close(made(x), x @ w.T + made.base.bias)


def test_stabilised_divides_by_the_root_of_the_rank():
    assert layer(rank=9, alpha=6.0).scale == pytest.approx(6 / 9)
    assert layer(rank=9, alpha=6.0, stabilised=True).scale == pytest.approx(6 / math.sqrt(9))


def test_it_starts_at_the_pretrained_layer():
    made, x = layer(moved=False), torch.randn(3, 5)
    assert torch.equal(made(x), made.base(x))
    assert made.a.any()


def test_only_a_and_b_get_gradients_and_move():
    made = layer()
    before = {name: value.clone() for name, value in made.named_parameters()}
    made(torch.randn(6, 5)).square().sum().backward()
    assert {name for name, p in made.named_parameters() if p.grad is not None} == {"a", "b"}
    torch.optim.SGD(made.parameters(), 0.1).step()
    assert {n for n, p in made.named_parameters() if not torch.equal(p, before[n])} == {"a", "b"}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.1)])
def test_merged_weights_give_the_same_answer(dtype, tolerance):
    net, x = nn.Sequential(layer(dropout=0.5), nn.Tanh(), nn.Linear(4, 2)).eval(), torch.randn(9, 5, dtype=dtype)
    net.requires_grad_(False)
    net[0].base.to(dtype)
    net[2].to(dtype)
    expected = net(x)
    merged = merge(copy.deepcopy(net))
    assert [type(m) for m in merged] == [nn.Linear, nn.Tanh, nn.Linear]
    torch.testing.assert_close(merged(x), expected, rtol=tolerance, atol=tolerance)
    assert not torch.allclose(merged[0].weight, net[0].base.weight)


def test_dropout_is_for_training_only():
    made, x = layer(dropout=0.5), torch.randn(3, 5)
    assert not torch.equal(made.train()(x), made(x))
    assert torch.equal(made.eval()(x), made(x))


def test_adapt_replaces_the_named_layers_only_and_names_those_there():
    net = nn.ModuleDict({"query": nn.Linear(5, 5), "key": nn.Linear(5, 5), "norm": nn.LayerNorm(5)})
    with pytest.raises(BadConfig, match="no linear layer called norm or q_proj") as caught:
        adapt([net], ["q_proj", "norm"], 2, 2.0)
    assert "key, query" in caught.value.remedy
    adapt([net], ["query"], 2, 2.0)
    assert isinstance(net["query"], LoRALinear) and type(net["key"]) is nn.Linear
    with pytest.raises(BadConfig, match="rank 0"):
        adapt([net], ["key"], 0, 1.0)
