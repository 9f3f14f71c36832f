"""Finer classes while training: what is predicted, scored and stored stays the task's own classes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from affuse.core import io
from affuse.core.config import load_recipe
from affuse.core.errors import BadConfig
from affuse.core.labels import LabelSpace, refine_space
from affuse.corpora.manifest import Corpus
from affuse.training import binding, loop, run_folder
from affuse.training import train as training
from tests.conftest import make_vector_corpus


def test_finer_classes_are_those_that_occur():
    space = LabelSpace("two", ("calm", "angry"))
    labels, values = ["Calm", "angry", "angry", "", "calm"], ["normal", "strong", "normal", "normal", ""]
    fine, classes = refine_space(space, labels, values)
    assert fine.labels == ("calm", "calm normal", "angry normal", "angry strong")
    assert classes == [0, 0, 1, 1]


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    made = make_vector_corpus(tmp_path / "corpus")
    table = pd.read_parquet(made.path / "manifest.parquet")
    table["intensity"] = np.where(np.arange(len(table)) % 2, "strong", "normal")
    table.to_parquet(made.path / "manifest.parquet")
    return Corpus.open(made.path)


def test_a_run_answers_in_its_own_classes(corpus, tmp_path):
    recipe = binding.bind(load_recipe("vectors", ["train.epochs=2", "tasks.emotion.refine=intensity"]), corpus)
    training.train(recipe, "vectors", corpus, tmp_path / "run")
    described = io.read_json(tmp_path / "run" / "model.json")
    classes = described["tasks"]["emotion"]["finer"]
    assert sorted(classes) == [k for c in range(len(corpus.space)) for k in (c, c)]
    model = run_folder.run_model(tmp_path / "run")
    logits = torch.randn(5, len(classes))
    p = model.tasks["emotion"].predict(logits)
    for c in range(len(corpus.space)):
        torch.testing.assert_close(p[:, c], logits.softmax(-1)[:, [k == c for k in classes]].sum(1))


def test_a_column_that_is_not_there_is_named(corpus, tmp_path):
    recipe = binding.bind(load_recipe("vectors", ["train.epochs=1", "tasks.emotion.refine=intensty"]), corpus)
    with pytest.raises(BadConfig, match="intensty"):
        training.train(recipe, "vectors", corpus, tmp_path / "run")


def test_a_balancer_sees_held_out_labels_in_the_classes_of_training(corpus, tmp_path, monkeypatch):
    seen = []
    encode_split = loop.encode_split
    monkeypatch.setattr(loop, "encode_split", lambda *given: seen.append(given[3]) or encode_split(*given))
    options = ["train.epochs=1", "tasks.emotion.refine=intensity", "balance=mslr"]
    recipe = binding.bind(load_recipe("vectors", options), corpus)
    training.train(recipe, "vectors", corpus, tmp_path / "run")
    classes = torch.tensor(io.read_json(tmp_path / "run" / "model.json")["tasks"]["emotion"]["finer"])
    (valid,) = seen
    fine, known = valid.labels("emotion")
    assert len(valid.tasks["emotion"]) == len(classes) > len(corpus.space) and known.any()
    labels = valid.table["label"][known.numpy()].tolist()
    assert [corpus.space.labels[c] for c in classes[fine][known]] == labels
