from __future__ import annotations

import pytest
import torch

from affuse.core.config import AugmentConfig
from affuse.core.errors import BadConfig
from affuse.core.labels import LabelSpace
from affuse.core.tasks import Task
from affuse.core.types import Encoded
from affuse.training.augment import augment, crop, hide_words, mixup, modality_dropout
from tests.parts import CANDIDATES, TOKENS, random_batch

STREAMS = (CANDIDATES[0], CANDIDATES[2], CANDIDATES[4])
TASKS = {"emotion": Task("emotion", LabelSpace("custom", ("a", "b", "c", "d")))}


def test_no_options_change_nothing():
    batch = random_batch(STREAMS, 6, 4)
    found = augment(batch, AugmentConfig(), TASKS)
    assert all(torch.equal(found.x[k], v) for k, v in batch.x.items())
    assert torch.equal(found.target["emotion"], batch.target["emotion"])


def test_token_ids_are_left_alone_and_never_mixed():
    batch = random_batch((TOKENS,), 6, 4)
    found = augment(batch, AugmentConfig(noise=1.0, speed=1.0, gain_db=6.0, crop_seconds=1e-4), TASKS)
    assert torch.equal(found.x["tokens"], batch.x["tokens"])
    with pytest.raises(BadConfig, match="token ids of stream 'tokens'"):
        mixup(batch, AugmentConfig(mixup=0.4), TASKS)


def test_mixing_mixes_inputs_and_labels_alike():
    torch.manual_seed(0)
    batch = random_batch((CANDIDATES[4],), 64, 4)
    batch.x["words"] = torch.nn.functional.one_hot(batch.target["emotion"], 16).float().unsqueeze(1).repeat(1, 3, 1)
    batch.mask["words"] = torch.ones(64, 3, dtype=torch.bool)
    found = mixup(batch, AugmentConfig(mixup=0.4), TASKS)
    soft = found.target["emotion"]
    torch.testing.assert_close(soft.sum(1), torch.ones(64))
    torch.testing.assert_close(found.x["words"][:, 0, :4], soft)
    assert (soft.argmax(1) == batch.target["emotion"]).float().mean() > 0.95  # lam >= 1/2: the utterance itself leads
    assert (soft.amax(1) < 1).any()


def test_a_stream_that_one_of_a_pair_lacks_is_not_mixed():
    torch.manual_seed(0)
    batch = random_batch(STREAMS, 12, 4)
    batch = batch.without({"faces"})
    found = mixup(batch, AugmentConfig(mixup=0.4), TASKS)
    assert (found.x["faces"] == 0).all()
    assert not found.mask["faces"].any()


def test_pictures_keep_their_shape_range_and_mask():
    torch.manual_seed(0)
    batch = random_batch((CANDIDATES[2],), 8, 4)
    found = augment(batch, AugmentConfig(flip=1.0, shift=0.1, jitter=0.3), TASKS)
    x, mask = found.x["faces"], found.mask["faces"]
    assert x.shape == batch.x["faces"].shape
    assert torch.equal(mask, batch.mask["faces"])
    assert (x[~mask] == 0).all()
    assert x.min() >= 0
    assert x.max() <= 1
    only = augment(batch, AugmentConfig(flip=1.0), TASKS).x["faces"]
    torch.testing.assert_close(only, batch.x["faces"].flip(3))


def test_crops_are_segments_of_the_row():
    x = torch.arange(20.0).repeat(4, 1)
    mask = torch.arange(20) < torch.tensor([[20], [15], [4], [0]])
    y, kept = crop(x * mask, mask, 10)
    assert y.shape == (4, 10)
    assert kept.sum(1).tolist() == [10, 10, 4, 0]
    assert (y[0].diff() == 1).all()


@pytest.mark.parametrize("p", [0.3, 0.9])
def test_modality_dropout_always_leaves_one(p):
    torch.manual_seed(0)
    names = ("a", "b", "c")
    pooled = {n: torch.ones(500, 2) for n in names}
    present = torch.rand(500, 3) < 0.8
    present[:, 0] |= ~present.any(1)
    encoded = Encoded(names, {}, {}, pooled, present)
    found = modality_dropout(encoded, ["audio", "audio", "vision"], p)
    assert found.present.any(1).all()
    assert not (found.present & ~present).any()
    both = present[:, 0] & present[:, 1]
    assert (found.present[both, 0] == found.present[both, 1]).all()  # streams of a modality go together
    assert found.present.sum() < present.sum()
    assert modality_dropout(encoded, ["audio"] * 3, p) is encoded


def test_hidden_words_leave_their_places_and_the_first_token():
    mask = torch.arange(60) < torch.tensor([[60], [1], [0]])
    torch.manual_seed(0)
    kept = hide_words(mask, 0.4)
    assert not (kept & ~mask).any()
    assert kept[:2, 0].all() and not kept[2].any()
    assert 20 < kept[0].sum() < 50
    assert torch.equal(hide_words(mask, 0.0), mask)
