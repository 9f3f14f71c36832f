"""The joined corpora of the experts: whose words are trained on, and that nothing scored is among them."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from affuse.core.labels import SPACES, LabelSpace
from affuse.core.parts import Part
from affuse.core.tasks import Task
from affuse.core.types import Batch
from affuse.models.build import Architecture
from affuse.models.model import Model
from affuse.models.saved import describe, load_model

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def affuse_base(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("affuse_base")


def test_meld_dev_is_scored_and_held_out_dialogues_come_from_train(affuse_base, shared_data, tmp_path):
    table = affuse_base.text_corpus(tmp_path / "c", held_out=0.15, data=shared_data).table
    dev = table["id"].str.startswith("dev_")
    assert set(table.loc[dev, "split"]) == {"test"}
    assert set(table.loc[~dev, "split"]) == {"train", "valid"}
    assert 0.1 < (table.loc[~dev, "split"] == "valid").mean() < 0.2
    assert (table.groupby("source")["split"].nunique() == 1).all()
    assert not table["text"].str.contains("[‘’“”]").any()


def test_emorynlp_gives_training_rows_of_other_episodes_only(affuse_base, shared_data, tmp_path):
    corpus = affuse_base.text_corpus(tmp_path / "c", emorynlp=True, data=shared_data)
    other = corpus.table[~corpus.table["id"].str.contains("dia")]
    assert len(other) > 1000
    assert set(other["split"]) == {"train"}
    assert corpus.space.name == "ekman-7"
    assert not set(other["episode"]) & set(corpus.table.loc[corpus.table["split"] == "test", "episode"])


def test_voices_of_two_corpora_meet_in_seven_classes(affuse_base, shared_data, tmp_path):
    corpus = affuse_base.audio_corpus(tmp_path / "c", data=shared_data)
    assert corpus.space.name == "ekman-7"
    assert set(corpus.table["label"]) == set(corpus.space.labels)
    assert {name.split("_")[0] for name in corpus.table["speaker"]} == {"ravdess", "emodb"}
    assert all(Path(path).is_file() for path in corpus.table["audio"][::100])


def test_faces_of_the_composite_clips_are_not_trained_on(affuse_base, shared_data, tmp_path):
    import pandas as pd

    corpus = affuse_base.vision_corpus(tmp_path / "faces", data=shared_data)
    used = set(pd.read_csv(shared_data / "composite_av" / "labels.csv")["fer_image"].str.split(":").str[1])
    assert len(corpus.table) > 20000
    assert not used & set(corpus.table["id"])


@pytest.mark.parametrize("count", [1, 3])
def test_an_expert_of_several_models_predicts_the_mean_of_their_logits(affuse_base, count):
    labels = SPACES[affuse_base.SPACE].labels
    space = LabelSpace("other order", labels[::-1])
    streams = {
        "waveform": Part("log_mel_cnn", {"dim": 16, "channels": (4, 8)}),
        "functionals": Part("mlp", {"hidden": 8}),
    }
    parts = Architecture(streams, Part("late", {"how": "sum"}))
    specs = tuple(affuse_base.make_extractor(s, affuse_base.EXTRACTORS[s]).spec for s in streams)
    torch.manual_seed(0)
    models = [Model(parts, specs, {"emotion": Task("emotion", space)}).eval() for _ in range(count)]
    x = {"waveform": torch.rand(4, 6000), "functionals": torch.rand(4, 1, 276)}
    mask = {s: torch.ones(v.shape[:2], dtype=torch.bool) for s, v in x.items()}
    batch = Batch(specs, x, mask, torch.ones(4, 2, dtype=torch.bool))
    joined = affuse_base.join({"audio": models}, {"audio": 1.0}, {"audio": 1.0})
    for stream in streams:
        mean = torch.stack([m(batch).unimodal[stream]["emotion"] for m in models]).mean(0)
        torch.testing.assert_close(joined(batch).unimodal[stream]["emotion"], mean.flip(1))
    again = load_model(describe(joined), joined.state_dict())
    torch.testing.assert_close(again(batch).logits["emotion"], joined(batch).logits["emotion"])
