"""Miniature processed releases of MME2E: whole ones, damaged ones, and a pickle with a program in it."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from affuse.cli.app import main
from affuse.core import io
from affuse.core.errors import BadConfig, BadCorpus, BadFeatures
from affuse.core.labels import SPACES
from affuse.core.tasks import Task, with_kind
from affuse.corpora import cmu_mosei_mme2e, iemocap_mme2e
from affuse.corpora.cmu_mosei_mme2e import import_cmu_mosei_mme2e
from affuse.corpora.crossing import crossing, describe
from affuse.corpora.extraction.clips import clips_of
from affuse.corpora.iemocap import CODES, PUBLISHED
from affuse.corpora.iemocap_mme2e import ORDER, import_iemocap_mme2e
from affuse.corpora.manifest import Corpus
from affuse.media.probe import probe
from affuse.media.write import jpeg, write_wav

Meta = dict[str, dict[str, Any]]
RATE = 16000
# id: (label, start, end, words); two dialogues, the second with a marker wearer who is male
UTTERANCES = {
    "Ses01F_impro01_F001": ("neu", 10.0, 11.0, "Yes."),
    "Ses01F_impro01_F000": ("fru", 6.0, 7.0, "Excuse me."),
    "Ses01F_impro01_M000": ("exc", 8.0, 9.0, ""),
    "Ses05M_script01_1b_M004": ("ang", 0.5, 1.5, "Stop."),
    "Ses05M_script01_1b_F003": ("hap", 2.0, 3.0, "Go."),
}
IEMOCAP_LISTS = {
    "train": ["Ses01F_impro01_F001", "Ses01F_impro01_M000"],
    "valid": ["Ses05M_script01_1b_F003"],
    "test": ["Ses01F_impro01_F000", "Ses05M_script01_1b_M004"],
}
SEGMENTS = {  # anger, disgust, fear, happy, sad, surprise
    "-3g5yACwYnA_10": [0, 0, 1, 1, 1, 0],
    "-3g5yACwYnA_2": [0, 0, 0, 0, 0, 0],
    "208322_0": [1, 0, 0, 0, 0, 0],
    "a_b_7": [0, 1, 0, 0, 0, 1],
}
MOSEI_LISTS = {"train": ["-3g5yACwYnA_10", "-3g5yACwYnA_2"], "valid": ["208322_0"], "test": ["a_b_7"]}


def picture(seed: int) -> bytes:
    """A grey JPEG of its own brightness."""
    return jpeg(np.full((32, 24, 3), 40 + 20 * seed, np.uint8))


def fill(folder: Path, prefixes: tuple[str, ...], count: int, sounds: tuple[str, ...]) -> None:
    folder.mkdir(parents=True)
    for side, prefix in enumerate(prefixes):
        for i in range(count):
            (folder / f"{prefix}{i}.jpg").write_bytes(picture(i % 4 + 5 * side))
    for name in sounds:
        write_wav(folder / name, np.zeros(RATE, np.float32), RATE)


def put(src: Path, name: str, meta: object, lists: dict[str, list[str]]) -> None:
    (src / f"{name}_RAW_PROCESSED" / "meta.pkl").write_bytes(pickle.dumps(meta))
    (src / f"{name}_SPLIT").mkdir(exist_ok=True)
    for split, ids in lists.items():
        (src / f"{name}_SPLIT" / f"{split}_split.txt").write_text("\n".join(ids) + "\n")


def iemocap_meta() -> Meta:
    """As the release has it, with utterances outside the six emotions too."""
    told = {**UTTERANCES, "Ses05M_script01_1b_F004": ("xxx", 4.0, 5.0, "Hm.")}
    return {
        name: {"start_time": start, "end_time": end, "label": label, "text": text, "sr": RATE, "fps": 10.0}
        for name, (label, start, end, text) in told.items()
    }


@pytest.fixture
def iemocap(tmp_path) -> Path:
    src = tmp_path / "data"
    for name in UTTERANCES:
        folder = src / "IEMOCAP_RAW_PROCESSED" / name.rpartition("_")[0] / name
        fill(folder, ("image_L_", "image_R_"), 10, ("audio.wav", "audio_L.wav", "audio_R.wav"))
    put(src, "IEMOCAP", iemocap_meta(), IEMOCAP_LISTS)
    return src


@pytest.fixture
def mosei(tmp_path) -> Path:
    src = tmp_path / "data"
    for name in SEGMENTS:
        fill(src / "MOSEI_RAW_PROCESSED" / name, ("image_",), 2, ("audio.wav",))
    put(src, "MOSEI", {i: {"text": f"words of {i}", "label": v} for i, v in SEGMENTS.items()}, MOSEI_LISTS)
    return src


@pytest.fixture
def complete(monkeypatch) -> None:
    """As if the releases were as small as the miniatures."""
    for module, lists in ((iemocap_mme2e, IEMOCAP_LISTS), (cmu_mosei_mme2e, MOSEI_LISTS)):
        monkeypatch.setitem(module.CARD, "counts", {split: len(ids) for split, ids in lists.items()})


def of(corpus: Corpus, column: str) -> dict[str, Any]:
    return dict(zip(corpus.table["id"], corpus.table[column], strict=True))


def frames(corpus: Corpus, name: str, fps: float) -> list[float]:
    """Brightness of the pictures of an utterance to the nearest 10, one per step."""
    clip = dict(clips_of(corpus))[name]
    return [round(float(frame.image.mean()), -1) for frame in clip.frames(fps)]


def test_iemocap_has_the_speakers_half_in_picture_and_sound(iemocap, complete, tmp_path):
    corpus = import_iemocap_mme2e(iemocap, tmp_path / "c")
    half = {"F001": "left", "F000": "left", "M000": "right"}
    assert {k.rpartition("_")[2]: v for k, v in of(corpus, "half").items() if "Ses01F" in k} == half
    assert of(corpus, "half")["Ses05M_script01_1b_M004"] == "left"
    assert of(corpus, "half")["Ses05M_script01_1b_F003"] == "right"
    assert [Path(path).name for path in corpus.table["audio"]] == [
        f"audio_{side[0].upper()}.wav" for side in corpus.table["half"]
    ]
    assert frames(corpus, "Ses01F_impro01_F000", 10)[:4] == [40, 60, 80, 100]
    assert frames(corpus, "Ses01F_impro01_M000", 10)[:4] == [140, 160, 180, 200]


def test_iemocap_s_order_split_and_labels(iemocap, complete, tmp_path):
    corpus = import_iemocap_mme2e(iemocap, tmp_path / "c")
    first = corpus.table[corpus.table["conversation"] == "Ses01F_impro01"]
    assert list(first["id"].str[-4:]) == ["F000", "M000", "F001"]
    assert list(first["position"]) == [0, 1, 2]
    assert list(first["label"]) == ["frustrated", "excited", "neutral"]
    assert of(corpus, "split") == {i: split for split, ids in IEMOCAP_LISTS.items() for i in ids}
    four = import_iemocap_mme2e(iemocap, tmp_path / "d", labels="iemocap-4", pictures=False)
    assert list(four.table["label"]) == ["", "happy", "neutral", "angry", "happy"]
    assert set(four.table["video"]) == {""}


@pytest.mark.parametrize("kind", ["number", "one-hot", "array"])
def test_iemocap_s_labels_go_by_the_order_of_the_release(iemocap, complete, tmp_path, kind):
    meta = iemocap_meta()
    for name, (code, *_) in UTTERANCES.items():
        index = ORDER.index(code)
        vector = np.eye(6, dtype=int)[index]
        meta[name]["label"] = {"number": index, "one-hot": vector.tolist(), "array": vector}[kind]
    put(iemocap, "IEMOCAP", meta, IEMOCAP_LISTS)
    corpus = import_iemocap_mme2e(iemocap, tmp_path / "c", pictures=False)
    assert of(corpus, "emotion") == {name: told[0] for name, told in UTTERANCES.items()}
    assert ORDER == ("ang", "exc", "fru", "hap", "neu", "sad")


def test_the_random_split_is_flagged_by_the_import_and_by_the_corpus(iemocap, complete, tmp_path, capsys):
    assert main(["import", "iemocap_mme2e", str(iemocap), str(tmp_path / "c")]) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "split=mme2e is by utterance at random: 1 of 2 test dialogues are in train too" in said
    assert "leak check" in said
    info = io.read_json(tmp_path / "c" / "corpus.json")
    assert info["overlap"]["source"] == {"train/test": ["Ses01"], "valid/test": ["Ses05"]}
    assert "1 utterances of meta.pkl are in no list: left out" in info["warnings"]
    assert "1 of 5 utterances have no words" in info["warnings"]


def test_mosei_s_emotions_go_by_name_and_rows_of_zeros_stay(mosei, complete, tmp_path):
    corpus = import_cmu_mosei_mme2e(mosei, tmp_path / "c")
    space = with_kind(SPACES["mosei-6"], "multilabel", "emotions")
    table = corpus.table.set_index("id")[list(space.labels)]
    assert set(table.columns[table.loc["-3g5yACwYnA_10"] > 0]) == {"fear", "happy", "sad"}
    assert set(table.columns[table.loc["208322_0"] > 0]) == {"angry"}
    assert set(table.columns[table.loc["a_b_7"] > 0]) == {"disgust", "surprise"}
    assert (table.loc["-3g5yACwYnA_2"] == 0).all()
    targets, known = Task("emotions", space).targets(table.to_numpy().tolist())
    assert known.all()
    assert targets.shape == (4, 6)
    assert of(corpus, "source")["a_b_7"] == "a_b"
    assert of(corpus, "position")["-3g5yACwYnA_10"] == 10
    assert corpus.info["overlap"] == {}
    assert "warnings" not in corpus.info


def test_pictures_are_a_file_per_utterance_as_they_were_taken(mosei, complete, tmp_path):
    corpus = import_cmu_mosei_mme2e(mosei, tmp_path / "c")
    info = probe(corpus.path / of(corpus, "video")["208322_0"])
    assert info.video is not None
    assert (info.video.fps, info.video.frames, info.duration) == (2.0, 2, 1.0)
    with av.open(str(info.path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    assert packets == [picture(0), picture(1)]
    assert frames(corpus, "208322_0", 4) == [40, 40, 60, 60]


def test_a_damaged_picture_leaves_a_gap_and_is_counted(iemocap, complete, tmp_path):
    folder = iemocap / "IEMOCAP_RAW_PROCESSED" / "Ses01F_impro01" / "Ses01F_impro01_F000"
    for number, content in ((3, b""), (4, picture(1)[:40])):
        (folder / f"image_L_{number}.jpg").write_bytes(content)
    corpus = import_iemocap_mme2e(iemocap, tmp_path / "c")
    assert frames(corpus, "Ses01F_impro01_F000", 10) == [40, 60, 80, 80, 80, 60, 80, 100, 40, 60]
    left_out = "2 pictures are damaged and were left out, e.g. Ses01F_impro01_F000/image_L_3.jpg"
    assert left_out in corpus.info["warnings"]


def test_utterances_without_pictures_stay(mosei, complete, tmp_path):
    for path in (mosei / "MOSEI_RAW_PROCESSED" / "a_b_7").glob("*.jpg"):
        path.unlink()
    (mosei / "MOSEI_RAW_PROCESSED" / "208322_0" / "image_0.jpg").unlink()
    corpus = import_cmu_mosei_mme2e(mosei, tmp_path / "c")
    assert of(corpus, "video")["a_b_7"] == ""
    assert corpus.info["warnings"] == [
        "1 of 4 utterances have no pictures",
        "1 utterances have no picture 0: theirs begin too early by the pictures that are missing",
    ]


def test_a_wrong_rate_of_pictures_is_refused(mosei, complete, tmp_path):
    with pytest.raises(BadCorpus, match=r"last 0\.067 times as long as the sound: there are about 2 a second"):
        import_cmu_mosei_mme2e(mosei, tmp_path / "c", fps=30.0)
    with pytest.raises(BadConfig, match="fps = 0"):
        import_cmu_mosei_mme2e(mosei, tmp_path / "c", fps=0.0)


def test_counts_are_those_of_the_release(mosei, iemocap, tmp_path, monkeypatch):
    with pytest.raises(BadCorpus, match=r"incomplete \(train: 2 of 14524; valid: 1 of 1765; test: 1 of 4188\)"):
        import_cmu_mosei_mme2e(mosei, tmp_path / "c")
    with pytest.raises(BadCorpus, match=r"incomplete \(train: 2 of 5162; valid: 1 of 737; test: 2 of 1481\)"):
        import_iemocap_mme2e(iemocap, tmp_path / "c")
    partial = import_cmu_mosei_mme2e(mosei, tmp_path / "c", partial=True)
    assert partial.info["partial"] == ["train: 2 of 14524", "valid: 1 of 1765", "test: 1 of 4188"]
    monkeypatch.setitem(cmu_mosei_mme2e.CARD, "counts", {"train": 1, "valid": 1, "test": 1})
    with pytest.raises(BadCorpus, match="2 of 'train', the release has 1"):
        import_cmu_mosei_mme2e(mosei, tmp_path / "d", partial=True)


def test_missing_folders_and_sounds_need_partial(mosei, complete, tmp_path):
    (mosei / "MOSEI_RAW_PROCESSED" / "208322_0" / "audio.wav").unlink()
    with pytest.raises(BadCorpus, match=r"utterances with sound: 3 of 4") as caught:
        import_cmu_mosei_mme2e(mosei, tmp_path / "c")
    assert "--partial" in caught.value.remedy
    (mosei / "MOSEI_RAW_PROCESSED" / "a_b_7").rename(tmp_path / "away")
    corpus = import_cmu_mosei_mme2e(mosei, tmp_path / "c", partial=True)
    assert corpus.info["partial"] == ["test: 0 of 1", "utterances with sound: 2 of 3"]


def test_changed_labels_of_a_complete_session_are_refused(iemocap, complete, tmp_path, monkeypatch):
    monkeypatch.setitem(PUBLISHED, "Ses01", tuple(int(code in ("neu", "exc", "sad")) for code in CODES))
    with pytest.raises(BadCorpus, match="Ses01: 0 of 'sad', the release has 1"):
        import_iemocap_mme2e(iemocap, tmp_path / "c")


def test_counts_of_both_tables_agree():
    assert sum(iemocap_mme2e.CARD["counts"].values()) == sum(map(sum, PUBLISHED.values())) == 7380


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda meta: meta["Ses01F_impro01_F000"].update(label="xxx"), "'Ses01F_impro01_F000' has the label 'xxx'"),
        (lambda meta: meta["Ses01F_impro01_F000"].update(label=6), "has the label 6"),
        (lambda meta: meta["Ses01F_impro01_F000"].update(label=[1, 1, 0, 0, 0, 0]), r"has the label \[1, 1"),
        (lambda meta: meta["Ses01F_impro01_F000"].pop("start_time"), "times of 'Ses01F_impro01_F000'"),
        (lambda meta: meta["Ses01F_impro01_F000"].update(fps=-1.0), "times of 'Ses01F_impro01_F000'(.*)fps -1"),
        (lambda meta: meta["Ses01F_impro01_F000"].update(end_time=float("nan")), "times of 'Ses01F_impro01_F000'"),
        (lambda meta: meta.update(Ses01F_impro01_F000=3), "no dict of a dict per utterance"),
    ],
)
def test_damaged_metadata_are_named(iemocap, complete, tmp_path, change, error):
    meta = iemocap_meta()
    change(meta)
    put(iemocap, "IEMOCAP", meta, IEMOCAP_LISTS)
    with pytest.raises(BadCorpus, match=error):
        import_iemocap_mme2e(iemocap, tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("label", [[0, 0, 1], [0, 0, 0, 0, 0, -1], [0, 0, 0, 0, 0, float("nan")], "happy", None])
def test_a_vector_that_is_none_of_mosei_is_named(mosei, complete, tmp_path, label):
    meta = {i: {"text": "", "label": label if i == "a_b_7" else v} for i, v in SEGMENTS.items()}
    put(mosei, "MOSEI", meta, MOSEI_LISTS)
    with pytest.raises(BadCorpus, match="'a_b_7' has the label"):
        import_cmu_mosei_mme2e(mosei, tmp_path / "c")


def test_lists_that_do_not_fit_are_named(mosei, complete, tmp_path):
    for lists, error in (
        ({**MOSEI_LISTS, "test": ["208322_0"]}, "'208322_0' is no utterance, or is in two splits"),
        ({**MOSEI_LISTS, "test": ["../a_7"]}, "'../a_7' is no utterance"),
    ):
        put(mosei, "MOSEI", {}, lists)
        with pytest.raises(BadCorpus, match=error):
            import_cmu_mosei_mme2e(mosei, tmp_path / "c")
    (mosei / "MOSEI_SPLIT" / "test_split.txt").unlink()
    with pytest.raises(BadCorpus, match=r"test_split\.txt cannot be read"):
        import_cmu_mosei_mme2e(mosei, tmp_path / "c")
    for src in (mosei, mosei / "MOSEI_RAW_PROCESSED" / "meta.pkl"):
        with pytest.raises(BadCorpus, match="no folder IEMOCAP_RAW_PROCESSED"):
            import_iemocap_mme2e(src, tmp_path / "c")


class Program:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("ran",)


def test_a_pickle_with_a_program_in_it_is_refused_and_not_run(mosei, complete, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put(mosei, "MOSEI", {"a_b_7": {"text": Program(), "label": [0] * 6}}, MOSEI_LISTS)
    with pytest.raises(BadFeatures, match="could run code"):
        import_cmu_mosei_mme2e(mosei, tmp_path / "c")
    assert main(["import", "cmu_mosei_mme2e", str(mosei), str(tmp_path / "c")]) != 0
    assert not (tmp_path / "ran").exists()
    (mosei / "MOSEI_RAW_PROCESSED" / "meta.pkl").write_bytes(pickle.dumps(SEGMENTS)[:-9])
    with pytest.raises(BadFeatures, match="damaged or not a pickle"):
        import_cmu_mosei_mme2e(mosei, tmp_path / "c")


def test_the_two_corpora_of_one_folder_take_their_own_lists(iemocap, mosei, complete, tmp_path):
    assert iemocap == mosei
    found = import_cmu_mosei_mme2e(mosei, tmp_path / "c", pictures=False)
    assert Counter(found.table["split"]) == {"train": 2, "valid": 1, "test": 1}
    assert len(import_iemocap_mme2e(iemocap, tmp_path / "d", pictures=False)) == 5


def test_a_report_on_the_random_split_says_what_crosses_it(iemocap, complete, tmp_path):
    table = import_iemocap_mme2e(iemocap, tmp_path / "c", pictures=False).table
    rows = crossing(table, [table["split"].to_numpy()])
    said = describe(rows, table, 1, "source")
    assert "1 speaker, 1 source and 1 conversation (Ses01F) are in train and test" in said
