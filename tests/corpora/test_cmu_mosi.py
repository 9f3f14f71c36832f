"""CMU-MOSI from sequences, raw folders and pickles; the csd reader and its malformed inputs."""

from __future__ import annotations

import os
import sys
from collections import Counter

import numpy as np
import pytest
from tests.corpora.sentiment_releases import MOSI, clips, csd, dump, frames, mmsa, mosi_csds, mult, words

from affuse.core.errors import AffuseError, BadCorpus, BadFeatures, MissingDependency, MissingFile
from affuse.corpora.cmu_mosi import CARD, FOLDS, import_cmu_mosi
from affuse.corpora.sentiment.cmu import class_names
from affuse.corpora.sentiment.csd import average, cut, frame_rate, open_csd
from affuse.stores.store import FeatureStore

h5py = pytest.importorskip("h5py")
FIRST = MOSI["train"][0]
SECOND = MOSI["train"][1]


def store(corpus, name):
    return FeatureStore(corpus.store_path(name))


def test_sequences_become_utterances_and_stores(tmp_path):
    corpus = import_cmu_mosi(mosi_csds(tmp_path / "r"), tmp_path / "c", partial=True)
    table = corpus.table.set_index("id")
    assert len(table) == 18
    assert dict(Counter(table["split"])) == {"train": 6, "valid": 6, "test": 6}
    row = table.loc[f"{FIRST}[1]"]
    assert (row["sentiment"], row["position"], row["conversation"], row["source"]) == (-1.0, 1, FIRST, FIRST)
    assert (row["start"], row["end"], row["text"], row["label"], row["speaker"]) == (3.0, 6.0, "a very good", "", "")
    assert corpus.space.name == "sentiment"
    assert corpus.info["partial"] == ["train: 6 of 1284", "valid: 6 of 229", "test: 6 of 686"]
    assert corpus.info["warnings"] == ["6 of 18 utterances have no words"]
    assert sorted(corpus.stores()) == ["covarep", "facet_4_1"]
    assert corpus.info["overlap"] == {}


def test_native_features_stand_on_the_utterances_own_clock(tmp_path):
    corpus = import_cmu_mosi(mosi_csds(tmp_path / "r"), tmp_path / "c", partial=True)
    audio, vision = store(corpus, "covarep"), store(corpus, "facet_4_1")
    assert (audio.spec.rate, audio.spec.modality, audio.spec.shape) == (100.0, "audio", (4,))
    assert (vision.spec.rate, vision.spec.modality) == (30.0, "vision")
    values = frames(8, 100, 4, 0)[0]
    values[5, 1] = np.nan  # -inf is a missing number
    np.testing.assert_array_equal(audio.get(f"{FIRST}[0]").values, values[:300])
    np.testing.assert_array_equal(audio.get(f"{FIRST}[1]").values, values[300:600])
    holed = vision.get(f"{SECOND}[0]")
    assert len(holed.values) == 90
    assert list(np.flatnonzero(~holed.valid)) == list(range(10, 40))
    np.testing.assert_array_equal(holed.values[50], frames(8, 30, 3, 1)[0][50])


def test_word_aligned_features_are_means_over_words(tmp_path):
    corpus = import_cmu_mosi(mosi_csds(tmp_path / "r"), tmp_path / "c", partial=True, aligned=True)
    audio = store(corpus, "covarep").get(f"{FIRST}[1]")
    values = frames(8, 100, 4, 0)[0]
    assert store(corpus, "covarep").spec.rate == 0
    said = [(3.0, 3.9), (4.0, 4.5), (5.0, 6.0)]
    expected = [values[round(a * 100) : round(b * 100)].mean(0) for a, b in said]
    np.testing.assert_allclose(audio.values, expected, rtol=1e-5)
    lonely = store(corpus, "facet_4_1").get(f"{SECOND}[0]")  # "it" ends within the hole, "was" begins after it
    assert len(lonely.values) == 2


def test_a_hole_wider_than_a_word_is_not_valid(tmp_path):
    times = np.array([[0.0, 0.1], [0.1, 0.2], [5.0, 5.1]])
    found = average(times, np.ones((3, 2), np.float32), np.array([[0.0, 0.2], [2.0, 3.0], [5.02, 5.04]]))
    assert np.isnan(found[1]).all()
    assert (found[[0, 2]] == 1).all()


def test_cut_is_the_identity_on_an_even_grid():
    values, times = frames(5, 25, 2)
    for k in (0, 17, 60):
        np.testing.assert_array_equal(cut(times, values, k / 25, (k + 20) / 25, 25.0), values[k : k + 20])


def test_the_order_of_rows_in_a_file_does_not_matter():
    values, times = frames(4, 25, 2)
    spans = np.array([[0.0, 1.3], [1.3, 1.31], [2.0, 4.0]])
    shuffled = np.random.default_rng(1).permutation(len(values))
    np.testing.assert_allclose(average(times[shuffled], values[shuffled], spans), average(times, values, spans))
    np.testing.assert_array_equal(cut(times[shuffled], values[shuffled], 1, 3, 25.0), cut(times, values, 1, 3, 25.0))


def test_missing_numbers_do_not_enter_a_mean():
    values, times = frames(1, 10, 2)
    values[3, 0] = np.inf
    found = average(times, values, np.array([[0.0, 1.0]]))
    np.testing.assert_allclose(found[0], [np.delete(values[:, 0], 3).mean(), values[:, 1].mean()], rtol=1e-6)


def test_sequences_that_the_sdk_has_aligned(tmp_path):
    video = MOSI["test"][0]
    data = {f"{video}[{k}]": (np.array([[float(k)]]), [[k * 2.0, k * 2.0 + 2]]) for k in range(2)}
    csd(tmp_path / "r" / "labels.csd", "Opinion Segment Labels", data)
    text = {
        f"{video}[{k}]": (np.full((3, 5), k + 1.0), np.array([[0, 0.3], [0.3, 1.1], [1.1, 2]]) + 2 * k)
        for k in range(2)
    }
    csd(tmp_path / "r" / "glove.csd", "glove_vectors", text)
    corpus = import_cmu_mosi(tmp_path / "r", tmp_path / "c", partial=True)
    assert list(corpus.table["id"]) == [f"{video}[0]", f"{video}[1]"]
    assert list(corpus.table["position"]) == [0, 1]
    found = store(corpus, "glove_vectors")
    assert found.spec.modality == "text"
    assert found.get(f"{video}[1]").values.tolist() == [[2.0] * 5] * 3


def test_whole_recordings_are_cut_and_clips_are_not(tmp_path):
    mosi_csds(tmp_path / "r")
    videos = [v for vs in MOSI.values() for v in vs]
    clips(
        tmp_path / "r" / "Raw",
        [f"Video/Full/{v}.mp4" for v in videos] + [f"Audio/WAV_16000/Full/{v}.wav" for v in videos],
    )
    row = import_cmu_mosi(tmp_path / "r", tmp_path / "c", partial=True).table.set_index("id").loc[f"{FIRST}[1]"]
    assert row["video"].endswith(f"Full/{FIRST}.mp4")
    assert row["audio"].endswith(f"Full/{FIRST}.wav")
    assert (row["start"], row["end"]) == (3.0, 6.0)


def raw(folder):
    """Raw archive with OpinionLevelSentiment.csv, segmented media and transcripts."""
    lines, said = [], {}
    for split, videos in MOSI.items():
        for video in videos:
            for k in (1, 2):
                lines.append(f"{k * 3.5},{k * 3.5 + 2.25},{video},{k},{-1.5 if split == 'test' else 0.6 * k}")
                said.setdefault(video, []).append(f"{k}_DELIM_SO GOOD {k} ")
    names = [f"{v}_{k}" for v in said for k in (1, 2)]
    clips(
        folder / "Raw",
        [f"Video/Segmented/{n}.mp4" for n in names] + [f"Audio/WAV_16000/Segmented/{n}.wav" for n in names],
    )
    clips(folder / "Raw", [f"Video/Full/{v}.mp4" for v in said])
    (folder / "Raw" / "Transcript" / "Segmented").mkdir(parents=True)
    for video, text in said.items():
        (folder / "Raw" / "Transcript" / "Segmented" / f"{video}.annotprocessed").write_text("\n".join(text) + "\n")
    (folder / "OpinionLevelSentiment.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_the_raw_archive(tmp_path):
    corpus = import_cmu_mosi(raw(tmp_path / "r"), tmp_path / "c", partial=True, labels="sentiment-3")
    table = corpus.table.set_index("id")
    row = table.loc[f"{FIRST}_2"]
    assert (row["sentiment"], row["text"], row["position"], row["label"], row["split"]) == (
        1.2, "SO GOOD 2", 2, "positive", "train",
    )
    assert row["video"].endswith(f"Video/Segmented/{FIRST}_2.mp4")
    assert (row["start"], row["segment_start"], row["segment_end"]) == (0.0, 7.0, 9.25)
    assert np.isnan(row["end"])
    assert set(table.loc[table["split"] == "test", "label"]) == {"negative"}
    (tmp_path / "r" / "Raw" / "Video" / "Segmented" / f"{FIRST}_2.mp4").unlink()
    cut_out = import_cmu_mosi(tmp_path / "r", tmp_path / "d", partial=True).table.set_index("id").loc[f"{FIRST}_2"]
    assert cut_out["audio"].endswith(f"{FIRST}_2.wav")


def test_a_label_table_with_clips_and_two_pickles(tmp_path, monkeypatch):
    monkeypatch.setitem(CARD, "counts", {"train": 4, "valid": 2, "test": 3})
    content = mmsa()
    ids = [(s, *name.split("$_$")) for s in content for name in content[s]["id"]]
    lines = [f'{v},{c},"a, b",{0.2},,,,Positive,{s}' for s, v, c in ids]
    src = tmp_path / "r"
    dump(src / "Processed" / "unaligned_50.pkl", content)
    dump(src / "Processed" / "aligned_50.pkl", mmsa(lengths=False))
    clips(src / "Raw", [f"{v}/{c}.mp4" for _, v, c in ids])
    (src / "label.csv").write_text(
        "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n" + "\n".join(lines)
    )
    corpus = import_cmu_mosi(src, tmp_path / "c")
    assert "partial" not in corpus.info
    assert corpus.table["video"].str.endswith("mp4").all()
    assert set(corpus.table["text"]) == {"a, b"}
    assert len(corpus.stores()) == 6
    assert len(store(corpus, "mmsa_audio_aligned_50")) == 9
    (src / "Raw" / ids[0][1] / f"{ids[0][2]}.mp4").unlink()
    with pytest.raises(BadCorpus, match="clips: incomplete"):
        import_cmu_mosi(src, tmp_path / "d")


def test_a_single_file_of_any_name(tmp_path, monkeypatch):
    monkeypatch.setitem(CARD, "counts", {"train": 4, "valid": 2, "test": 3})
    path = dump(tmp_path / "download", mmsa())
    corpus = import_cmu_mosi(path, tmp_path / "c", labels="sentiment-2")
    assert corpus.stores() == ["mmsa_audio", "mmsa_text", "mmsa_vision"]
    assert corpus.space.name == "sentiment-2"


def test_classes_of_a_sentiment():
    values = [-2.0, 0.0, 1.0, float("nan")]
    assert class_names(values, "sentiment-3") == ["negative", "neutral", "positive", ""]
    assert class_names(values, "sentiment-2") == ["negative", "", "positive", ""]
    assert class_names(values, "none") == [""] * 4


def test_counts_that_belong_to_another_corpus(tmp_path, monkeypatch):
    from affuse.corpora.sentiment import cmu

    cards = {"cmu_mosei": {"counts": {"train": 4, "valid": 2, "test": 3}}}
    monkeypatch.setattr(cmu.registry, "cards", lambda kind: cards)
    with pytest.raises(BadCorpus, match="counts of cmu_mosei"):
        import_cmu_mosi(dump(tmp_path / "x.pkl", mult()), tmp_path / "c", partial=True)


def test_too_many_utterances_fail_and_too_few_need_partial(tmp_path, monkeypatch):
    path = dump(tmp_path / "x.pkl", mult())
    with pytest.raises(BadCorpus, match=r"incomplete .train: 4 of 1284"):
        import_cmu_mosi(path, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    monkeypatch.setitem(CARD, "counts", {"train": 3, "valid": 2, "test": 3})
    with pytest.raises(BadCorpus, match="4 of 'train', the release has 3"):
        import_cmu_mosi(path, tmp_path / "c", partial=True)


def test_a_video_in_two_splits_is_reported(tmp_path):
    content = mmsa()
    content["test"]["id"] = np.array(["trainvid0$_$9", "b$_$1", "b$_$2"])
    corpus = import_cmu_mosi(dump(tmp_path / "x.pkl", content), tmp_path / "c", partial=True)
    assert corpus.info["overlap"]["source"] == {"train/test": ["trainvid0"]}
    assert "1 of 4 videos in more than one split" in corpus.info["warnings"][0]


def labelled(folder, **videos):
    spans = [[0.0, 1.0], [1.0, 2.0]]
    return csd(folder / "labels.csd", "Labels", {v: (np.array([[1.0], [2.0]]), spans) for v in videos or [FIRST]})


def damage(path, change):
    with h5py.File(path, "a") as file:
        change(file, file["Labels/data"])


def replace(key, data):
    def change(_, videos):
        del videos[f"{FIRST}/{key}"]
        videos[FIRST].create_dataset(key, data=data)

    return change


def external(file, videos):
    del videos[f"{FIRST}/features"]
    videos[f"{FIRST}/features"] = h5py.ExternalLink("/etc/passwd", "/")


def outside(file, videos):
    del videos[f"{FIRST}/features"]
    videos[FIRST].create_dataset("features", (2, 1), dtype="f4", external=[("stolen.bin", 0, 8)])


def virtual(file, videos):
    del videos[f"{FIRST}/features"]
    layout = h5py.VirtualLayout((2, 1), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(2, 1))
    videos[FIRST].create_virtual_dataset("features", layout)


def bomb(file, videos):
    for key, shape in {"features": (10**12, 1), "intervals": (10**12, 2)}.items():
        del videos[f"{FIRST}/{key}"]
        videos[FIRST].create_dataset(key, shape, dtype="f8", chunks=(1024, 1))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (bomb, "more than the file can hold"),
        (lambda f, v: f.create_group("second"), "2 groups at the root"),
        (lambda f, v: f["Labels"].move("data", "datum"), "no 'data'"),
        (lambda f, v: v.pop(FIRST), "is empty"),
        (lambda f, v: v[FIRST].pop("intervals"), "no 'intervals'"),
        (lambda f, v: v[FIRST].pop("features"), "no 'features'"),
        (replace("intervals", np.zeros((2, 3))), "expected .n, 2. seconds"),
        (replace("intervals", np.array([[0.0, 1.0]])), "for 1 intervals"),
        (replace("intervals", np.array([[0.0, np.nan], [1.0, 2.0]])), "no interval of time"),
        (replace("intervals", np.array([[3.0, 1.0], [1.0, 2.0]])), r"interval .3.0, 1.0. of"),
        (replace("features", np.array([[1 + 1j], [2]])), "neither numbers nor words"),
        (replace("features", np.array([[b"a", b"b"], [b"c", b"d"]])), "2 words per interval"),
        (replace("features", np.array([[7.0], [1.0]])), "sentiment of .* is 7, outside -3 to 3"),
        (replace("features", np.array([[np.inf], [1.0]])), "sentiment of .* is inf"),
        (
            lambda f, v: (
                v.create_group("odd").create_dataset("features", data=np.zeros((1, 4)))
                and v["odd"].create_dataset("intervals", data=[[0.0, 1.0]])
            ),
            "features of 'odd' have 4 columns",
        ),
        (external, "link to somewhere else"),
        (outside, "not an array of this file"),
        (virtual, "not an array of this file"),
    ],
)
def test_malformed_sequences_are_named(tmp_path, change, named):
    path = labelled(tmp_path / "r")
    damage(path, change)
    with pytest.raises(BadCorpus, match=named) as caught:
        import_cmu_mosi(path, tmp_path / "c", partial=True)
    assert "labels.csd" in str(caught.value) or "sentiment of" in str(caught.value)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6, 0.95])
def test_cut_sequences_are_named(tmp_path, keep):
    path = mosi_csds(tmp_path / "r") / "CMU_MOSI_COVAREP.csd"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(BadCorpus, match="COVAREP"):
        import_cmu_mosi(tmp_path / "r", tmp_path / "c", partial=True)


def test_random_damage_raises_only_our_errors(tmp_path):
    path = labelled(tmp_path / "r")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for i in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 6):
            data[place] = rng.integers(256)
        path.write_bytes(bytes(data))
        try:
            import_cmu_mosi(path, tmp_path / f"c{i}", partial=True)
        except AffuseError:
            continue


def test_without_h5py_the_extra_is_named_and_pickles_still_come(tmp_path, monkeypatch):
    path = labelled(tmp_path / "r")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependency, match=r"affuse\[hdf5\]"):
        import_cmu_mosi(path, tmp_path / "c", partial=True)
    assert len(import_cmu_mosi(dump(tmp_path / "x.pkl", mult()), tmp_path / "c", partial=True)) == 9


def test_sequences_without_labels_and_two_labels(tmp_path):
    with pytest.raises(BadCorpus, match="without labels"):
        import_cmu_mosi(csd(tmp_path / "a" / "w.csd", "words", {FIRST: words("a", "b")}), tmp_path / "c", partial=True)
    labelled(tmp_path / "b").rename(tmp_path / "b" / "labels2.csd")
    labelled(tmp_path / "b")
    with pytest.raises(BadCorpus, match="several sequences may be the labels"):
        import_cmu_mosi(tmp_path / "b", tmp_path / "c", partial=True)
    with pytest.raises(BadCorpus, match="aligned=true needs the words"):
        import_cmu_mosi(labelled(tmp_path / "d"), tmp_path / "c", partial=True, aligned=True)
    with pytest.raises(MissingFile):
        import_cmu_mosi(tmp_path / "none", tmp_path / "c")
    (tmp_path / "text.csd").write_text("not HDF5")
    with pytest.raises(BadCorpus, match="not HDF5"):
        import_cmu_mosi(tmp_path / "text.csd", tmp_path / "c")


def test_odd_times_and_unknown_sequences_are_told(tmp_path):
    spans = [[-0.4, 1.0], [1.0, 1.0], [1.0, 2.0]]
    csd(tmp_path / "r" / "labels.csd", "Labels", {FIRST: (np.array([[1.0], [2.0], [np.nan]]), spans)})
    csd(tmp_path / "r" / "x.csd", "quux", {FIRST: frames(2, 10, 2)})
    corpus = import_cmu_mosi(tmp_path / "r", tmp_path / "c", partial=True)
    assert list(corpus.table["id"]) == [f"{FIRST}[0]", f"{FIRST}[2]"]
    assert corpus.table["start"].tolist() == [0.0, 1.0]
    assert np.isnan(corpus.table["sentiment"].iloc[1])
    text = " | ".join(corpus.info["warnings"])
    assert "1 label intervals begin before 0 s" in text
    assert "1 label intervals have no duration" in text
    assert "'quux' tells neither audio, vision nor text" in text


def test_segments_that_stand_out_of_order_are_placed_by_time(tmp_path):
    spans = [[82.7, 89.3], [119.9, 125.3], [0.7, 18.7]]
    csd(tmp_path / "labels.csd", "Labels", {FIRST: (np.array([[1.0], [2.0], [3.0]]), spans)})
    table = import_cmu_mosi(tmp_path / "labels.csd", tmp_path / "c", partial=True).table
    assert list(table["id"]) == [f"{FIRST}[{k}]" for k in range(3)]  # as the SDK names them
    assert list(table["position"]) == [1, 2, 0]
    assert list(table["sentiment"]) == [1, 2, 3]


def test_what_a_source_lacks_or_does_not_fit_is_told(tmp_path):
    labelled(tmp_path / "r", **dict.fromkeys((FIRST, SECOND)))
    csd(tmp_path / "r" / "covarep.csd", "COVAREP", {FIRST: frames(2, 10, 2)})
    csd(tmp_path / "r" / "facet.csd", "FACET", {f"{FIRST}_1": frames(2, 10, 2)})
    clips(tmp_path / "r", ["clips/other_1.mp4"])
    corpus = import_cmu_mosi(tmp_path / "r", tmp_path / "c", partial=True)
    assert corpus.stores() == ["covarep"]
    text = " | ".join(corpus.info["warnings"])
    assert "covarep.csd lacks the videos of 2 of 4 utterances" in text
    assert "facet.csd was left out: its keys are not the videos of the labels" in text
    assert "1 media files were left out" in text
    content = mmsa()
    ids = [n.replace("$_$", ",") for part in content.values() for n in part["id"]]
    lines = [f"{i},,0.2,train" for i in [*ids, "more,1"]]
    dump(tmp_path / "s" / "x.pkl", content)
    (tmp_path / "s" / "label.csv").write_text("video_id,clip_id,text,label,mode\n" + "\n".join(lines))
    corpus = import_cmu_mosi(tmp_path / "s", tmp_path / "d", partial=True)
    assert "x.pkl lacks 1 of 10 utterances" in corpus.info["warnings"]


def test_other_labels_are_no_features_whatever_their_folder_is_called(tmp_path):
    labelled(tmp_path / "video")
    csd(tmp_path / "video" / "more.csd", "Emotion Labels", {FIRST: (np.ones((2, 6)), [[0.0, 1.0], [1.0, 2.0]])})
    corpus = import_cmu_mosi(tmp_path / "video", tmp_path / "c", partial=True)
    assert corpus.stores() == []
    assert any("more.csd was left out" in w for w in corpus.info["warnings"])


def test_features_of_one_name_are_refused_and_an_extractors_name_is_not_taken(tmp_path):
    labelled(tmp_path / "r")
    csd(tmp_path / "r" / "text.csd", "CMU_MOSI_GloVe", {FIRST: frames(2, 10, 2)})
    assert import_cmu_mosi(tmp_path / "r", tmp_path / "c", partial=True).stores() == ["csd_glove"]
    csd(tmp_path / "r" / "copy.csd", "CMU_MOSI_GloVe", {FIRST: frames(2, 10, 2, seed=1)})
    with pytest.raises(BadCorpus, match="2 files hold features called 'csd_glove'"):
        import_cmu_mosi(tmp_path / "r", tmp_path / "d", partial=True)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("0,1,v,one,2", "no labels"),
        ("0,1,v,1,2\n,,v,2,1", "a time is missing"),
        ("0,1,v,1,2\nx,1,v,2,1", "not lines of start"),
        ("0,1,v,1,2\n0,1,,2,1", "not lines of start"),
        ("0,1,v,1,2\n0,1,v,inf,2", "not lines of start"),
        ("0,1,v,1,9", "outside -3 to 3"),
        ("5,1,v,1,2", "start 5.0 and end 1.0"),
    ],
)
def test_malformed_opinion_segments(tmp_path, line, named):
    (tmp_path / "OpinionLevelSentiment.csv").write_text(line + "\n")
    with pytest.raises(BadCorpus, match=named):
        import_cmu_mosi(tmp_path, tmp_path / "c", partial=True)


class Gadget:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path):
    content = mmsa()
    content["train"]["audio"] = Gadget(tmp_path / "mark")
    with pytest.raises(BadFeatures, match="system"):
        import_cmu_mosi(dump(tmp_path / "r" / "aligned_50.pkl", content).parent, tmp_path / "c", partial=True)
    assert not (tmp_path / "mark").exists()
    assert not (tmp_path / "c").exists()


def test_a_sentiment_task_trains_on_an_imported_corpus(tmp_path):
    from affuse.cli.app import main

    rng = np.random.default_rng(0)
    content = mmsa(sizes=(24, 10, 10))
    for part in content.values():
        part["audio"][:, :2, 0] = part["regression_labels"][:, None] + rng.normal(size=(len(part["id"]), 2)) * 0.1
    corpus = import_cmu_mosi(dump(tmp_path / "x.pkl", content), tmp_path / "c", partial=True)
    (tmp_path / "r.yaml").write_text(
        "summary: sentiment from vectors\nsource: test\ntasks:\n  sentiment: {column: sentiment, space: sentiment}\n"
        'streams:\n  "*": {encoder: {name: mlp, hidden: 8}}\nfusion: {name: late}\ncontext: none\n'
        "objectives:\n  l1: {weight: 1.0, task: sentiment}\nsplit: {group_by: source}\n"
        "train: {epochs: 2, batch_size: 8, selection: mae}\n"
    )
    recipe, run = str(tmp_path / "r.yaml"), str(tmp_path / "run")
    assert main(["train", recipe, "--corpus", str(corpus.path), "--out", run, "--quiet"]) == 0
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_the_folds_are_those_of_the_sdk(shared_data):
    path = shared_data / "mosi_utterance" / "CMU_MOSI_ModifiedTimestampedWords.csd"
    found = open_csd(path)
    assert (found.name, found.words, found.width) == ("CMU_MOSI_ModifiedTimestampedWords", True, 1)
    assert set(found.rows) == {v for videos in FOLDS.values() for v in videos.split()}
    assert [len(v.split()) for v in FOLDS.values()] == [52, 10, 31]
    assert frame_rate(found) == 0
    assert sum(len(w) for _, _, w in found.read()) == sum(found.rows.values())


def test_the_real_words_with_labels_made_for_them(shared_data, tmp_path):
    path = shared_data / "mosi_utterance" / "CMU_MOSI_ModifiedTimestampedWords.csd"
    source = open_csd(path)
    ends = {key: times[-1, 1] for key, times, _ in source.read()}
    labels = {k: (np.array([[0.5], [-1.0]]), [[0, e / 2], [e / 2, e + 0.01]]) for k, e in ends.items()}
    csd(tmp_path / "r" / "labels.csd", "Opinion Segment Labels", labels)
    (tmp_path / "r" / path.name).symlink_to(path)
    corpus = import_cmu_mosi(tmp_path / "r", tmp_path / "c", partial=True)
    assert dict(Counter(corpus.table["split"])) == {"train": 104, "valid": 20, "test": 62}
    said = sum(len(t.split()) for t in corpus.table["text"])
    assert said == sum(int((w != "sp").sum()) for _, _, w in source.read())
    assert corpus.table["text"].iloc[0].startswith("oh this quality is horrible ok well")


def test_the_real_ids_and_sentiments(shared_data, tmp_path):
    content = np.load(shared_data / "mosi_utterance" / "mosi_utterance_train_cleanvalid.npz")
    rows = [
        (i.rpartition("_"), f"{v:.4f}", t)
        for i, v, t in zip(content["ids"], content["valence"], content["transcript"], strict=True)
    ]
    lines = [f'{i[0]},{i[2]},"{t.replace(chr(34), "")}",{v}' for i, v, t in rows]
    (tmp_path / "label.csv").write_text("video_id,clip_id,text,label\n" + "\n".join(lines) + "\n")
    corpus = import_cmu_mosi(tmp_path, tmp_path / "c", partial=True)
    assert dict(Counter(corpus.table["split"])) == {"train": 1034, "valid": 229, "test": 610}
    assert corpus.info["partial"] == ["train: 1034 of 1284", "test: 610 of 686"]
    assert corpus.info["overlap"] == {}
    np.testing.assert_allclose(corpus.table["sentiment"], content["valence"], atol=1e-4)
