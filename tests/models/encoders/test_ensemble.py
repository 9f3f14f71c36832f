"""Several encoders as one: a linear head on it averages theirs, whatever they are."""

from __future__ import annotations

import pytest
import torch
from tests.parts import random_input

from affuse.core.errors import AffuseError
from affuse.core.types import StreamSpec
from affuse.models.encoders.ensemble import Ensemble

SOUND = StreamSpec("sound", "audio", (), 16000.0)
WORDS = StreamSpec("words", "text", (16,))


def test_one_head_on_all_averages_the_answers_of_each():
    torch.manual_seed(0)
    encoder = Ensemble(WORDS, members=3, of={"name": "mlp", "hidden": 8}).eval()
    heads = [torch.nn.Linear(8, 5) for _ in range(3)]
    joint = torch.nn.Linear(24, 5)
    joint.weight.data = torch.cat([h.weight.data for h in heads], 1) / 3
    joint.bias.data = torch.stack([h.bias.data for h in heads]).mean(0)
    x, mask = random_input(WORDS, 4)
    each = [head(member(x, mask).pooled) for head, member in zip(heads, encoder.members, strict=True)]
    torch.testing.assert_close(joint(encoder(x, mask).pooled), torch.stack(each).mean(0))


def test_members_share_what_the_data_measures_and_nothing_else():
    torch.manual_seed(0)
    encoder = Ensemble(WORDS, members=2, of={"name": "mlp", "normalise": "zscore"})
    encoder.fit(batch for batch in [random_input(WORDS, 6)])
    first, second = encoder.members
    assert torch.equal(first.norm.mean, second.norm.mean)
    assert first.norm.mean.any()
    assert not torch.equal(first.net[1].weight, second.net[1].weight)


def test_members_that_stretch_time_differently_can_be_trained_together():
    torch.manual_seed(0)
    encoder = Ensemble(SOUND, members=3, of={"name": "log_mel_crnn", "stretch": 0.4}).train()
    found = encoder(*random_input(SOUND, 4))
    assert found.tokens.shape[:2] == found.mask.shape
    assert found.pooled.shape == (4, 3 * 128)


def test_options_without_a_name_are_those_of_an_mlp():
    assert Ensemble(WORDS, members=3, of={"hidden": 8}).dim == 24


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"members": 0}, "members = 0"),
        ({"of": {"name": "repvgg"}}, "not for text"),
        ({"of": {"name": "mlpp"}}, "mlp"),
        ({"of": {"name": "mlp", "wide": 1}}, "of.mlp.wide"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(given, said):
    with pytest.raises(AffuseError, match=said):
        Ensemble(WORDS, **given)
