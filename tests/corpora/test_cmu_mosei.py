"""CMU-MOSEI: emotions, folds, the label JSON of MERTools; the pickle readers and their malformed inputs."""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter

import numpy as np
import pytest
from tests.corpora.sentiment_releases import carat, clips, csd, dump, frames, mmsa, mult, words

from affuse.core.errors import AffuseError, BadCorpus, BadFeatures
from affuse.core.labels import SPACES
from affuse.core.tasks import Task
from affuse.corpora.cmu_mosei import CARD, import_cmu_mosei
from affuse.corpora.sentiment.pickles import EMOTIONS, read_pickle
from affuse.stores.store import FeatureStore

FOLDS = "standard_train_fold=['aaa', '81406']\n\nstandard_valid_fold=['bbb']\nstandard_test_fold=['ccc']\n"
VECTOR = np.array([[0.6666667, 1.3333334, 0, 0.33333334, 0, 0, 2], [-1, 0, 1, 2, 3, 0, 0]], np.float32)


def store(corpus, name):
    return FeatureStore(corpus.store_path(name))


def sequences(folder, folds=FOLDS):
    pytest.importorskip("h5py")
    spans = [[0.0, 2.0], [2.0, 4.0]]
    videos = ("aaa", "81406", "bbb", "ccc")
    csd(folder / "labels" / "CMU_MOSEI_Labels.csd", "All Labels", dict.fromkeys(videos, (VECTOR, spans)))
    csd(
        folder / "language" / "CMU_MOSEI_TimestampedWords.csd",
        "words",
        dict.fromkeys(videos, words("so", "glad", "sp", "no")),
    )
    csd(folder / "acoustic" / "CMU_MOSEI_COVAREP.csd", "COVAREP", {v: frames(4, 100, 74) for v in videos})
    csd(folder / "visual" / "CMU_MOSEI_VisualOpenFace2.csd", "OpenFace_2", {v: frames(4, 30, 7) for v in videos})
    if folds:
        (folder / "cmu_mosei_std_folds.py").write_text(folds)
    return folder


def test_sequences_with_emotions_and_the_official_folds(tmp_path):
    corpus = import_cmu_mosei(sequences(tmp_path / "r"), tmp_path / "c", partial=True)
    table = corpus.table.set_index("id")
    assert dict(Counter(table["split"])) == {"train": 4, "valid": 2, "test": 2}
    row = table.loc["81406[0]"]
    np.testing.assert_allclose([row[c] for c in ("sentiment", *EMOTIONS)], VECTOR[0], rtol=1e-6)
    assert row["text"] == "so glad"
    assert corpus.info["partial"] == [
        "videos of train: 2 of 2249",
        "videos of valid: 1 of 300",
        "videos of test: 1 of 678",
    ]
    assert "8 segments, other releases keep 16326/1871/4659" in corpus.info["warnings"][0]
    assert {n: store(corpus, n).spec.modality for n in corpus.stores()} == {"covarep": "audio", "openface_2": "vision"}
    target, known = Task("emotions", SPACES["mosei-6"]).targets(corpus.table["emotions"].tolist())
    assert target.shape == (8, 6)
    assert known.all()
    assert SPACES["mosei-6"].labels == EMOTIONS


def test_folds_are_parsed_and_never_run(tmp_path):
    sequences(tmp_path / "r", FOLDS + f"import os\nos.mkdir({str(tmp_path / 'mark')!r})\n")
    corpus = import_cmu_mosei(tmp_path / "r", tmp_path / "c", partial=True)
    assert set(corpus.table["split"]) == {"train", "valid", "test"}
    assert not (tmp_path / "mark").exists()
    for broken in ("standard_train_fold=[open('x')]", "standard_train_fold=['a'", "standard_train_fold=3"):
        (tmp_path / "r" / "cmu_mosei_std_folds.py").write_text(broken)
        with pytest.raises(BadCorpus, match="std_folds"):
            import_cmu_mosei(tmp_path / "r", tmp_path / "d", partial=True)


def test_without_folds_the_split_is_open_or_comes_from_a_pickle(tmp_path):
    sequences(tmp_path / "r", folds="")
    corpus = import_cmu_mosei(tmp_path / "r", tmp_path / "c", partial=True)
    assert set(corpus.table["split"]) == {""}
    assert any("8 of 8 utterances have no published split" in w for w in corpus.info["warnings"])
    content = mult()
    content["train"]["id"][:, 0], content["valid"]["id"][:, 0], content["test"]["id"][:, 0] = b"aaa", b"bbb", b"ccc"
    dump(tmp_path / "r" / "mosei_senti_data.pkl", content)
    corpus = import_cmu_mosei(tmp_path / "r", tmp_path / "d", partial=True)
    assert dict(Counter(corpus.table["split"])) == {"train": 2, "valid": 2, "test": 2, "": 2}
    assert any("its ids are not those of the labels" in w for w in corpus.info["warnings"])


def test_a_label_table_with_the_raw_transcripts(tmp_path):
    lines = [f"aaa,{k},,{k / 3:.3f},,train,,," for k in range(3)]
    header = "video_id,clip_id,text,label,annotation,mode,label_T,label_A,label_V\n"
    (tmp_path / "label.csv").write_text(header + "\n".join(lines) + "\n")
    said = [f"aaa___{k}___{k * 2.5}___{k * 2.5 + 2}___ well___ yes " for k in range(2)]
    said += ["", "aaa___2___9___8___ odd times"]
    folder = tmp_path / "Raw" / "Transcript" / "Segmented" / "Combined"
    folder.mkdir(parents=True)
    (folder / "aaa.txt").write_text("\n".join(said))
    clips(tmp_path / "Raw", ["Videos/Full/Combined/aaa.mp4"])
    corpus = import_cmu_mosei(tmp_path, tmp_path / "c", partial=True)
    row = corpus.table.set_index("id").loc["aaa_1"]
    assert (row["text"], row["start"], row["end"]) == ("well___ yes", 2.5, 4.5)
    assert row["video"].endswith("Full/Combined/aaa.mp4")
    assert corpus.table["video"].iloc[2] == ""  # without times the whole recording is not the utterance
    assert "clips: 2 of 3" in corpus.info["partial"]


def test_transcripts_without_a_words_sequence_go_by_time(tmp_path):
    src = sequences(tmp_path / "r")
    (src / "language" / "CMU_MOSEI_TimestampedWords.csd").unlink()
    said = ["aaa___7___2.0004___4.0___ Later.", "aaa___9___0.0___2.0___ First.", "aaa___1___1.0___2.0___ Never."]
    (src / "aaa.txt").write_text("\n".join(said))
    text = import_cmu_mosei(src, tmp_path / "c", partial=True).table.set_index("id")["text"]
    assert {k: v for k, v in text.items() if v} == {"aaa[0]": "First.", "aaa[1]": "Later."}
    (src / "aaa.txt").write_text(said[2])
    corpus = import_cmu_mosei(src, tmp_path / "d", partial=True)
    assert any("the transcripts were left out" in w for w in corpus.info["warnings"])


def test_the_words_sequence_goes_before_transcripts(tmp_path):
    src = sequences(tmp_path / "r")
    (src / "aaa.txt").write_text("aaa___7___0.0___2.0___ Another.")
    row = import_cmu_mosei(src, tmp_path / "c", partial=True).table.set_index("id").loc["aaa[0]"]
    assert row["text"] == "so glad" and len(row["word_times"]) == 2


def test_mmsa_lengths_and_the_bert_mask_tell_the_padding(tmp_path):
    content = mmsa()
    corpus = import_cmu_mosei(dump(tmp_path / "unaligned_50.pkl", content), tmp_path / "c", partial=True)
    assert list(corpus.table["id"][:3]) == ["trainvid0_1", "trainvid0_2", "trainvid1_1"]
    assert list(corpus.table["position"][:3]) == [1, 2, 1]
    assert corpus.table["text"].iloc[1] == "said 1"
    assert corpus.info["partial"] == ["train: 4 of 16326", "valid: 2 of 1871", "test: 3 of 4659"]
    np.testing.assert_allclose(
        corpus.table["sentiment"], np.concatenate([p["regression_labels"] for p in content.values()])
    )
    for split, part in content.items():
        for i, raw_id in enumerate(part["id"]):
            name = raw_id.replace("$_$", "_")
            for modality in ("audio", "vision"):
                found, n = store(corpus, f"mmsa_{modality}").get(name), part[f"{modality}_lengths"][i]
                assert found.valid is None
                np.testing.assert_array_equal(found.values, part[modality][i, :n])
            n = int(part["text_bert"][i, 1].sum())
            np.testing.assert_array_equal(
                store(corpus, "mmsa_text").get(name).values, part["text"][i, :n].astype(np.float32)
            )
            assert corpus.table.set_index("id").loc[name, "split"] == split


def test_aligned_streams_keep_one_time_grid(tmp_path):
    content = mmsa(lengths=False)
    content["train"]["vision"][0, 0] = 0  # no face at the first word
    content["train"]["vision"][1] = 0  # no face at all
    corpus = import_cmu_mosei(dump(tmp_path / "aligned_50.pkl", content), tmp_path / "c", partial=True)
    streams = {m: store(corpus, f"mmsa_{m}") for m in ("text", "audio", "vision")}
    n = int(content["train"]["text_bert"][0, 1].sum())
    assert [len(s.get("trainvid0_1").values) for s in streams.values()] == [n] * 3
    assert streams["vision"].get("trainvid0_1").valid.tolist() == [False] + [True] * (n - 1)
    assert len(streams["vision"].get("trainvid0_2").values) == 0


def test_mult_pads_before_the_utterance(tmp_path):
    content = mult()
    path = dump(tmp_path / "mosei_senti_data.pkl", content, protocol=2)
    corpus = import_cmu_mosei(path, tmp_path / "c", partial=True)
    part, table = content["train"], corpus.table
    first = table[table["segment_start"] == 9.5].iloc[0]
    # position 1: 8.5 s comes before
    assert (first["conversation"], first["segment_end"], first["position"]) == ("train0", 12.25, 1)
    for i in range(4):
        name = table["id"].iloc[i]
        keep = part["text"][i].any(1)
        found = store(corpus, "mult_audio").get(name)
        np.testing.assert_allclose(found.values, part["audio"][i, keep].astype(np.float32))
    np.testing.assert_allclose(table["sentiment"][:4], part["labels"].ravel())


def test_mult_with_seven_labels_has_emotions(tmp_path):
    content = mult()
    for part in content.values():
        part["labels"] = np.abs(np.tile(part["labels"], (1, 1, 7)))
    table = import_cmu_mosei(dump(tmp_path / "x.pkl", content), tmp_path / "c", partial=True).table
    assert (table["fear"] == table["sentiment"]).all()
    assert len(table["emotions"].iloc[0]) == 6


def test_files_without_ids_say_so(tmp_path):
    corpus = import_cmu_mosei(dump(tmp_path / "x.pkl", mult(ids=False)), tmp_path / "c", partial=True)
    assert corpus.table["id"].iloc[4] == "valid_00000"
    assert sum("has no ids" in w for w in corpus.info["warnings"]) == 3


def test_the_layout_of_carat(tmp_path):
    corpus = import_cmu_mosei(dump(tmp_path / "aligned.pkl", carat()), tmp_path / "c", partial=True)
    table = corpus.table
    assert table.loc[0, list(EMOTIONS)].tolist() == [0, 1, 0, 0, 0, 1]
    assert table.loc[1, list(EMOTIONS)].tolist() == [0, 1, 0, 0, 0, 0]
    assert table["sentiment"].isna().all()
    assert corpus.stores() == ["carat_audio", "carat_text", "carat_vision"]


def test_numbers_that_are_not_finite_are_missing_and_told(tmp_path):
    content = mmsa()
    content["train"]["audio"][0, 0] = -np.inf
    content["train"]["audio"][1, 1, 2] = np.nan
    corpus = import_cmu_mosei(dump(tmp_path / "x.pkl", content), tmp_path / "c", partial=True)
    audio = store(corpus, "mmsa_audio")
    assert audio.get("trainvid0_1").valid.tolist() == [False] + [True] * (content["train"]["audio_lengths"][0] - 1)
    assert audio.get("trainvid0_2").valid is None
    assert np.isnan(audio.get("trainvid0_2").values).sum() == 1
    assert any("train: 6 numbers of audio in 2 utterances are NaN or infinite" in w for w in corpus.info["warnings"])


def test_stated_lengths_with_padding_before_and_with_content_beyond(tmp_path):
    content = mmsa()
    part = content["train"]
    n = part["audio_lengths"]
    part["audio"][0] = np.roll(part["audio"][0], 12 - n[0], axis=0)
    part["vision"][1], part["vision_lengths"][1] = 1.0, 3
    found = read_pickle(dump(tmp_path / "x.pkl", content))
    audio, vision = dict(found.features("audio")), dict(found.features("vision"))
    np.testing.assert_array_equal(audio["trainvid0_1"].values, part["audio"][0, 12 - n[0] :])
    assert len(vision["trainvid0_2"].values) == 3
    assert any("1 utterances have vision beyond their stated length" in w for w in found.warnings)


def test_a_further_split_is_left_out_and_told(tmp_path):
    content = mmsa()
    content["train_mix"] = content["train"]
    assert "'train_mix'" in read_pickle(dump(tmp_path / "x.pkl", content)).warnings[0]


def test_importing_again_changes_nothing(tmp_path):
    path = dump(tmp_path / "x.pkl", mmsa())
    corpus = import_cmu_mosei(path, tmp_path / "c", partial=True)
    again = import_cmu_mosei(path, tmp_path / "c", partial=True)
    assert again.hash == corpus.hash
    assert len(list(again.store_path("mmsa_audio").glob("shard-*"))) == 1


def change(key, value, split="train"):
    def apply(content):
        content[split][key] = value(content[split]) if callable(value) else value

    return apply


def drop(key, split="train"):
    return lambda content: content[split].pop(key)


@pytest.mark.parametrize(
    ("apply", "named"),
    [
        (change("regression_labels", lambda p: p["regression_labels"][:-1]), "expected numbers|for 3 labels"),
        (change("regression_labels", ["a", "b", "c", "d"]), "regression_labels are not numbers"),
        (change("regression_labels", np.full(4, np.inf)), "holds infinity at 0"),
        (change("regression_labels", np.full(4, 4.5)), "sentiment of 'trainvid0_1' is 4.5, outside -3 to 3"),
        (change("regression_labels", np.zeros((4, 4, 2))), "expected one sentiment, or sentiment and 6 emotions"),
        (drop("regression_labels", "valid"), "'regression_labels' is in one split but not in another"),
        (change("audio", lambda p: p["audio"][:, 0]), r"audio is float32.4, 5., expected numbers .4, T, D."),
        (change("audio", lambda p: p["audio"][:2]), r"audio is float32.2, 12, 5."),
        (change("audio", lambda p: p["audio"].astype(str)), "audio is <U"),
        (change("audio", lambda p: [np.zeros((2, 5)), np.zeros((3, 5))]), "audio is not one array"),
        (change("audio", lambda p: p["audio"][..., :2]), "audio has different widths per split"),
        (drop("vision"), "train has no 'vision', another split has"),
        (change("audio_lengths", [1, 2, 3, 13]), "audio_lengths holds 13, the arrays have 12 steps"),
        (change("audio_lengths", [1, 2, -3, 1]), "audio_lengths holds -3"),
        (change("audio_lengths", [1, 2, 1.5, 1]), "audio_lengths holds 1.5"),
        (change("audio_lengths", [1, 2]), "2 audio_lengths for 4 labels"),
        (change("id", lambda p: p["id"][:1]), "1 id for 4 labels"),
        (change("id", np.array(["novideo", "a", "b", "c"])), "id 'novideo' names no video and clip"),
        (change("id", np.array(["a$_$1"] * 4)), "ids occur twice, e.g. 'a_1'"),
        (change("id", np.array([["a", "b"]] * 4)), r"ids are not .video, start, end."),
        (change("raw_text", ["one"]), "1 raw_text for 4 labels"),
        (change("raw_text", 3), "0 raw_text for 4 labels"),
        (change("id", [[1, 2], [3], [4], [5]]), "ids are not"),
        (change("id", np.zeros(())), "0 id for 4 labels"),
        (change("id", [[1, [2, 3]], [3], [4], [5]]), "ids are not"),
        (lambda c: c.update(val=c["valid"]), "a split is there under two names: train, valid, test, val"),
        (change("text_bert", [[1, 2], [3], [4], [5]]), "text_bert is not one array"),
        (change("regression_labels", np.zeros((4, 1), complex)), "regression_labels are not numbers"),
        (change("text_bert", np.zeros((4, 2, 8))), "text_bert is float64.4, 2, 8."),
        (lambda c: [c[s].pop(k) for s in list(c) for k in ("text", "audio", "vision")], "none of the arrays"),
        (lambda c: [c[s].pop("regression_labels") for s in list(c)], "none of the keys regression_labels"),
        (lambda c: c.update(train=[1, 2]), "'train' is a list, not a dict"),
        (lambda c: [c.pop(s) for s in list(c)], "no splits train, valid, test"),
    ],
)
def test_malformed_pickles_are_named(tmp_path, apply, named):
    content = mmsa()
    apply(content)
    with pytest.raises(BadCorpus, match=named):
        import_cmu_mosei(dump(tmp_path / "x.pkl", content), tmp_path / "c", partial=True)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("targets", [[[2, 11, 3]] * 4, [["x"]] * 4, [7, 7, 7, 7], [[-1]] * 4, [[float("inf")]] * 4])
def test_malformed_class_numbers(tmp_path, targets):
    content = carat()
    content["train"]["tgt"] = targets
    with pytest.raises(BadCorpus, match="tgt 0"):
        import_cmu_mosei(dump(tmp_path / "x.pkl", content), tmp_path / "c", partial=True)


class Gadget:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


class Settings:
    pass


@pytest.mark.parametrize(
    "evil", [lambda m: Gadget(os.system, f"touch {m}"), lambda m: Gadget(open, str(m), "w"), lambda m: Settings()]
)
@pytest.mark.parametrize("place", ["top", "ids", "array"])
def test_malicious_pickles_are_refused(tmp_path, evil, place):
    content, mark = mmsa(), tmp_path / "mark"
    if place == "top":
        content["settings"] = evil(mark)
    else:
        content["test"]["id" if place == "ids" else "audio"] = np.array([evil(mark)] * 3, dtype=object)
    with pytest.raises(BadFeatures, match="refused"):
        import_cmu_mosei(dump(tmp_path / "x.pkl", content), tmp_path / "c", partial=True)
    assert not mark.exists()
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04 a torch archive", b"\x80\x04.", pickle.dumps(3), pickle.dumps(mmsa())[:700]]
)
def test_files_that_are_no_feature_pickles(tmp_path, data):
    (tmp_path / "x.pkl").write_bytes(data)
    with pytest.raises((BadCorpus, BadFeatures), match=r"x\.pkl"):
        import_cmu_mosei(tmp_path / "x.pkl", tmp_path / "c", partial=True)


def test_random_damage_raises_only_our_errors(tmp_path):
    whole, rng = pickle.dumps(mmsa()), np.random.default_rng(0)
    for i in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 20):
            data[place] = rng.integers(256)
        (tmp_path / "x.pkl").write_bytes(bytes(data))
        try:
            import_cmu_mosei(tmp_path / "x.pkl", tmp_path / f"c{i}", partial=True)
        except AffuseError:
            continue


def labels(folder, **splits):
    folder.mkdir(exist_ok=True)
    (folder / "labels.json").write_text(json.dumps(splits))
    return folder


def test_minus_ten_is_no_sentiment(tmp_path):
    rows = {"a_1": {"emo": 0, "val": -10}, "a_2": {"emo": 0, "val": 1.5}}
    corpus = import_cmu_mosei(labels(tmp_path, train_corpus=rows), tmp_path / "c", partial=True)
    assert np.isnan(corpus.table["sentiment"].iloc[0])
    assert corpus.table["sentiment"].iloc[1] == 1.5
    assert corpus.table["label"].tolist() == ["", ""]  # emo = 0 is a filler


@pytest.mark.parametrize(
    ("splits", "named"),
    [
        ({"train_corpus": {"a_1": {"emo": 0}}}, "'a_1' has no number 'val'"),
        ({"train_corpus": {"a_1": {"val": "high"}}}, "'a_1' has no number 'val'"),
        ({"train_corpus": {"a_1": {"val": 3.5}}}, "is 3.5, outside -3 to 3"),
        ({"train_corpus": {"nothing": {"val": 1}}}, "'nothing' names no video"),
        ({"train_corpus": {"a_1": {"val": 1}}, "val_corpus": {"a_1": {"val": 1}}}, "twice"),
        ({"train_corpus": [1, 2]}, "'train_corpus' is a list"),
        ({"other": {}}, "no labels"),
        ({"train_corpus": {"a_1": {"val": 1}}, "test1_corpus": {}}, "no labels"),
    ],
)
def test_malformed_label_json(tmp_path, splits, named):
    with pytest.raises(BadCorpus, match=named):
        import_cmu_mosei(labels(tmp_path, **splits), tmp_path / "c", partial=True)


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("aaa,1,,high,train", "'label' of 'aaa_1' is 'high'"),
        ("aaa,1,,5,train", "outside"),
        ("aaa,1,,1,holdout", "mode 'holdout'"),
        (",1,,1,train", "names no video"),
    ],
)
def test_malformed_label_tables(tmp_path, row, named):
    (tmp_path / "label.csv").write_text(f"video_id,clip_id,text,label,mode\n{row}\n")
    with pytest.raises(BadCorpus, match=named):
        import_cmu_mosei(tmp_path, tmp_path / "c", partial=True)
    (tmp_path / "label.csv").write_text("video_id,clip_id,text\naaa,1,x\n")
    with pytest.raises(BadCorpus, match="no column 'label'"):
        import_cmu_mosei(tmp_path, tmp_path / "c", partial=True)


def test_the_real_label_json(shared_data, tmp_path):
    src = shared_data / "mertools_labels"
    with pytest.raises(BadCorpus, match=r"incomplete .test: 0 of 4659"):
        import_cmu_mosei(src, tmp_path / "c")
    corpus = import_cmu_mosei(src, tmp_path / "c", partial=True, labels="sentiment-3")
    found = {s: n["utterances"] for s, n in corpus.info["counts"].items() if s != "all"}
    assert found == {s: CARD["counts"][s] for s in ("train", "valid")}
    assert corpus.info["partial"] == ["test: 0 of 4659", "no words, clips or features: labels only (18197 utterances)"]
    assert {s: corpus.info["counts"][s]["sources"] for s in found} == {"train": 2249, "valid": 300}
    assert corpus.info["overlap"] == {}
    theirs = json.loads((src / "cmumosei_label.json").read_text())
    table = corpus.table.set_index("id")
    for split, key in (("train", "train_corpus"), ("valid", "val_corpus")):
        values = [v["val"] for v in theirs[key].values()]
        np.testing.assert_allclose(table.loc[list(theirs[key]), "sentiment"], values)
        assert (table.loc[list(theirs[key]), "split"] == split).all()
    assert table["sentiment"].between(-3, 3).all()
    assert ((table["label"] == "neutral") == (table["sentiment"] == 0)).all()
