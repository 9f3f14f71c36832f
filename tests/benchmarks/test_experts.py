"""The joined corpora of the experts: whose words are trained on, and that nothing scored is among them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "experts.py"


@pytest.fixture(scope="module")
def experts():
    spec = importlib.util.spec_from_file_location("experts", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_meld_dev_is_scored_and_held_out_dialogues_come_from_train(experts, shared_data, tmp_path):
    table = experts.text_corpus(tmp_path / "c", held_out=0.15, data=shared_data).table
    dev = table["id"].str.startswith("dev_")
    assert set(table.loc[dev, "split"]) == {"test"}
    assert set(table.loc[~dev, "split"]) == {"train", "valid"}
    assert 0.1 < (table.loc[~dev, "split"] == "valid").mean() < 0.2
    assert (table.groupby("source")["split"].nunique() == 1).all()
    assert not table["text"].str.contains("[‘’“”]").any()


def test_emorynlp_gives_training_rows_of_other_episodes_only(experts, shared_data, tmp_path):
    corpus = experts.text_corpus(tmp_path / "c", emorynlp=True, data=shared_data)
    other = corpus.table[~corpus.table["id"].str.contains("dia")]
    assert len(other) > 1000
    assert set(other["split"]) == {"train"}
    assert corpus.space.name == "ekman-7"
    assert not set(other["episode"]) & set(corpus.table.loc[corpus.table["split"] == "test", "episode"])


def test_voices_of_two_corpora_meet_in_seven_classes(experts, shared_data, tmp_path):
    corpus = experts.audio_corpus(tmp_path / "c", data=shared_data)
    assert corpus.space.name == "ekman-7"
    assert set(corpus.table["label"]) == set(corpus.space.labels)
    assert {name.split("_")[0] for name in corpus.table["speaker"]} == {"ravdess", "emodb"}
    assert all(Path(path).is_file() for path in corpus.table["audio"][::100])


def test_faces_of_the_composite_clips_are_not_trained_on(experts, shared_data, tmp_path):
    import pandas as pd

    corpus = experts.vision_corpus(tmp_path / "faces", data=shared_data)
    used = set(pd.read_csv(shared_data / "composite_av" / "labels.csv")["fer_image"].str.split(":").str[1])
    assert len(corpus.table) > 20000
    assert not used & set(corpus.table["id"])
