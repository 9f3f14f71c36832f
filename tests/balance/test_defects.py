"""Defects of published code around the methods, which affuse must not have; those of a method are in its own tests."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from affuse.balance.attach import tag_groups
from affuse.balance.balancer import Control
from affuse.metrics import value
from affuse.models.predict import predict
from affuse.training.sampling import epoch_batches
from tests.training.test_loop import make_trainer


def test_drop_last_in_scoring_every_item_is_scored_whatever_the_batch_size(vector_corpus, tmp_path):
    """BalanceBenchmark: drop_last=True on the test loader, 704 of 744 clips scored."""
    trainer = make_trainer(vector_corpus, tmp_path, double=False)
    found = [predict(trainer.model, trainer.train, trainer.device, size=size)["emotion"] for size in (7, 64)]
    assert len(found[0]) == len(found[1]) == len(trainer.train)
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_first_batch_selection_the_epoch_is_chosen_on_all_of_validation(vector_corpus, tmp_path):
    """BCGM on CMU-MOSI: selection looks at the first validation batch alone."""
    trainer = make_trainer(vector_corpus, tmp_path, double=False)
    target, _ = trainer.valid.labels("emotion")
    predicted = predict(trainer.model, trainer.valid, trainer.device, size=1000)["emotion"]
    scores = trainer._validate().scores
    assert scores["accuracy"] == value("accuracy", target.numpy(), predicted)
    assert len(predicted) == len(trainer.valid) > 0


def test_selection_on_the_test_split_test_items_are_in_neither_part_that_training_sees(vector_corpus, tmp_path):
    """OGM, BML, PMR, MMPareto, LFM, BCGM: the best epoch on the test split is reported."""
    trainer = make_trainer(vector_corpus, tmp_path)
    seen = set(trainer.train.table["id"]) | set(trainer.valid.table["id"])
    assert len(set(vector_corpus.table["id"]) - seen) > 0
    assert not set(trainer.train.table["source"]) & set(trainer.valid.table["source"])


def test_no_shuffle_the_order_of_training_changes_with_the_epoch():
    """BCGM on CMU-MOSI: the training loader does not shuffle, and its last batch of 4 drives the coefficients."""
    lengths = np.ones(100)
    one, two = (np.concatenate(epoch_batches(lengths, 32, 0, epoch)) for epoch in (0, 1))
    assert sorted(one) == sorted(two) == list(range(100))
    assert (one != two).any()
    assert min(len(b) for b in epoch_batches(lengths, 32, 0, 0)) >= 8


def test_encoders_by_substring_a_name_inside_another_is_not_scaled_with_it():
    """OGM-GE, MLB, BalanceBenchmark: an encoder's parameters are those whose name holds `visual`."""
    encoders = {"visual": nn.Linear(2, 2), "audiovisual": nn.Linear(2, 2)}
    optimizer = torch.optim.SGD([p for e in encoders.values() for p in e.parameters()], 0.1)
    parameters = {s: list(e.parameters()) for s, e in encoders.items()}
    tag_groups(optimizer, parameters)
    for p in (p for group in parameters.values() for p in group):
        p.grad = torch.ones_like(p)
    Control(parameters, optimizer).scale({"visual": 0.25, "audiovisual": 1.0})
    assert all((p.grad == 0.25).all() for p in parameters["visual"])
    assert all((p.grad == 1).all() for p in parameters["audiovisual"])
