from __future__ import annotations

import pytest
import torch

from affuse.balance import ModalityDropout
from affuse.balance.attach import Attached
from affuse.core.errors import BadConfig
from affuse.layers.drop import drop_but_one

from .conftest import Planted, network, optimizer_of


@pytest.mark.parametrize("p", [0.3, 0.9])
def test_one_that_is_there_always_stays(p):
    torch.manual_seed(0)
    present = torch.rand(2000, 3) < 0.7
    kept = drop_but_one(present, p)
    assert not (kept & ~present).any()
    assert torch.equal(kept.any(1), present.any(1))


def test_streams_are_hidden_as_often_as_asked():
    torch.manual_seed(0)
    hidden = 1 - drop_but_one(torch.ones(40000, 2, dtype=torch.bool), 0.4).float().mean(0)
    expected = torch.full((2,), 0.4 - 0.4**2 / 2)  # of both lost, one is spared
    torch.testing.assert_close(hidden, expected, atol=0.01, rtol=0)


def test_a_stream_alone_is_never_hidden():
    present = torch.eye(3, dtype=torch.bool)
    assert torch.equal(drop_but_one(present, 0.9), present)


def test_nothing_to_hide_draws_nothing():
    encoders, head = network(2)
    data = Planted([1.0, 1.0])
    attached = Attached(ModalityDropout(p=0.0), encoders, head, optimizer_of(encoders, head))
    state = torch.get_rng_state()
    attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y)
    assert torch.equal(state, torch.get_rng_state())


def test_the_share_is_checked():
    with pytest.raises(BadConfig, match=r"p = 1\.0"):
        ModalityDropout(p=1.0)
