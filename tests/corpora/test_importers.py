from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from affuse.core import registry
from affuse.core.errors import BadConfig, BadCorpus, MissingFile, UnknownName
from affuse.corpora.emodb import PUBLISHED, import_emodb
from affuse.corpora.manifest import Corpus, make_splits, overlap, write_corpus
from affuse.corpora.ravdess import import_ravdess
from affuse.corpora.table import import_table


def ravdess_release(folder, actors=range(1, 25), modality="03", suffix=".wav"):
    """Empty files in the exact layout of the official release."""
    for actor in actors:
        place = folder / f"Actor_{actor:02d}"
        place.mkdir(parents=True, exist_ok=True)
        for emotion in range(1, 9):
            for intensity in (1, 2) if emotion > 1 else (1,):
                for statement in (1, 2):
                    for repetition in (1, 2):
                        take = f"{emotion:02d}-{intensity:02d}-{statement:02d}-{repetition:02d}"
                        name = f"{modality}-01-{take}-{actor:02d}"
                        (place / f"{name}{suffix}").touch()
    return folder


def test_ravdess_complete(tmp_path):
    corpus = import_ravdess(ravdess_release(tmp_path / "r"), tmp_path / "c")
    assert len(corpus) == 1440
    assert corpus.info["counts"]["all"]["labels"]["neutral"] == 96
    assert corpus.info["counts"]["all"]["labels"]["calm"] == 192
    assert corpus.table["speaker"].nunique() == 24
    row = corpus.table.set_index("id").loc["01-06-01-02-02-12"]
    assert (row["label"], row["text"], row["gender"]) == ("fear", "Dogs are sitting by the door", "female")


def test_ravdess_video_and_sound_are_one_take(tmp_path):
    ravdess_release(tmp_path / "r", [1])
    ravdess_release(tmp_path / "r", [1], "01", ".mp4")
    ravdess_release(tmp_path / "r", [1], "02", ".mp4")
    (tmp_path / "r" / "03-02-01-01-01-01-01.wav").touch()  # a song
    (tmp_path / "r" / "notes.wav").touch()
    corpus = import_ravdess(tmp_path / "r", tmp_path / "c", partial=True)
    assert len(corpus) == 60
    assert corpus.table["video"].str.contains("/01-01-").all()
    assert corpus.table["audio"].str.contains("/03-01-").all()
    assert "actor02: 0 of 60" in corpus.info["partial"]


def test_ravdess_pictures_of_some_actors_need_partial(tmp_path):
    ravdess_release(tmp_path / "r")
    ravdess_release(tmp_path / "r", [1], "01", ".mp4")
    (tmp_path / "r" / "Actor_01" / "01-01-08-02-02-02-01.mp4").unlink()
    with pytest.raises(BadCorpus, match=r"pictures per actor: incomplete .actor01: 59 of 60; actor02: 0 of 60"):
        import_ravdess(tmp_path / "r", tmp_path / "c")
    partial = import_ravdess(tmp_path / "r", tmp_path / "c", partial=True).info["partial"]
    assert "pictures of actor01: 59 of 60" in partial


def test_ravdess_incomplete_needs_partial(tmp_path):
    ravdess_release(tmp_path / "r", range(1, 10))
    with pytest.raises(BadCorpus, match=r"incomplete.*actor10") as caught:
        import_ravdess(tmp_path / "r", tmp_path / "c")
    assert "--partial" in caught.value.remedy
    assert not (tmp_path / "c").exists()


def test_ravdess_of_nothing(tmp_path):
    with pytest.raises(BadCorpus, match="no RAVDESS"):
        import_ravdess(tmp_path, tmp_path / "c")


def test_ravdess_real_names(shared_data, tmp_path):
    corpus = import_ravdess(shared_data / "ravdess_speech" / "opus", tmp_path / "c", partial=True)
    labels = pd.read_csv(shared_data / "ravdess_speech" / "labels.csv").set_index("clip")
    assert len(corpus) == len(labels) == 1080
    from affuse.core.labels import canonical

    theirs = [canonical(labels.loc[f"03-{i}", "emotion"]) for i in corpus.table["id"]]
    assert theirs == list(corpus.table["label"])


def test_emodb_real_names(shared_data, tmp_path):
    corpus = import_emodb(shared_data / "emodb" / "opus", tmp_path / "c", partial=True)
    labels = pd.read_csv(shared_data / "emodb" / "labels.csv").set_index("clip")
    assert len(corpus) == len(labels) == 278
    from affuse.core.labels import canonical

    assert [canonical(labels.loc[i, "emotion"]) for i in corpus.table["id"]] == list(corpus.table["label"])
    assert sum(PUBLISHED.values()) == 535
    with pytest.raises(BadCorpus, match="incomplete"):
        import_emodb(shared_data / "emodb" / "opus", tmp_path / "d")


@pytest.mark.parametrize("name", [n for n in registry.cards("corpora") if n not in ("table", "synthetic")])
def test_every_importer_refuses_an_empty_folder(name, tmp_path):
    with pytest.raises(BadCorpus):
        registry.load("corpora", name)(tmp_path, tmp_path / "c", partial=True)


def table(tmp_path, text, encoding="utf-8"):
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    return tmp_path / "t.csv"


def test_table_with_spans_conversations_and_own_columns(tmp_path):
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.mp4").touch()
    src = table(tmp_path, "file,emo,who,dialogue,von,bis,arousal\na.mp4,Joy,x,d1,0,2.5,0.3\na.mp4,anger,y,d1,2.5,4,\n")
    columns = {
        "video": "file", "label": "emo", "speaker": "who", "conversation": "dialogue", "start": "von", "end": "bis",
    }
    corpus = import_table(src, tmp_path / "c", root=tmp_path / "media", columns=columns)
    assert list(corpus.table["label"]) == ["happy", "angry"]
    assert list(corpus.table["position"]) == [0, 1]
    assert list(corpus.table["end"]) == [2.5, 4.0]
    assert corpus.table["id"].is_unique
    assert np.isnan(corpus.table["arousal"].iloc[1])


def test_table_in_another_encoding(tmp_path):
    corpus = import_table(table(tmp_path, "id,text,label\n1,café,sad\n", "cp1252"), tmp_path / "c")
    assert corpus.table["text"].iloc[0] == "café"
    assert corpus.table["id"].iloc[0] == "1"


@pytest.mark.parametrize(
    ("text", "options", "error"),
    [
        ("id,label\n", {}, "no utterances"),
        ("id,label\na,sad\na,sad\n", {}, "twice"),
        ("id,label,split\na,sad,dev\n", {}, "unknown split 'dev'"),
        ("id,label,start,end\na,sad,3,2\n", {}, "start 3.0 and end 2.0"),
        ("id,label,start\na,sad,soon\n", {}, "not numeric"),
        ("id,label,end\na,sad,inf\n", {}, "end inf"),
        ("id,label,position\na,sad,1.5\n", {}, "1.5 is no whole number"),
        ("id,label\n,sad\nb,sad\n", {}, "1 of 2 utterances have no id"),
        ("id,text,label\na,hello,sad,x\nb,you,sad,\n", {}, "line 2 has 4 cells, more cells than its header"),
        ("id,label, label\na,sad,sad\n", {}, "two columns are named 'label'"),
        ("foo,label\na,sad\n", {}, "none of the columns"),
        ("id,label\na,sadd\n", {"space": "ekman-7"}, "sadd"),
    ],
)
def test_wrong_tables(tmp_path, text, options, error):
    with pytest.raises(BadCorpus, match=error):
        import_table(table(tmp_path, text), tmp_path / "c", **options)


def test_column_names_may_stand_between_spaces(tmp_path):
    corpus = import_table(table(tmp_path, "id, text , label\n007, hello, sad\n"), tmp_path / "c")
    assert corpus.table[["id", "text", "label"]].iloc[0].tolist() == ["007", "hello", "sad"]


def test_columns_that_are_mapped_to_text_stay_text(tmp_path):
    src = table(tmp_path, "clip,emo,who\n007,sad,1\n008,sad,\n")
    corpus = import_table(src, tmp_path / "c", columns={"id": "clip", "label": "emo", "speaker": "who"})
    assert list(corpus.table["id"]) == ["007", "008"]
    assert list(corpus.table["speaker"]) == ["1", ""]


def test_wrong_names_and_missing_media(tmp_path):
    src = table(tmp_path, "id,video,label\na,x.mp4,sad\n")
    with pytest.raises(MissingFile, match=r"x\.mp4"):
        import_table(src, tmp_path / "c")
    with pytest.raises(UnknownName, match="lable"):
        import_table(src, tmp_path / "c", columns={"lable": "label"})
    with pytest.raises(UnknownName, match="emotion"):
        import_table(src, tmp_path / "c", columns={"label": "emotion"})
    with pytest.raises(MissingFile):
        import_table(tmp_path / "none.csv", tmp_path / "c")


def speakers(n=120, groups=12):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "source": [f"s{i % groups}" for i in range(n)],
            "label": rng.choice(["a", "b", "c"], n, p=[0.6, 0.3, 0.1]),
            "split": "",
        }
    )


def test_folds_never_part_a_group_and_test_everyone_once():
    data = speakers()
    splits = make_splits(data, "source", 0.2, 0.2, 4, 0)
    tested = np.zeros(len(data), dtype=int)
    for split in splits:
        parts = [set(data.loc[split == s, "source"]) for s in ("train", "valid", "test")]
        assert all(parts)
        assert not (parts[0] & parts[1])
        assert not (parts[0] & parts[2])
        assert not (parts[1] & parts[2])
        tested += split == "test"
    assert (tested == 1).all()


def test_own_splits_are_kept_and_valid_is_carved_from_train():
    data = speakers()
    data["split"] = np.where(data["source"].isin(["s0", "s1"]), "test", "train")
    (split,) = make_splits(data, "source", 0.2, 0.2, None, 0)
    assert ((split == "test") == (data["split"] == "test")).all()
    assert 0.05 < (split == "valid").mean() < 0.35


def test_split_zero_holds_nothing_out_and_impossible_splits_are_refused():
    (split,) = make_splits(speakers(), "source", 0.0, 0.2, None, 0)
    assert "valid" not in split
    with pytest.raises(BadCorpus, match="13 folds need 13 groups"):
        make_splits(speakers(), "source", 0.2, 0.2, 13, 0)
    with pytest.raises(BadCorpus, match="need 2 groups, source makes 1 of the 120 utterances"):
        make_splits(speakers(groups=1), "source", 0.2, 0.2, None, 0)


def test_a_few_utterances_of_many_classes_are_split_by_group_alone():
    data = pd.DataFrame({"source": [f"s{i}" for i in range(12)], "label": list("abcdef") * 2, "split": ""})
    (split,) = make_splits(data, "source", 0.15, 0.2, None, 0)
    assert set(split) == {"train", "valid", "test"}
    assert len(make_splits(data, "source", 0.15, 0.2, 5, 0)) == 5


def test_utterances_of_no_group_are_one_group():
    data = speakers().assign(session=[f"s{i % 9}" if i % 4 else None for i in range(120)])
    (split,) = make_splits(data, "session", 0.2, 0.2, None, 0)
    assert len(set(split[data["session"].isna()])) == 1


@pytest.mark.parametrize("folds", [1, -2])
def test_fewer_than_two_folds_are_refused(folds):
    with pytest.raises(BadCorpus, match="2 folds or more"):
        make_splits(speakers(), "source", 0.2, 0.2, folds, 0)


@pytest.mark.parametrize("share", [20.0, 1.0, float("nan")])
def test_a_share_of_everything_is_refused(share):
    with pytest.raises(BadConfig, match=r"split\.test"):
        make_splits(speakers(), "source", 0.2, share, None, 0)


def test_the_leak_check_names_shared_speakers(tmp_path):
    rows = [
        {"id": str(i), "speaker": "aab"[i], "label": "sad", "split": ["train", "test", "train"][i]} for i in range(3)
    ]
    corpus = write_corpus(tmp_path / "c", rows, "x")
    assert corpus.info["overlap"] == {"speaker": {"train/test": ["a"]}, "source": {"train/test": ["a"]}}
    assert overlap(corpus.table.assign(speaker=["a", "b", "c"]), "speaker") == {}
    assert Corpus.open(tmp_path / "c").hash == corpus.hash


def test_published_folds_are_used_as_they_are_and_only_in_their_number():
    data = speakers().assign(fold=lambda t: t["source"].str[1:].astype(int) % 3)
    for k, split in enumerate(make_splits(data, "source", 0.0, 0.2, 3, 0)):
        assert ((split == "test") == (data["fold"] == k)).all()
    with pytest.raises(BadCorpus, match="3 published folds, not 5"):
        make_splits(data, "source", 0.0, 0.2, 5, 0)


@pytest.mark.parametrize(
    ("share", "near"), [(0.1, 0.1), (0.15, 1 / 7), (0.3, 1 / 3), (0.4, 0.4), (0.5, 0.5), (0.7, 0.7)]
)
def test_about_the_share_that_was_asked_for_is_held_out(share, near):
    table = pd.DataFrame({"label": ["a", "b"] * 420, "source": [f"s{i // 10}" for i in range(840)], "split": ""})
    (split,) = make_splits(table, "source", 0.0, share, None, 0)
    assert (split == "test").mean() == pytest.approx(near, abs=0.02)
    assert (table.assign(part=split).groupby("source")["part"].nunique() == 1).all()


def test_another_corpus_is_not_written_over(tmp_path):
    rows = [{"id": "a", "text": "yes", "label": "happy"}]
    write_corpus(tmp_path, rows, "mine")
    with pytest.raises(BadCorpus, match="holds the corpus 'mine'"):
        write_corpus(tmp_path, [{**rows[0], "id": "b"}], "yours")
    assert list(Corpus.open(tmp_path).table["id"]) == ["a"]
    assert list(write_corpus(tmp_path, [{**rows[0], "id": "b"}], "mine").table["id"]) == ["b"]
