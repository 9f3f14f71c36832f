from __future__ import annotations

import pytest
import torch
from torch import nn

from affuse.core.errors import BadConfig
from affuse.core.types import StreamSpec
from affuse.models.encoders.tcn import TCN, convolution, receptive_field

SPEC = StreamSpec("v", "vision", (6,), 25.0)


def tcn(**options) -> TCN:
    torch.manual_seed(0)
    return TCN(SPEC, **{"channels": (8, 8, 4), "standardise": False, **options})


@pytest.mark.parametrize(("width", "channels", "count"), [
    (512, (256, 256, 128, 128), 2_215_296), (128, (64, 64, 32, 32), 139_104), (768, (256, 256, 128, 128), 2_608_512),
])  # fmt: skip
def test_published_sizes(width, channels, count):
    made = TCN(StreamSpec("x", "vision", (width,), 25.0), channels=channels, norm="none", standardise=False)
    assert sum(p.numel() for p in made.parameters()) == count


def test_defect_the_initialisation_of_normalised_weights_is_kept():
    """The published code sets the derived weight, which the first forward pass overwrites."""
    torch.manual_seed(3)
    plain = nn.Conv1d(5, 7, 3)
    nn.init.xavier_uniform_(plain.weight)
    torch.manual_seed(3)
    made = convolution(5, 7, 3, 1)
    torch.testing.assert_close(made.weight, plain.weight)
    made(torch.randn(1, 5, 9))
    torch.testing.assert_close(made.weight, plain.weight)


def test_a_causal_token_depends_on_its_receptive_field_and_on_nothing_later():
    made, steps = tcn(norm="none").eval(), 80
    x = torch.randn(1, steps, 6, requires_grad=True)
    tokens = made(x, torch.ones(1, steps, dtype=torch.bool)).tokens
    (grad,) = torch.autograd.grad(tokens[0, 70].sum(), x)
    reached = grad[0].abs().sum(1).nonzero().flatten()
    assert receptive_field(4, 5) == 121
    assert reached.max() == 70 and reached.min() == 70 - receptive_field(3, 5) + 1


def test_a_centred_token_depends_on_as_much_after_as_before():
    made = tcn(causal=False, norm="none").eval()
    x = torch.randn(1, 121, 6, requires_grad=True)
    tokens = made(x, torch.ones(1, 121, dtype=torch.bool)).tokens
    (grad,) = torch.autograd.grad(tokens[0, 60].sum(), x)
    reached = grad[0].abs().sum(1).nonzero().flatten()
    assert 60 - int(reached.min()) == int(reached.max()) - 60 == (receptive_field(3, 5) - 1) // 2


def test_defect_padding_is_in_no_statistic():
    """The published code repeats the last frame up to 300 and counts it everywhere."""
    made = tcn().train()
    for level in made.levels:
        level.dropout.p = 0.0
    other = tcn().train()
    for level in other.levels:
        level.dropout.p = 0.0
    x, mask = torch.randn(3, 12, 6), torch.arange(12) < torch.tensor([[12], [7], [9]])
    x = x * mask.unsqueeze(-1)
    more = torch.cat([x, torch.zeros(3, 30, 6)], 1), torch.cat([mask, torch.zeros(3, 30, dtype=torch.bool)], 1)
    torch.testing.assert_close(made(x, mask).tokens, other(*more).tokens[:, :12])
    torch.testing.assert_close(made.norm.running_var, other.norm.running_var)


def test_misfits_are_refused():
    with pytest.raises(BadConfig, match="vectors"):
        TCN(StreamSpec("sound", "audio", (), 16000.0))
    with pytest.raises(BadConfig, match="odd kernel"):
        tcn(kernel=4, causal=False)
