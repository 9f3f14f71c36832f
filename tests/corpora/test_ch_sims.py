"""CH-SIMS and its second version: unimodal labels, a published split that parts videos."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from tests.corpora.sentiment_releases import clips, dump, mmsa

from affuse.core.errors import BadCorpus, BadFeatures
from affuse.corpora import ch_sims, ch_sims_v2
from affuse.corpora.ch_sims import import_ch_sims
from affuse.corpora.ch_sims_v2 import import_ch_sims_v2
from affuse.corpora.manifest import make_splits
from affuse.stores.store import FeatureStore

HEADER = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
LINES = (
    "video_0001,0001,我不想嫁给李茶,-0.6,-1.0,-0.4,0.0,Negative,train",
    "video_0001,0002,这是,0.2,0.0,0.2,0.4,Positive,valid",
    "video_0001,0003,“好”,0.0,0.0,,0.0,Neutral,test",
    "video_0002,0001,你好,1.0,0.8,1.0,1.0,Positive,train",
    "aqgy4_0003,00007,嗯,0.4,0.2,0.2,0.2,Positive,train",
)
IDS = ("video_0001_0001", "video_0001_0002", "video_0001_0003", "video_0002_0001", "aqgy4_0003_00007")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(ch_sims.CARD, "counts", {"train": 3, "valid": 1, "test": 1})


def release(folder, name="label.csv", lines=LINES, media=True):
    folder.mkdir(parents=True)
    (folder / name).write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    if media:
        clips(folder / "Raw", ["/".join(i.rsplit("_", 1)) + ".mp4" for i in IDS])
    return folder


def test_labels_of_every_modality_and_clips(tmp_path, small):
    corpus = import_ch_sims(release(tmp_path / "r"), tmp_path / "c")
    table = corpus.table.set_index("id")
    assert tuple(table.index) == IDS
    row = table.loc["video_0001_0001"]
    columns = ("sentiment", "sentiment_text", "sentiment_audio", "sentiment_vision")
    assert [row[c] for c in columns] == [-0.6, -1.0, -0.4, 0.0]
    assert np.isnan(table.loc["video_0001_0003", "sentiment_audio"])
    assert (row["text"], row["conversation"], row["position"]) == ("我不想嫁给李茶", "video_0001", 1)
    assert row["video"].endswith("Raw/video_0001/0001.mp4")
    assert table.loc["aqgy4_0003_00007", "position"] == 7
    assert (corpus.space.name, corpus.space.low, corpus.space.high) == ("sentiment-sims", -1.0, 1.0)
    assert corpus.info["language"] == "zh"


def test_the_published_split_parts_videos_and_is_not_the_default(tmp_path, small):
    src = release(tmp_path / "r")
    corpus = import_ch_sims(src, tmp_path / "c")
    assert set(corpus.table["split"]) == {""}
    assert list(corpus.table["published_split"]) == ["train", "valid", "test", "train", "train"]
    assert "1 of 3 videos in more than one split: it was not used" in corpus.info["warnings"][0]
    assert corpus.info["overlap"] == {}
    (split,) = make_splits(corpus.table, "source", 0.3, 0.3, None, 0)
    assert all(len(set(split[corpus.table["source"] == s])) == 1 for s in set(corpus.table["source"]))
    published = import_ch_sims(src, tmp_path / "d", split="published")
    assert dict(Counter(published.table["split"])) == {"train": 3, "valid": 1, "test": 1}
    assert "scores on it are too good" in published.info["warnings"][0]
    assert set(published.info["overlap"]["source"]) == {"train/valid", "train/test", "valid/test"}


def test_version_two_reads_meta_csv(tmp_path, monkeypatch):
    monkeypatch.setitem(ch_sims_v2.CARD, "counts", {"train": 3, "valid": 1, "test": 1})
    corpus = import_ch_sims_v2(release(tmp_path / "r", "meta.csv"), tmp_path / "c", labels="sentiment-3")
    assert corpus.name == "ch_sims_v2"
    assert list(corpus.table["label"]) == ["negative", "positive", "neutral", "positive", "positive"]


def test_a_pickle_of_mmsa_with_unimodal_labels(tmp_path, monkeypatch):
    monkeypatch.setitem(ch_sims.CARD, "counts", {"train": 4, "valid": 2, "test": 3})
    content = mmsa(video="video_00{split}", unimodal=True, low=-1, high=1)
    corpus = import_ch_sims(dump(tmp_path / "unaligned_39.pkl", content), tmp_path / "c")
    np.testing.assert_allclose(corpus.table["sentiment_vision"][:4], content["train"]["regression_labels_V"])
    assert len(FeatureStore(corpus.store_path("mmsa_vision"))) == 9
    content["valid"]["regression_labels_T"] = content["valid"]["regression_labels_T"][:1]
    with pytest.raises(BadCorpus, match="1 regression_labels_T for 2 labels"):
        import_ch_sims(dump(tmp_path / "x.pkl", content), tmp_path / "d")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("-0.6,", "-1.6,", "sentiment of 'video_0001_0001' is -1.6, outside -1 to 1"),
        (",-0.4,", ",2,", "sentiment_audio of .* is 2"),
        (",-0.4,", ",low,", "'label_A' of 'video_0001_0001' is 'low'"),
        (",valid", ",dev2", "mode 'dev2'"),
        ("0001,0002", "0001,0001", "ids occur twice"),
        (",test", ",train", "4 of 'train', the release has 3"),
        ("video_0002,", ",", "names no video"),
        ("video_id", "video", "no labels"),
        ("text,label,", "text,score,", "no column 'label'"),
    ],
)
def test_malformed_tables_are_named(tmp_path, small, old, new, named):
    path = release(tmp_path / "r") / "label.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(BadCorpus, match=named):
        import_ch_sims(tmp_path / "r", tmp_path / "c", partial=True)
    assert not (tmp_path / "c").exists()


def test_missing_clips_and_utterances_need_partial(tmp_path, small):
    src = release(tmp_path / "r")
    (src / "Raw" / "video_0001" / "0002.mp4").unlink()
    with pytest.raises(BadCorpus, match=r"clips: incomplete .clips: 4 of 5"):
        import_ch_sims(src, tmp_path / "c")
    assert "clips: 4 of 5" in import_ch_sims(src, tmp_path / "c", partial=True).info["partial"]
    with pytest.raises(BadCorpus, match=r"incomplete .test: 0 of 1"):
        import_ch_sims(release(tmp_path / "s", lines=LINES[:2] + LINES[3:]), tmp_path / "d")


def test_another_corpus_or_a_refused_pickle(tmp_path):
    with pytest.raises(BadCorpus, match="outside -1 to 1"):
        import_ch_sims(dump(tmp_path / "mosi.pkl", mmsa()), tmp_path / "c", partial=True)
    content = mmsa(low=-1, high=1)
    content["train"]["raw_text"] = np.array([ValueError("x")] * 4, dtype=object)
    with pytest.raises(BadFeatures, match="ValueError"):
        import_ch_sims(dump(tmp_path / "x.pkl", content), tmp_path / "c", partial=True)


@pytest.mark.parametrize(
    ("module", "entry", "file", "videos", "shared"),
    [(ch_sims, import_ch_sims, "sims", 60, 59), (ch_sims_v2, import_ch_sims_v2, "simsv2", 135, 119)],
)
def test_the_real_label_files(shared_data, tmp_path, module, entry, file, videos, shared):
    src = shared_data / "mertools_labels"
    with pytest.raises(BadCorpus, match=r"incomplete .test: 0 of"):
        entry(src, tmp_path / "c")
    corpus = entry(src, tmp_path / "c", partial=True)
    table = corpus.table.set_index("id")
    counted = Counter(table["published_split"])
    assert dict(counted) == {s: module.CARD["counts"][s] for s in ("train", "valid")}
    assert table["source"].nunique() == videos
    assert f"{shared} of {videos} videos" in corpus.info["warnings"][0]
    theirs = json.loads((src / f"{file}_label.json").read_text(encoding="utf-8"))
    for part in theirs.values():
        np.testing.assert_allclose(table.loc[list(part), "sentiment"], [v["val"] for v in part.values()])
    assert table["sentiment"].between(-1, 1).all()
    assert table["sentiment_text"].isna().all()
    assert (table["text"] != "").mean() > 0.99
    one = entry(src / f"{file}_label.json", tmp_path / "d", partial=True, split="published")
    assert dict(Counter(one.table["split"])) == dict(counted)
    assert "no words, clips or features" in one.info["partial"][1]
