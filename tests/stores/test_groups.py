"""Streams standardised by speaker: over all of a speaker's utterances, and said so wherever it matters."""

from __future__ import annotations

import numpy as np
import pytest

from affuse.cli.app import main
from affuse.core import io
from affuse.core.errors import BadConfig, BadRun, UnknownName
from affuse.core.types import Feature, StreamSpec
from affuse.corpora.manifest import Corpus
from affuse.inference.recognizer import load
from affuse.stores.groups import FEWEST, Standardised
from affuse.stores.store import FeatureStore, StoreWriter, store_card
from affuse.training.run_folder import open_run

RECIPE = """
summary: standardised by speaker
source: test
tasks: {{emotion: {{column: label}}}}
streams:
  audio_vec: {{encoder: mlp, standardise_by: {by}}}
  vision_vec: {{encoder: mlp}}
fusion: sum
context: none
objectives: {{cross_entropy: {{}}}}
train: {{epochs: 1}}
"""


def written(path, features, shape=(3,), scale=1.0):
    spec = StreamSpec("vectors", "audio", shape, 2.0, scale)
    with StoreWriter(path / "vectors", store_card(spec, "test", 1, {})) as writer:
        for name, feature in features.items():
            writer.add(name, feature)
    return FeatureStore(path / "vectors")


@pytest.fixture
def speakers(tmp_path):
    """Two speakers of different level, six utterances each of one to six steps, some unusable; two that speak once."""
    rng = np.random.default_rng(0)
    features, ids, groups = {}, [], []
    for k, (who, level) in enumerate([*[("a", 5.0)] * 6, *[("b", -50.0)] * 6, ("c", 1.0), ("d", 3.0)]):
        values = (level + (1 + abs(level)) * rng.standard_normal((1 + k % 6, 3))).astype(np.float32)
        values[:, 2] = level  # does not vary
        ids.append(f"u{k}")
        groups.append(who)
        features[ids[-1]] = Feature(values, np.arange(len(values)) != 2)
    features["u0"].values[0, 0] = np.nan
    return written(tmp_path, features, scale=0.5), ids, groups


def test_every_speaker_is_standardised_by_all_usable_steps(speakers):
    store, ids, groups = speakers
    read = Standardised(store, ids, groups)
    for who in "ab":
        parts = [read.get(i) for i, g in zip(ids, groups, strict=True) if g == who]
        values = np.concatenate([p.values[p.valid] for p in parts])
        np.testing.assert_allclose(np.nanmean(values, 0), 0, atol=1e-6)
        np.testing.assert_allclose(np.nanstd(values, 0)[:2], 1, rtol=1e-5)
        assert (values[:, 2] == 0).all()
    assert np.isnan(read["u0"].values[0, 0])
    assert read.spec.scale == 1.0
    assert read["u0"].values.dtype == np.float32


def test_speakers_of_few_utterances_count_as_one(speakers):
    store, ids, groups = speakers
    read = Standardised(store, ids, groups)
    assert groups.count("c") < FEWEST
    together = np.concatenate([read.get(i).values[read.get(i).valid] for i in ids[-2:]])
    np.testing.assert_allclose(together.mean(0), 0, atol=1e-6)


def test_a_part_of_an_utterance_has_the_same_values(speakers):
    store, ids, groups = speakers
    read = Standardised(store, ids, groups)
    np.testing.assert_array_equal(read.get("u5", 1.0, 2.0).values, read.get("u5").values[2:4])


def test_pictures_and_samples_are_refused(tmp_path):
    with pytest.raises(BadConfig, match="needs vectors"):
        Standardised(written(tmp_path, {"a": Feature(np.zeros((4,), np.float32))}, ()), ["a"], ["s"])


@pytest.fixture
def run(vector_corpus, tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE.format(by="speaker"))
    recipe, run = str(tmp_path / "r.yaml"), tmp_path / "run"
    assert main(["train", recipe, "--corpus", str(vector_corpus.path), "--out", str(run), "--quiet"]) == 0
    return run


def test_labels_and_the_speakers_level_play_no_part(run, vector_corpus, tmp_path):
    """Predictions stay as they are when every speaker's values are shifted and scaled, and labels are dealt anew."""
    from affuse.models.predict import predict
    from affuse.training.binding import dataset, tasks_of
    from affuse.training.run_folder import run_model

    _, recipe, folds = open_run(run)
    model = run_model(folds[0][0])
    rng = np.random.default_rng(0)
    table = vector_corpus.table
    store = FeatureStore(vector_corpus.store_path("audio_vec"))
    shift = {s: rng.uniform(-9, 9, store.spec.shape) for s in table["speaker"].unique()}
    moved = {
        i: Feature((2.5 * store[i].values + shift[s]).astype(np.float32))
        for i, s in zip(table["id"], table["speaker"], strict=True)
    }
    everyone = np.ones(len(table), bool)
    data = dataset(vector_corpus, recipe, tasks_of(recipe, vector_corpus), everyone)
    with StoreWriter(tmp_path / "audio_vec", store_card(store.spec, "test", 1, {})) as writer:
        for name, feature in moved.items():
            writer.add(name, feature)
    other = dataset(vector_corpus, recipe, tasks_of(recipe, vector_corpus), everyone)
    other.stores["audio_vec"] = Standardised(
        FeatureStore(tmp_path / "audio_vec"), table["id"].tolist(), table["speaker"].tolist()
    )
    other.table["label"] = rng.permutation(other.table["label"])
    before, after = (predict(model, d, "cpu")["emotion"] for d in (data, other))
    np.testing.assert_allclose(before, after, atol=1e-5)


def test_the_protocol_says_it_and_a_clip_is_refused(run):
    text = io.read_json(run / "evaluation.json")["protocol"]["standardised_by"]
    assert text.startswith("audio_vec: speaker")
    assert "the scored ones too" in text
    with pytest.raises(BadRun, match="audio_vec by speaker"):
        load(run)


def test_an_unknown_column_is_named(vector_corpus, tmp_path):
    from affuse.core.config import load_recipe
    from affuse.training.binding import bind, dataset, tasks_of

    (tmp_path / "r.yaml").write_text(RECIPE.format(by="speeker"))
    recipe = bind(load_recipe(str(tmp_path / "r.yaml")), vector_corpus)
    with pytest.raises(UnknownName, match="speeker"):
        dataset(
            Corpus.open(vector_corpus.path),
            recipe,
            tasks_of(recipe, vector_corpus),
            np.ones(len(vector_corpus.table), bool),
        )
