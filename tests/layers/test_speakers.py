from __future__ import annotations

import torch

from affuse.layers.conversation import conversations
from affuse.layers.speakers import SpeakerEmbedding, changes


def talk(who, rooms=None):
    return conversations(rooms or ["a"] * len(who), range(len(who)), who)


def test_changes_of_speaker():
    c = talk(["x", "x", "y", "", "", "y", "y", "z"], ["a"] * 6 + ["b"] * 2)
    assert changes(c).tolist() == [0, 1, 2, 2, 2, 2, 0, 2]


def test_turns_are_numbered_by_who_speaks_first_and_share_the_last():
    torch.manual_seed(0)
    embedding = SpeakerEmbedding(4, "turn", most=3)
    found = embedding(torch.zeros(7, 2, 4), talk(["q", "p", "q", "r", "s", "", "p"]))
    table = embedding.table.weight
    torch.testing.assert_close(found[:, 0], table[[0, 1, 0, 2, 2, 2, 1]])
    torch.testing.assert_close(found[:, 0], found[:, 1])


def test_what_comes_in_is_left_as_it_is():
    """Published defect: the speaker's vector was added in place, to the caller's features."""
    x = torch.zeros(3, 4)
    SpeakerEmbedding(4, "relative")(x, talk(["q", "p", "q"]))
    assert not x.any()
    assert SpeakerEmbedding(4, "none")(x, talk(["q", "p", "q"])) is x
