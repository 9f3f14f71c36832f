from __future__ import annotations

import pytest
import torch
from tests.layers.dialogues import dialogues

from affuse.core.errors import BadConfig
from affuse.layers.blocks import blocks
from affuse.layers.edges import window, within_modal
from affuse.layers.graph import aggregate

LENGTHS = [3, 1, 70, 65, 200, 2, 64]
WINDOWS = [(None, None), (None, 0), (5, 0), (3, 2), (0, 0), (90, 10), (None, 4)]


@pytest.mark.parametrize(("past", "future"), WINDOWS)
@pytest.mark.parametrize("cells", [1, 2**18])
def test_blocks_hear_what_edges_hear(past, future, cells):
    c = dialogues(LENGTHS)
    torch.manual_seed(0)
    present, x = torch.rand(len(c), 2) > 0.2, torch.randn(len(c), 2, 4)
    whole = blocks(c, past, future, cells)
    heard = [part.within(present).float() for part in whole.parts]
    edges = within_modal(window(c, past, future), present)
    expected = aggregate(x.transpose(0, 1).flatten(0, 1), edges).view(2, len(c), 4).transpose(0, 1)
    torch.testing.assert_close(whole.weighted_sum(heard, x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(whole.received(heard), edges.degree(2 * len(c)).view(2, -1).T.float())


def test_bounded_windows_cost_no_square():
    c = dialogues([5000])
    assert sum(part.attended.numel() for part in blocks(c, 10, 0).parts) < 5000 * 100


def test_one_long_conversation_does_not_pad_the_others():
    c = dialogues([500] + [4] * 100)
    assert sum(part.attended.numel() for part in blocks(c, None, None).parts) < 1.3 * (500**2 + 100 * 16)


def test_each_utterance_has_one_place():
    c = dialogues(LENGTHS)
    whole = blocks(c, 4, 1)
    assert torch.equal(whole.join([part.query for part in whole.parts]), torch.arange(len(c)))


def test_negative_windows_are_refused():
    with pytest.raises(BadConfig, match="past=-1"):
        blocks(dialogues([3]), -1, 0)
