"""Scores are clustered by whatever the split was grouped by."""

from __future__ import annotations

import pandas as pd
from tests.conftest import make_vector_corpus

from affuse.core.config import load_recipe
from affuse.corpora.manifest import Corpus
from affuse.evaluation.protocol import evaluate
from affuse.training import run as runs


def test_conversations_can_be_the_groups(tmp_path):
    corpus = make_vector_corpus(tmp_path / "corpus")
    table = pd.read_parquet(corpus.path / "manifest.parquet")
    table["conversation"] = [f"c{i // 3}" for i in range(len(table))]
    table.to_parquet(corpus.path / "manifest.parquet")
    parted = Corpus.open(corpus.path)
    recipe = runs.bind(load_recipe("vectors", ["train.epochs=1", "split.group_by=conversation"]), parted)
    runs.train(recipe, "vectors", parted, tmp_path / "grouped")
    assert evaluate(tmp_path / "grouped", parted)["protocol"]["group_by"] == "conversation"
