from __future__ import annotations

import torch

from affuse.layers.conversation import conversations

NAMES = ["b", "a", "b", "", "a", "b", ""]
TIMES = [2, 1, 0, 5, 0, 1, 5]
WHO = ["x", "y", "z", "x", "x", "x", ""]


def test_rows_are_ordered_by_conversation_and_time():
    c = conversations(NAMES, TIMES, WHO)
    assert c.order.tolist() == [2, 5, 0, 4, 1, 3, 6]
    assert c.conversation.tolist() == [0, 0, 0, 1, 1, 2, 3]
    assert c.position.tolist() == [0, 1, 2, 0, 1, 0, 0]
    assert c.length.tolist() == [3, 2, 1, 1]
    assert c.start.tolist() == [0, 3, 5, 6]
    who = c.speaker.tolist()
    assert who[1] == who[2] != who[0]  # x, x and z of b
    assert who[3] != who[1]  # the x of a is somebody else
    assert who[6] == -1
    x = torch.randn(7, 3)
    assert torch.equal(c.unsort(c.sort(x)), x)


def test_packing_feeds_a_recurrent_layer_without_padding():
    torch.manual_seed(0)
    c = conversations(NAMES, TIMES, WHO)
    x = torch.randn(7, 3)
    gru = torch.nn.GRU(3, 4, bidirectional=True)
    found = c.unpack(gru(c.pack(c.sort(x)))[0])
    for b in range(4):
        rows = c.conversation == b
        torch.testing.assert_close(found[rows], gru(c.sort(x)[rows].unsqueeze(1))[0].squeeze(1))
    assert torch.equal(c.unpack(c.pack(c.sort(x))), c.sort(x))
