from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from affuse.core.errors import BadCorpus
from affuse.corpora import meld
from affuse.corpora.meld import CARD, CLIPS, EMOTIONS, OFFICIAL, PUBLISHED, import_meld
from affuse.corpora.reading.release import mend

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
LINES = {
    "train": '1,"You must\x92ve had\x85 your  hands full.",Chandler ,joy,positive,0,0,8,21,'
    '"00:16:16,059","0:16:21,731"\n'
    '2,None,The Interviewer,sadness,negative,0,2,8,21,"00:16:21,940","00:16:23,442"\n'
    '3,"Oh, no.",Ross,neutral,neutral,125,3,4,18,"00:02:42,287","00:02:48,021"\n',
    "dev": '1,What?,Monica,surprise,negative,0,0,8,21,"00:21:01,927","00:20:03,261"\n'
    '2,Did they?,Phoebe,neutral,neutral,110,7,6,11,"00:07:11,764",soon\n',
    "test": "1,Go.,Joey,anger,negative,3,1,1,2,,\n",
}


def release(folder, splits=("train", "dev", "test"), encoding="utf-8", clips=False):
    """A miniature release in the official layout; with clips those that the official one has."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        (folder / f"{split}_sent_emo.csv").write_bytes((HEADER + LINES[split]).encode(encoding))
    if clips:
        for split, names in {
            "train": ["dia0_utt0", "dia0_utt2", "dia125_utt3"],
            "valid": ["dia0_utt0", "dia66_utt9"],
            "test": ["dia3_utt1"],
        }.items():
            place = folder / OFFICIAL[split] / CLIPS[split]
            place.mkdir(parents=True)
            for name in [*names, "._dia0_utt0"]:
                (place / f"{name}.mp4").touch()
    return folder


def test_rows_of_the_official_csv_files(tmp_path):
    corpus = import_meld(release(tmp_path / "r"), tmp_path / "c", partial=True)
    table = corpus.table.set_index("id")
    assert list(table.index) == [
        "train_dia0_utt0", "train_dia0_utt2", "train_dia125_utt3", "dev_dia0_utt0", "dev_dia110_utt7",
        "test_dia3_utt1",
    ]
    assert list(table["split"]) == ["train"] * 3 + ["valid"] * 2 + ["test"]
    assert list(table["label"]) == ["happy", "sad", "neutral", "surprise", "neutral", "angry"]
    row = table.loc["train_dia0_utt0"]
    assert row[["text", "speaker", "sentiment"]].tolist() == [
        "You must’ve had… your hands full.", "Chandler", "positive",
    ]  # fmt: skip
    assert (row["conversation"], row["source"]) == ("train_dia0", "s08_e21")
    assert list(table["position"]) == [0, 2, 3, 0, 7, 1]
    assert table.loc["train_dia0_utt2", "text"] == "None"
    assert corpus.space.name == "meld-7"
    assert "train: 3 of 9989" in corpus.info["partial"]


def test_times_of_the_csv_never_cut_a_clip(tmp_path):
    table = import_meld(release(tmp_path / "r", clips=True), tmp_path / "c", partial=True).table
    assert (table["start"] == 0).all()
    assert table["end"].isna().all()
    assert table["episode_start"].iloc[0] == pytest.approx(976.059)
    assert table["episode_end"].iloc[0] == pytest.approx(981.731)
    assert np.isnan(table["episode_end"].iloc[4])


def test_same_dialogue_number_in_two_splits_is_two_conversations_of_one_episode(tmp_path):
    corpus = import_meld(release(tmp_path / "r"), tmp_path / "c", partial=True)
    assert corpus.table["conversation"].nunique() == 5
    assert corpus.info["overlap"] == {"source": {"train/valid": ["s08_e21"]}}


def test_clips_are_linked_and_the_unusable_two_are_not(tmp_path):
    corpus = import_meld(release(tmp_path / "r", clips=True), tmp_path / "c", partial=True)
    videos = dict(zip(corpus.table["id"], corpus.table["video"], strict=True))
    assert [i for i, v in videos.items() if not v] == ["train_dia125_utt3", "dev_dia110_utt7"]
    assert videos["test_dia3_utt1"].endswith("output_repeated_splits_test/dia3_utt1.mp4")
    assert not any(line.startswith("clips") for line in corpus.info["partial"])
    (tmp_path / "r" / "train" / "train_splits" / "dia0_utt2.mp4").unlink()
    again = import_meld(tmp_path / "r", tmp_path / "d", partial=True)
    assert "clips of train: 1 of 2" in again.info["partial"]
    assert again.hash == corpus.hash  # a corpus is its words and labels, wherever its clips are


def test_missing_clips_need_partial(tmp_path, monkeypatch):
    monkeypatch.setitem(CARD, "counts", {"train": 3, "valid": 2, "test": 1})
    release(tmp_path / "r", clips=True)
    assert "partial" not in import_meld(tmp_path / "r", tmp_path / "c").info
    (tmp_path / "r" / "dev" / "dev_splits_complete" / "dia0_utt0.mp4").unlink()
    with pytest.raises(BadCorpus, match=r"clips per split: incomplete .valid: 0 of 1") as caught:
        import_meld(tmp_path / "r", tmp_path / "d")
    assert "--partial" in caught.value.remedy


def test_a_missing_split_needs_partial_and_a_surplus_fails(tmp_path, monkeypatch):
    release(tmp_path / "r", ("train", "dev"))
    with pytest.raises(BadCorpus, match=r"incomplete.*test: 0 of 2610"):
        import_meld(tmp_path / "r", tmp_path / "c")
    assert not (tmp_path / "c").exists()
    monkeypatch.setitem(CARD, "counts", {"train": 2, "valid": 2, "test": 1})
    with pytest.raises(BadCorpus, match="3 of 'train', the release has 2"):
        import_meld(tmp_path / "r", tmp_path / "c", partial=True)


def test_changed_labels_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(CARD, "counts", {"train": 3, "valid": 2, "test": 1})
    monkeypatch.setitem(PUBLISHED, "train", (2, 0, 0, 1, 0, 0, 0))
    with pytest.raises(BadCorpus, match="train: 1 of 'neutral', the release has 2"):
        import_meld(release(tmp_path / "r"), tmp_path / "c")


@pytest.mark.parametrize("change", [("Emotion", "Feeling"), ("joy", "joyy")])
def test_foreign_columns_and_labels_are_named(tmp_path, change):
    release(tmp_path / "r")
    path = tmp_path / "r" / "train_sent_emo.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    with pytest.raises(BadCorpus, match=r"Emotion|joyy"):
        import_meld(tmp_path / "r", tmp_path / "c", partial=True)


def test_mend_is_cp1252():
    assert mend("\x91a\x92 \x93b\x94 \x96 \x97 \x85\n c\u00e9") == "‘a’ “b” – — … c\u00e9"
    assert mend("plain ’ text") == "plain ’ text"
    path_text = "It\u2019s".encode("cp1252")
    assert path_text.decode("cp1252") == "It’s"


def test_a_cp1252_file(tmp_path):
    release(tmp_path / "r", ("dev", "test"))
    text = (HEADER + LINES["train"]).replace("\x92", "’").replace("\x85", "…")
    (tmp_path / "r" / "train_sent_emo.csv").write_bytes(text.encode("cp1252"))
    corpus = import_meld(tmp_path / "r", tmp_path / "c", partial=True)
    assert corpus.table["text"].iloc[0] == "You must’ve had… your hands full."


def test_published_labels_add_up():
    assert {s: sum(v) for s, v in PUBLISHED.items()} == CARD["counts"]


def test_the_real_label_files(shared_data, tmp_path):
    src = shared_data / "meld_text" / "MELD"
    corpus = import_meld(src, tmp_path / "c", partial=True)
    assert corpus.info["partial"] == ["test: 0 of 2610"]
    for split in ("train", "valid"):
        theirs = pd.read_csv(src / f"{OFFICIAL[split]}_sent_emo.csv")
        ours = corpus.table[corpus.table["split"] == split]
        assert len(ours) == len(theirs) == meld.CARD["counts"][split]
        counted = ours["label"].value_counts()
        assert tuple(counted[e] for e in EMOTIONS) == PUBLISHED[split]
        assert ours["conversation"].nunique() == theirs["Dialogue_ID"].nunique()
        assert list(ours["sentiment"]) == list(theirs["Sentiment"])
        assert (ours["episode_end"] > ours["episode_start"]).all()
    assert not corpus.table["text"].str.contains("[\x80-\x9f]").any()
    assert (corpus.table["text"] != "").all()
    overlap = corpus.info["overlap"]
    assert (len(overlap["speaker"]["train/valid"]), len(overlap["source"]["train/valid"])) == (33, 81)


def test_polished_transcripts_have_the_same_ids(shared_data, tmp_path):
    corpus = import_meld(shared_data / "meld_text" / "MELD", tmp_path / "c", partial=True)
    names = pd.read_csv(shared_data / "meld_text" / "transcription-engchi_train_val.csv")["name"]
    assert set(names.str.replace("val_", "dev_")) == set(corpus.table["id"])


def test_clips_are_found_among_the_copies_of_macos_and_dead_links_are_none(tmp_path):
    src = release(tmp_path / "r", clips=True)
    for place in CLIPS.values():
        (src / "__MACOSX" / place).mkdir(parents=True)
    assert (import_meld(src, tmp_path / "c", partial=True).table["video"] != "").sum() == 4
    (src / "train" / "train_splits" / "dia0_utt2.mp4").unlink()
    (src / "train" / "train_splits" / "dia0_utt2.mp4").symlink_to(tmp_path / "not fetched")
    assert "clips of train: 1 of 2" in import_meld(src, tmp_path / "d", partial=True).info["partial"]


def test_blanks_around_numbers_change_no_id(tmp_path):
    src = release(tmp_path / "r", clips=True)
    path = src / "dev_sent_emo.csv"
    path.write_text(path.read_text().replace("negative,0,0,", "negative, 0,0 ,"))
    table = import_meld(src, tmp_path / "c", partial=True).table.set_index("id")
    assert table.loc["dev_dia0_utt0", "conversation"] == "dev_dia0"
    assert table.loc["dev_dia0_utt0", "video"]
