from __future__ import annotations

import json
from contextlib import suppress

import numpy as np
import pytest

from affuse.core.errors import BadCorpus, BadFeatures
from affuse.core.labels import SPACES
from affuse.corpora.mer2023 import CARD, EMOTIONS, import_mer2023

FILES = {"train": "train", "test1": "multi", "test2": "noise", "test3": "semi"}


def labels():
    """MERTools part -> {name: (emotion, valence)}, in the official numbers."""
    emotions = [e for e, n in EMOTIONS.items() for _ in range(n)]
    names = iter(f"sample_{i:08d}" for i in range(10_000))
    made = {}
    for theirs, ours in FILES.items():
        some = [emotions[(7 * i) % len(emotions)] for i in range(CARD["counts"][ours])]
        chosen = emotions if ours == "train" else some
        made[theirs] = {next(names): (e, -10.0 if ours == "semi" else (i % 21) / 4 - 2.5) for i, e in enumerate(chosen)}
    return made


def csv_release(folder, parts=FILES):
    """The official csv files."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, content in labels().items():
        if part in parts:
            lines = [f"{n},{e},{v}" for n, (e, v) in content.items()]
            (folder / f"{part}-label.csv").write_text("\n".join(["name,discrete,valence", *lines]) + "\n")
    return folder


def dictionaries():
    return {f"{p}_corpus": {n: {"emo": e, "val": v} for n, (e, v) in c.items()} for p, c in labels().items()}


def few(folder, **rows):
    """Official csv files of these few rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, lines in rows.items():
        (folder / f"{part}-label.csv").write_text("name,discrete,valence\n" + lines)
    return folder


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_csv_files(tmp_path):
    corpus = import_mer2023(csv_release(tmp_path / "r"), tmp_path / "c")
    assert corpus.space is SPACES["mer2023-6"]
    assert corpus.table["part"].value_counts().to_dict() == CARD["counts"]
    assert corpus.info["counts"]["train"]["labels"] == dict(sorted(EMOTIONS.items()))
    assert (corpus.table.loc[corpus.table["part"] != "train", "split"] == "test").all()
    assert (corpus.table["valence"].isna() == (corpus.table["part"] == "semi")).all()
    assert "partial" not in corpus.info
    assert len(corpus.info["warnings"]) == 2


def test_the_three_forms_of_the_labels_agree(tmp_path):
    (tmp_path / "npz").mkdir()
    (tmp_path / "json").mkdir()
    np.savez_compressed(tmp_path / "npz" / "label-6way.npz", **dictionaries())
    (tmp_path / "json" / "mer2023_label-6way.json").write_text(json.dumps(dictionaries()))
    tables = [import_mer2023(csv_release(tmp_path / "csv"), tmp_path / "c").table]
    tables += [import_mer2023(tmp_path / form, tmp_path / f"c{form}").table for form in ("npz", "json")]
    for other in tables[1:]:
        assert tables[0].equals(other)


def test_one_test_part(tmp_path):
    corpus = import_mer2023(csv_release(tmp_path / "r", ("train", "test2")), tmp_path / "c", test="noise")
    assert set(corpus.table["part"]) == {"train", "noise"}
    assert len(corpus.info["warnings"]) == 1


def test_clips_words_and_the_pool(tmp_path):
    rows = {
        "train": "sample_00000001,sad,-1.5\n",
        "test1": "sample_00000002,happy,2\n",
        "test3": "samplenew3_00000003,angry,0.5\n",
    }
    src = few(tmp_path / "r", **rows)
    for clip in (
        "train/sample_00000001.mp4",
        "test1/sample_00000002.avi",
        "test3/samplenew3_00000003.mp4",
        "test3/samplenew3_00000009.mp4",
    ):
        touch(src / clip)
    touch(src / "audio" / "sample_00000001.wav")
    (src / "transcription.csv").write_text("name,sentence\nsample_00000002,你好。\n", encoding="utf-8")
    table = import_mer2023(src, tmp_path / "c", partial=True, unlabelled=True).table.set_index("id")
    assert list(table["part"]) == ["train", "multi", "semi", "unlabelled"]
    assert list(table["split"]) == ["train", "test", "test", "train"]
    assert table.loc["samplenew3_00000009", "label"] == ""
    assert np.isnan(table.loc["samplenew3_00000003", "valence"])  # MERTools: SEMI has none, whatever its column says
    assert table.loc["sample_00000002", "video"].endswith("test1/sample_00000002.avi")
    assert table.loc["sample_00000001", "audio"].endswith("audio/sample_00000001.wav")
    assert table.loc["sample_00000002", "text"] == "你好。"


def test_missing_clips_and_parts_need_partial(tmp_path):
    src = csv_release(tmp_path / "r", ("train",))
    with pytest.raises(BadCorpus, match=r"incomplete.*multi: 0 of 411") as caught:
        import_mer2023(src, tmp_path / "c")
    assert "--partial" in caught.value.remedy
    touch(src / "train" / "sample_00000000.mp4")
    with pytest.raises(BadCorpus, match=r"clips per part: incomplete .train: 1 of 3373"):
        import_mer2023(csv_release(src), tmp_path / "c")
    assert not (tmp_path / "c").exists()
    assert "clips of train: 1 of 3373" in import_mer2023(src, tmp_path / "c", partial=True).info["partial"]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("name,emotion,valence\na,sad,1\n", "train-label.csv has no column 'discrete'"),
        ("name,discrete\na,sad\n", "no column 'valence'"),
        ("name,discrete,valence\na,bored,1\n", "unknown emotion 'bored' of a"),
        ("name,discrete,valence\na,sad,low\n", "valence 'low' of a is not a number"),
        ("name,discrete,valence\na,sad,inf\n", "valence of a is infinite"),
        ("name,discrete,valence\na,sad,1\na,sad,1\n", "names a twice"),
        (
            "name,discrete,valence\n" + "".join(f"s{i},sad,1\n" for i in range(3374)),
            "3374 of 'train', the release has 3373",
        ),
        (
            "name,discrete,valence\n" + "".join(f"s{i},sad,1\n" for i in range(3373)),
            "train: 0 of 'neutral', the release has 871",
        ),
    ],
)
def test_damaged_csv_files(tmp_path, content, error):
    (tmp_path / "train-label.csv").write_text(content)
    with pytest.raises(BadCorpus, match=error):
        import_mer2023(tmp_path, tmp_path / "c", partial=True)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("{", "not readable JSON"),
        ("[1]", "has no train_corpus"),
        ('{"train": {}}', "has no train_corpus"),
        ('{"train_corpus": {"a": ["sad", 1]}}', "a part is not"),
        ('{"train_corpus": {"a": {"emo": 3, "val": 1}}}', "unknown emotion 3 of a"),
        ('{"train_corpus": {"a": {"emo": [], "val": 1}}}', "unknown emotion .. of a"),
        ('{"train_corpus": {"a": {"emo": "sad", "val": null}}}', "valence None of a"),
    ],
)
def test_damaged_json_files(tmp_path, content, error):
    (tmp_path / "label-6way.json").write_text(content)
    with pytest.raises(BadCorpus, match=error):
        import_mer2023(tmp_path, tmp_path / "c", partial=True)


class Evil:
    def __reduce__(self):
        return eval, ("1/0",)


def test_damaged_npz_files_run_no_code(tmp_path):
    path = tmp_path / "label-6way.npz"
    path.write_bytes(b"PK no zip")
    with pytest.raises(BadCorpus, match=r"not a readable .npz"):
        import_mer2023(tmp_path, tmp_path / "c", partial=True)
    np.savez(path, train_corpus=np.zeros(3))
    with pytest.raises(BadCorpus, match=r"train_corpus.npy holds no dictionary"):
        import_mer2023(tmp_path, tmp_path / "c", partial=True)
    np.savez(path, train_corpus=np.array({"a": Evil()}, dtype=object))
    with pytest.raises(BadFeatures, match=r"label-6way.npz: .*refused"):
        import_mer2023(tmp_path, tmp_path / "c", partial=True)


def test_a_pool_that_is_not_there(tmp_path):
    with pytest.raises(BadCorpus, match="no unlabelled clips"):
        import_mer2023(few(tmp_path / "r", train="a,sad,1\n"), tmp_path / "c", partial=True, unlabelled=True)


def test_the_real_labels(shared_data, tmp_path):
    src = shared_data / "mertools_labels"
    with pytest.raises(BadCorpus, match=r"incomplete"):
        import_mer2023(src, tmp_path / "c")
    corpus = import_mer2023(src, tmp_path / "c", partial=True)
    theirs = json.loads((src / "mer2023_label-6way_train.json").read_text())["train_corpus"]
    assert corpus.info["partial"] == ["multi: 0 of 411", "noise: 0 of 412", "semi: 0 of 834"]
    assert len(corpus) == 3373
    table = corpus.table.set_index("id")
    assert dict(table["label"]) == {n: v["emo"] for n, v in theirs.items()}
    assert dict(table["valence"]) == {n: v["val"] for n, v in theirs.items()}
    assert table["valence"].between(-5, 5).all()


def test_an_npz_that_was_damaged_on_its_way_is_named(tmp_path):
    path = tmp_path / "label-6way.npz"
    np.savez_compressed(path, train_corpus={f"n{i}": {"emo": "sad", "val": i / 7} for i in range(300)})
    whole = path.read_bytes()
    for at in range(30, len(whole), 37):
        path.write_bytes(whole[:at] + bytes([255 - whole[at]]) + whole[at + 1 :])
        with suppress(BadCorpus, BadFeatures):  # a byte that nothing depends on may be any
            import_mer2023(tmp_path, tmp_path / "c", partial=True)
    path.write_bytes(whole[:40] + bytes(60) + whole[100:])
    with pytest.raises(BadCorpus, match=r"label-6way.npz is not a readable .npz"):
        import_mer2023(tmp_path, tmp_path / "c", partial=True)
