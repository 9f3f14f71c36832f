"""One extractor under two names and at two rates: trained, and answered with, on the model's own grid."""

from __future__ import annotations

import numpy as np
import pytest

from affuse.cli.app import main
from affuse.core.errors import BadConfig
from affuse.corpora.manifest import Corpus
from affuse.inference.recognizer import load
from affuse.stores.store import FeatureStore

RECIPE = """
summary: two rates
source: test
tasks: {emotion: {column: label}}
streams:
  log_mel: {encoder: mlp, rate: 20.0}
  coarse: {encoder: mlp, extractor: {name: log_mel, n_mels: 40}, rate: 5.0, how: nearest}
fusion: sum
context: none
objectives: {cross_entropy: {}}
train: {epochs: 1}
"""


@pytest.fixture(scope="module")
def run(demo_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    (folder / "r.yaml").write_text(RECIPE)
    arguments = ["train", str(folder / "r.yaml"), "--corpus", str(demo_run[1]), "--out", str(folder / "run"), "--quiet"]
    assert main([*arguments, "--workers", "0"]) == 0
    return folder / "run", demo_run[1]


def test_the_store_bears_the_streams_name_and_its_extractors(run):
    store = FeatureStore(Corpus.open(run[1]).store_path("coarse"))
    assert (store.card["name"], store.card["extractor"]) == ("coarse", "log_mel")
    assert store.card["parameters"]["n_mels"] == 40


def test_a_clip_reaches_the_model_as_the_store_did(run):
    corpus = Corpus.open(run[1])
    row = corpus.table.iloc[0]
    recognizer = load(run[0])
    specs = {s.name: s for s in recognizer.models[0].streams}
    assert (specs["log_mel"].rate, specs["coarse"].rate, specs["coarse"].shape) == (20.0, 5.0, (40,))
    assert recognizer(corpus.path / row.video, every=1.0).segments[0].probabilities


def test_reading_at_a_rate(run):
    store = FeatureStore(Corpus.open(run[1]).store_path("log_mel"))
    name = store.ids[0]
    read = store.at(5.0)
    assert len(read[name].values) == read.length(name)
    np.testing.assert_allclose(read[name].values[0], store[name].values[:20].mean(0), rtol=1e-4, atol=1e-4)
    assert read.get(name, 0.4, 1.0).values.shape[0] == 3
    assert store.at(0.0).spec == store.spec


def test_a_store_without_time_has_no_rate(vector_corpus):
    with pytest.raises(BadConfig, match="no rate"):
        FeatureStore(vector_corpus.store_path("audio_vec")).at(5.0)
