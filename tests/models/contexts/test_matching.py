"""Matching attention over a conversation: by its equation, one utterance after the other."""

from __future__ import annotations

import pytest
import torch
from tests.layers.dialogues import dialogues

from affuse.core import config
from affuse.core.errors import BadConfig
from affuse.models.contexts.matching import MatchingContext

LENGTHS = [6, 1, 12]
CASES = [({}, None, None), ({"past": 3, "future": 2}, 3, 2), ({"mode": "causal", "past": 2}, 2, 0),
         ({"mode": "causal"}, None, 0),
         ({"mode": "lookahead", "lookahead": 2}, None, 2)]  # fmt: skip


def part(**options) -> MatchingContext:
    torch.manual_seed(0)
    return MatchingContext({"fused": 5}, **options).eval()


@pytest.mark.parametrize(("options", "past", "future"), CASES)
def test_its_equation_in_which_nobody_attends_to_the_absent(options, past, future):
    c, made = dialogues(LENGTHS), part(**options)
    x, present = torch.randn(len(c), 5), torch.rand(len(c), 1) < 0.7
    found, layer = made({"fused": x}, present, c)["fused"], made.matching["fused"]
    for i in range(len(c)):
        near = [
            j for j in range(len(c))
            if c.conversation[i] == c.conversation[j] and (i == j or present[j, 0])
            and (past is None or i - j <= past) and (future is None or j - i <= future)
        ]  # fmt: skip
        share = torch.stack([torch.tanh(layer.transform(x[i]) @ x[j]) for j in near]).softmax(0)
        torch.testing.assert_close(found[i], sum(a * x[j] for a, j in zip(share, near, strict=True)))


def test_dropout_is_for_training():
    c, made = dialogues(LENGTHS), part(dropout=0.5)
    x, present = {"fused": torch.randn(len(c), 5)}, torch.ones(len(c), 1, dtype=torch.bool)
    assert torch.equal(made(x, present, c)["fused"], made(x, present, c)["fused"])
    made.train()
    assert not torch.equal(made(x, present, c)["fused"], made(x, present, c)["fused"])


def test_dialogue_gcn_ends_in_matching_attention():
    """Its head comment said so, and there was none."""
    assert [p.name for p in config.load_recipe("dialogue-gcn").context] == ["recurrent", "speaker_graph", "matching"]


def test_looking_nowhere_is_refused():
    with pytest.raises(BadConfig, match="lookahead=0"):
        part(mode="lookahead")
