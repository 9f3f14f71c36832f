from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from affuse.core.errors import BadCorpus
from affuse.core.labels import space
from affuse.corpora import crema_d
from affuse.corpora.crema_d import (
    AUDEERING,
    CARD,
    DAMAGED,
    EMOTIONS,
    HICMAE_FIRST,
    OGM,
    PUBLISHED,
    SENTENCES,
    import_crema_d,
)
from affuse.corpora.manifest import make_splits

CLIPS = [
    "1001_IEO_NEU_XX", "1001_IEO_HAP_LO", "1001_DFA_ANG_XX", "1018_TIE_SAD_XX", "1019_WSI_FEA_XX",
    "1049_IOM_DIS_XX", "1076_MTI_SAD_XX", "1076_MTI_NEU_XX", "1091_IEO_ANG_HI",
]  # fmt: skip
VOTES = '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote"\n'


def votes_of(number, clip, kind):
    """Ten answers: for sound and picture mostly the acted emotion, otherwise neutral; the second clip is a tie."""
    counts = dict.fromkeys("ADFHNS", 0) | {"N": 6}
    counts[clip[9]] += 6 if kind == 3 and number == 2 else 3
    counts["N"] -= 2 if kind == 3 and clip[9] != "N" and number != 2 else 0
    row = ",".join(str(counts[c]) for c in "ADFHNS")
    return f'"{kind * 100_000 + number}",{row},"{clip}",{sum(counts.values())},.6,"N"\n'


def release(folder, clips=CLIPS, sound="wav", picture="flv"):
    """A miniature release in the official layout."""
    (folder / "processedResults").mkdir(parents=True)
    names = "".join(f'{i},"{c}"\n' for i, c in enumerate(clips, 1))
    (folder / "SentenceFilenames.csv").write_text('"Stimulus_Number","Filename"\n' + names)
    people = "".join(
        f'{a},{20 + a % 50},"{("Female", "Male")[a % 2]}","Asian","Not Hispanic"\n' for a in range(1001, 1092)
    )
    (folder / "VideoDemographics.csv").write_text('"ActorID","Age","Sex","Race","Ethnicity"\n' + people)
    rows = [votes_of(i, c, kind) for kind in (1, 2, 3) for i, c in enumerate(clips, 1)]
    (folder / "processedResults" / "tabulatedVotes.csv").write_text(VOTES + "".join(rows))
    for place, suffix in (("AudioWAV" if sound == "wav" else "AudioMP3", sound), ("VideoFlash", picture)):
        for clip in clips if suffix else ():
            (folder / place).mkdir(exist_ok=True)
            (folder / place / f"{clip}.{suffix}").write_bytes(b"\0" * 64)
    (folder / "VideoFlash").mkdir(exist_ok=True)
    (folder / "VideoFlash" / "notes.mp4").touch()
    return folder


def table(tmp_path, name="c", **options):
    return import_crema_d(tmp_path / "r", tmp_path / name, partial=True, **options).table.set_index("id")


def test_rows_are_the_fields_of_the_names(tmp_path):
    release(tmp_path / "r")
    rows = table(tmp_path)
    assert list(rows.index) == CLIPS
    row = rows.loc["1001_IEO_HAP_LO"]
    assert (row["speaker"], row["source"], row["label"], row["intensity"]) == ("1001", "1001", "happy", "low")
    assert (row["text"], row["gender"], row["age"], row["race"]) == ("It's eleven o'clock.", "male", 21, "Asian")
    assert row["video"].endswith("VideoFlash/1001_IEO_HAP_LO.flv")
    assert row["audio"].endswith("AudioWAV/1001_IEO_HAP_LO.wav")
    assert (rows["split"] == "").all()
    assert "fold" not in rows


def test_votes_are_in_the_order_of_the_label_space(tmp_path):
    release(tmp_path / "r")
    row = table(tmp_path).loc["1019_WSI_FEA_XX"]
    assert space("crema-d-6").labels == ("neutral", "happy", "sad", "fear", "disgust", "angry")
    assert list(row["votes"]) == [4, 0, 0, 3, 0, 0]
    assert list(row["votes_voice"]) == list(row["votes_face"]) == [6, 0, 0, 3, 0, 0]


def test_labels_of_the_crowd_and_their_ties(tmp_path):
    release(tmp_path / "r")
    corpus = import_crema_d(tmp_path / "r", tmp_path / "c", partial=True, labels="crowd")
    rows = corpus.table.set_index("id")
    assert (rows.loc["1019_WSI_FEA_XX", "label"], rows.loc["1019_WSI_FEA_XX", "acted"]) == ("neutral", "fear")
    assert rows.loc["1001_IEO_HAP_LO", "label"] == ""
    assert corpus.info["warnings"] == ["labels=crowd: 1 clips without a single majority have no label"]
    (tmp_path / "r" / "processedResults" / "tabulatedVotes.csv").unlink()
    with pytest.raises(BadCorpus, match="labels=crowd: no processedResults"):
        table(tmp_path, "d", labels="crowd")


def test_damaged_clips_keep_what_is_sound(tmp_path):
    release(tmp_path / "r")
    rows = table(tmp_path)
    assert (rows.loc["1076_MTI_SAD_XX", ["audio", "video"]] == "").all()
    assert rows.loc["1076_MTI_NEU_XX", "audio"].endswith(".wav")
    assert rows.loc["1076_MTI_NEU_XX", "video"] == ""
    release(tmp_path / "s", sound="mp3")
    rows = import_crema_d(tmp_path / "s", tmp_path / "d", partial=True).table.set_index("id")
    assert rows.loc["1091_IEO_ANG_HI", "audio"].endswith("AudioMP3/1091_IEO_ANG_HI.mp3")
    assert rows.loc["1076_MTI_NEU_XX", "audio"] == ""


def test_a_complete_release_and_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(CARD, "counts", {"clips": len(CLIPS)})
    monkeypatch.setattr(crema_d, "PUBLISHED", {})
    assert "partial" not in import_crema_d(release(tmp_path / "r"), tmp_path / "a").info
    release(tmp_path / "s", picture="")
    with pytest.raises(BadCorpus, match=r"media: incomplete .clips with picture: 0 of 7.") as caught:
        import_crema_d(tmp_path / "s", tmp_path / "b")
    assert "--partial" in caught.value.remedy
    assert not (tmp_path / "b").exists()
    for name in ("SentenceFilenames.csv", "VideoDemographics.csv", "processedResults/tabulatedVotes.csv"):
        (tmp_path / "s" / name).unlink()
    corpus = import_crema_d(tmp_path / "s", tmp_path / "b", partial=True)
    assert list(corpus.table["id"]) == sorted(CLIPS)
    assert corpus.info["partial"] == [
        "clips with picture: 0 of 7",
        *(f"clips with {c}: 0 of 9" for c in ("votes_voice", "votes_face", "votes")),
        "actors: 0 of 6",
    ]
    assert corpus.table["age"].isna().all()


def test_pointers_of_git_lfs_are_no_media(tmp_path, monkeypatch):
    monkeypatch.setitem(CARD, "counts", {"clips": len(CLIPS)})
    monkeypatch.setattr(crema_d, "PUBLISHED", {})
    for path in release(tmp_path / "r").glob("Audio*/*.wav"):
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 75900\n")
    with pytest.raises(BadCorpus, match=r"9 files are git-lfs pointers, e\.g\. .*\.wav") as caught:
        import_crema_d(tmp_path / "r", tmp_path / "c")
    assert "git lfs pull" in caught.value.remedy
    assert (table(tmp_path)["audio"] == "").all()


def test_splits_by_actor(tmp_path):
    release(tmp_path / "r")
    rows = table(tmp_path, split="audeering")
    assert dict(zip(rows["speaker"], rows["split"], strict=True)) == {
        "1001": "train", "1018": "train", "1019": "train", "1049": "valid", "1076": "test", "1091": "test",
    }  # fmt: skip
    corpus = import_crema_d(tmp_path / "r", tmp_path / "d", partial=True, split="hicmae")
    assert list(corpus.table["fold"]) == [0, 0, 0, 0, 1, 2, 4, 4, 4]
    assert "five clips" in corpus.info["warnings"][0]
    assert not AUDEERING["valid"] & AUDEERING["test"]


def test_the_split_of_ogm_is_flagged(tmp_path, monkeypatch):
    release(tmp_path / "r")
    with pytest.raises(BadCorpus, match=r"split=ogm: no train\.csv"):
        table(tmp_path, split="ogm")
    (tmp_path / "r" / "train.csv").write_text("\ufeff1001_IEO_NEU_XX,NEU\n1018_TIE_SAD_XX,SAD\n", encoding="utf-8")
    (tmp_path / "r" / "test.csv").write_text("1001_IEO_HAP_LO,HAP\n1091_IEO_ANG_HI,ANG\n")
    monkeypatch.setattr(crema_d, "OGM", {"train": 2, "test": 2})
    corpus = import_crema_d(tmp_path / "r", tmp_path / "c", partial=True, split="ogm")
    assert corpus.info["warnings"] == ["split=ogm is speaker-dependent: 1 actors are in train and in test"]
    assert corpus.info["overlap"]["speaker"] == {"train/test": ["1001"]}
    (tmp_path / "r" / "test.csv").write_text("1001_IEO_HAP_LO,SAD\n")
    with pytest.raises(BadCorpus, match="'1001_IEO_HAP_LO,SAD' is not a clip and its emotion"):
        table(tmp_path, "d", split="ogm")


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        ("SentenceFilenames.csv", ("Filename", "File"), "no column 'Filename'"),
        (
            "SentenceFilenames.csv",
            ("1001_IEO_NEU_XX", "1001_IEO_BOR_XX"),
            "'1001_IEO_BOR_XX' is not ACTOR_SENTENCE_EMOTION_LEVEL",
        ),
        ("SentenceFilenames.csv", ("1001_IEO_NEU_XX", "1092_IEO_NEU_XX"), "'1092_IEO_NEU_XX' is not ACTOR"),
        (
            "SentenceFilenames.csv",
            ('1,"1001_IEO_NEU_XX"\n', ""),
            "1 clips are not in .*SentenceFilenames.csv, e.g. '1001_IEO_NEU_XX'",
        ),
        ("SentenceFilenames.csv", ("1001_IEO_HAP_LO", "1001_IEO_NEU_XX"), "1 clips are not in .* '1001_IEO_HAP_LO'"),
        ("VideoDemographics.csv", ("Ethnicity", "Ethnic"), "no column 'Ethnicity'"),
        ("VideoDemographics.csv", ("1001,21", "1001,young"), "actor 1001 has age 'young'"),
        ("processedResults/tabulatedVotes.csv", ('"N",', '"X",'), "no column 'N'"),
        (
            "processedResults/tabulatedVotes.csv",
            ('"100001",0', '"100001",2'),
            "the votes for '1001_IEO_NEU_XX' are not",
        ),
        ("processedResults/tabulatedVotes.csv", ('"100001"', '"500001"'), "the votes for '1001_IEO_NEU_XX' are not"),
        ("processedResults/tabulatedVotes.csv", ('"100001",0', '"100001",none'), "a row number or a vote is no number"),
        (
            "processedResults/tabulatedVotes.csv",
            ('"100001",0', '"100001",nan'),
            "the votes for '1001_IEO_NEU_XX' are not",
        ),
        ("processedResults/tabulatedVotes.csv", ('"100001"', f'"{"9" * 25}"'), "a row number or a vote is no number"),
        (
            "processedResults/tabulatedVotes.csv",
            ('"200001"', '"100001"'),
            "'1001_IEO_NEU_XX' occurs twice for presentation 1",
        ),
    ],
)
def test_damaged_tables_are_named(tmp_path, name, change, error):
    release(tmp_path / "r")
    path = tmp_path / "r" / name
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(BadCorpus, match=error):
        table(tmp_path)
    assert not (tmp_path / "c").exists()


def test_nothing_incomplete_surplus_and_changed_labels(tmp_path, monkeypatch):
    (tmp_path / "r").mkdir()
    with pytest.raises(BadCorpus, match="no clip of CREMA-D"):
        table(tmp_path)
    release(tmp_path / "s")
    with pytest.raises(BadCorpus, match=r"incomplete .clips: 9 of 7442"):
        import_crema_d(tmp_path / "s", tmp_path / "c")
    monkeypatch.setattr(crema_d, "PUBLISHED", {"neutral": 2, "happy": 2, "sad": 2, "fear": 1, "disgust": 1, "angry": 1})
    with pytest.raises(BadCorpus, match="1 of 'happy', the release has 2"):
        import_crema_d(tmp_path / "s", tmp_path / "c", partial=True)
    monkeypatch.setitem(CARD, "counts", {"clips": 8})
    with pytest.raises(BadCorpus, match="9 of 'clips', the release has 8"):
        import_crema_d(tmp_path / "s", tmp_path / "c", partial=True)


def test_the_real_tables(shared_data, tmp_path):
    src = shared_data / "crema_d_meta"
    corpus = import_crema_d(src, tmp_path / "c", partial=True)
    rows = corpus.table.set_index("id")
    assert corpus.info["partial"] == ["clips with sound: 0 of 7438", "clips with picture: 0 of 7438"]
    assert (len(rows), rows["speaker"].nunique(), rows["text"].nunique()) == (7442, 91, 12)
    assert dict(rows["label"].value_counts()) == PUBLISHED
    assert (rows.groupby("speaker")["gender"].first() == "male").sum() == 48
    theirs = pd.read_csv(src / "tabulatedVotes.csv")
    heard = theirs[theirs.iloc[:, 0] // 100_000 == 1].set_index("fileName").loc[rows.index]
    assert np.array_equal(np.stack(rows["votes_voice"]), heard[["N", "H", "S", "F", "D", "A"]])
    for split in make_splits(corpus.table, "source", 0.1, 0.2, 5, 0):
        assert not set(corpus.table["speaker"][split == "test"]) & set(corpus.table["speaker"][split != "test"])


def test_the_real_crowd_is_the_summary_table(shared_data, tmp_path):
    src = shared_data / "crema_d_meta"
    rows = import_crema_d(src, tmp_path / "c", partial=True, labels="crowd").table.set_index("id")
    theirs = pd.read_csv(src / "summaryTable.csv").set_index("FileName").loc[rows.index]
    letters = dict(zip("NHSFDA", EMOTIONS.values(), strict=True))
    assert list(rows["label"]) == [letters.get(v, "") for v in theirs["MultiModalVote"]]
    assert (rows["label"] == "").sum() == 420


def test_the_real_published_splits(shared_data, tmp_path):
    src = shared_data / "crema_d_meta"
    corpus = import_crema_d(src, tmp_path / "a", partial=True, split="ogm")
    assert corpus.table["split"].value_counts().to_dict() == OGM
    assert corpus.info["warnings"] == ["split=ogm is speaker-dependent: 91 actors are in train and in test"]
    theirs = json.loads((src / "audeering_speaker_splits.json").read_text())
    assert {"valid": set(theirs["dev"]), "test": set(theirs["test"])} == AUDEERING
    rows = import_crema_d(src, tmp_path / "b", partial=True, split="audeering").table
    assert set(rows.loc[rows["split"] == "train", "speaker"].astype(int)) == set(theirs["train"])
    rows = import_crema_d(src, tmp_path / "d", partial=True, split="hicmae").table
    fold = dict(zip(rows["id"], rows["fold"], strict=True))
    listed = 0
    for k in range(len(HICMAE_FIRST)):
        names = [
            line.split()[1].split("/")[-1][:-4]
            for line in (src / f"hicmae_crema-d_split0{k + 1}_test.csv").read_text().splitlines()
        ]
        assert {fold[n] for n in names} == {k}
        listed += len(names)
    assert (listed, len(fold)) == (7437, 7442)
    assert set(SENTENCES) == set(rows["id"].str[5:8])
    assert set(rows["id"]) > DAMAGED
