from __future__ import annotations

import pytest
import torch

from affuse.layers.conversation import conversations
from affuse.models.contexts.xlstm import XLSTMContext

NAMES, PLACES = ["a", "b", "a", "b", "a", ""], [0, 0, 1, 1, 2, 0]


@pytest.mark.parametrize("blocks", [("mlstm",), ("mlstm", "slstm")])
@pytest.mark.parametrize("mode", ["causal", "offline"])
def test_conversations_know_nothing_of_each_other(mode, blocks):
    torch.manual_seed(0)
    context = XLSTMContext({"fused": 5}, mode=mode, dim=8, heads=2, blocks=blocks).eval()
    among = conversations(NAMES, PLACES, [""] * 6)
    rows, there = torch.randn(6, 5), torch.ones(6, 1, dtype=torch.bool)
    found = context({"fused": rows}, there, among)["fused"]
    for b in range(3):
        of = among.conversation == b
        alone = conversations(["x"] * int(of.sum()), range(int(of.sum())), [""] * int(of.sum()))
        torch.testing.assert_close(context({"fused": rows[of]}, there[of], alone)["fused"], found[of])


@pytest.mark.parametrize("blocks", [("mlstm",), ("mlstm", "slstm")])
def test_an_utterance_at_a_time_is_the_whole_conversation(blocks):
    torch.manual_seed(0)
    context = XLSTMContext({"fused": 5}, mode="causal", dim=8, heads=2, blocks=blocks).double().eval()
    rows, there = torch.randn(20, 5, dtype=torch.float64), torch.ones(20, 1, dtype=torch.bool)
    whole = context({"fused": rows}, there, conversations(["x"] * 20, range(20), [""] * 20))["fused"]
    state, found = context.begin(), []
    for i in range(20):
        h, state = context.push({"fused": rows[i : i + 1]}, there[i : i + 1], "", state)
        found.append(h["fused"])
    torch.testing.assert_close(torch.cat(found), whole)
