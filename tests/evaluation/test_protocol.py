"""Scores are clustered by whatever the split was grouped by; another corpus is scored by its own labels and splits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml
from tests.conftest import make_vector_corpus

from affuse.core import io
from affuse.core.config import RECIPES, load_recipe
from affuse.core.errors import BadCorpus, ProtocolError
from affuse.core.labels import SPACES
from affuse.corpora.manifest import Corpus, write_corpus
from affuse.evaluation.protocol import evaluate
from affuse.stores.store import import_arrays
from affuse.training import binding
from affuse.training import train as training


def test_conversations_can_be_the_groups(tmp_path):
    corpus = make_vector_corpus(tmp_path / "corpus")
    table = pd.read_parquet(corpus.path / "manifest.parquet")
    table["conversation"] = [f"c{i // 3}" for i in range(len(table))]
    table.to_parquet(corpus.path / "manifest.parquet")
    grouped = Corpus.open(corpus.path)
    recipe = binding.bind(load_recipe("vectors", ["train.epochs=1", "split.group_by=conversation"]), grouped)
    training.train(recipe, "vectors", grouped, tmp_path / "grouped")
    assert evaluate(tmp_path / "grouped", grouped)["protocol"]["group_by"] == "conversation"


def test_any_column_can_group_utterances(tmp_path):
    corpus = make_vector_corpus(tmp_path / "corpus")
    table = pd.read_parquet(corpus.path / "manifest.parquet")
    table["session"] = [f"x{i % 6}" for i in range(len(table))]
    table.to_parquet(corpus.path / "manifest.parquet")
    run = train(Corpus.open(corpus.path), tmp_path / "run", "split.group_by=session")
    found = evaluate(run, Corpus.open(corpus.path))["protocol"]
    assert (found["group_by"], found["groups"]) == ("session", 1)
    with pytest.raises(ProtocolError, match="no column 'session'"):
        evaluate(run, foreign(tmp_path / "other", ("happy", "sad"), "iemocap-4"))


def test_folds_that_share_utterances_are_not_one_score(tmp_path):
    corpus = make_vector_corpus(tmp_path / "corpus")
    run = train(corpus, tmp_path / "run", folds=3)
    with pytest.raises(ProtocolError, match="the folds share utterances"):
        evaluate(run, corpus, "train")
    assert evaluate(run, corpus)["n"] == len(corpus)


@pytest.fixture
def run_of_classes(tmp_path):
    return train(make_vector_corpus(tmp_path / "corpus"), tmp_path / "run")


def test_a_split_that_another_corpus_lacks_is_not_all_of_it(run_of_classes, tmp_path):
    corpus = foreign(tmp_path / "other", ("happy", "sad"), "iemocap-4", ("train", "test"))
    assert evaluate(run_of_classes, corpus)["n"] == 12
    with pytest.raises(BadCorpus, match="the split is empty"):
        evaluate(run_of_classes, corpus, "valid")
    assert evaluate(run_of_classes, foreign(tmp_path / "whole", ("happy", "sad"), "iemocap-4"))["n"] == 24


def test_the_baseline_of_a_corpus_without_the_majority_class_is_its_most_frequent(run_of_classes, tmp_path):
    names = SPACES["iemocap-4"].labels
    shared = names[int(np.argmax(io.read_json(run_of_classes / "run.json")["baselines"]["emotion"])) - 1]
    corpus = foreign(tmp_path / "other", (shared, "disgust", "fear", "fear"), "")
    assert evaluate(run_of_classes, corpus)["rows"][0]["metrics"]["accuracy"]["value"] == 0.5


def test_labels_of_another_kind_are_one_typed_error(run_of_classes, tmp_path):
    corpus = foreign(tmp_path / "words", ("positive", "negative"), "sentiment")
    with pytest.raises(BadCorpus, match="label of iemocap-4"):
        evaluate(run_of_classes, corpus)


@pytest.mark.parametrize("column", [None, "positive"])
def test_values_that_another_corpus_has_not_got_are_one_typed_error(tmp_path, column):
    corpus = make_vector_corpus(tmp_path / "corpus")
    table = pd.read_parquet(corpus.path / "manifest.parquet")
    table["sentiment"] = np.linspace(-1, 1, len(table))
    table.to_parquet(corpus.path / "manifest.parquet")
    corpus = Corpus.open(corpus.path)
    run = train(corpus, tmp_path / "run", recipe=values_recipe(tmp_path / "values.yaml", "sentiment"))
    assert evaluate(run, corpus)["rows"][0]["name"] == "training mean"
    other = foreign(tmp_path / "other", ("happy", "sad"), "iemocap-4", **({"sentiment": column} if column else {}))
    with pytest.raises(ProtocolError, match="no column 'sentiment' with numbers"):
        evaluate(run, other)


def train(corpus, out, *overrides, folds=None, recipe="vectors"):
    bound = binding.bind(load_recipe(str(recipe), ["train.epochs=1", *overrides]), corpus)
    return training.train(bound, "vectors", corpus, out, folds)


def values_recipe(path, column):
    """The shipped recipe for vectors, with one task of values."""
    values = yaml.safe_load((RECIPES / "vectors.yaml").read_text())
    values |= {"tasks": {"s": {"column": column, "space": "sentiment"}}, "objectives": {"l1": {"task": "s"}}}
    path.write_text(yaml.safe_dump(values | {"train": values["train"] | {"selection": "mae"}}))
    return path


def foreign(path, labels, space, splits=("",), **columns):
    """Another corpus with the streams of `make_vector_corpus`: 24 utterances of 4 speakers."""
    rng, n = np.random.default_rng(1), 24
    rows = [
        {
            "id": f"o{i}",
            "speaker": f"z{i % 4}",
            "source": f"z{i % 4}",
            "label": labels[i % len(labels)],
            "split": splits[i % len(splits)],
        }
        | columns
        for i in range(n)
    ]
    corpus = write_corpus(path, rows, path.name, space)
    for stream, dim in (("audio_vec", 6), ("vision_vec", 5), ("text_vec", 4)):
        import_arrays(corpus.store_path(stream), [r["id"] for r in rows], rng.normal(size=(n, dim)))
    return corpus
