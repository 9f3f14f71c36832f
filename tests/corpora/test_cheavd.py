from __future__ import annotations

import pytest

from affuse.core.errors import BadCorpus
from affuse.core.labels import SPACES
from affuse.corpora.cheavd import import_cheavd

# As the organisers' page spells them.
OFFICIAL = ("Angry", "Disgust", "Happiness", "Sad", "Surprise", "Anxious", "Worried", "Neutral")
SPLITS = {"train": 16, "val": 8, "test": 8}


def release(folder, suffix=".avi", clips=True):
    """One csv per split, all eight labels in each, with (empty) clips."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, n in SPLITS.items():
        names = [f"{split}_{i:04d}" for i in range(n)]
        (folder / f"{split}.csv").write_text(
            "name,label\n" + "".join(f"{m},{OFFICIAL[i % 8]}\n" for i, m in enumerate(names))
        )
        (folder / split).mkdir(exist_ok=True)
        for name in names if clips else ():
            (folder / split / f"{name}{suffix}").touch()
    return folder


def test_one_table_per_split(tmp_path):
    corpus = import_cheavd(release(tmp_path / "r"), tmp_path / "c")
    assert corpus.space is SPACES["cheavd-8"]
    counts = {s: c["utterances"] for s, c in corpus.info["counts"].items() if s != "all"}
    assert counts == {"train": 16, "valid": 8, "test": 8}
    assert set(corpus.table["label"]) == set(SPACES["cheavd-8"].labels)  # worried and anxious stay apart
    assert corpus.table["video"].str.endswith(".avi").all()
    assert any("train 16 (not 4917)" in line for line in corpus.info["warnings"])
    assert "partial" not in corpus.info


def test_one_table_for_all_and_a_withheld_test_set(tmp_path):
    src = tmp_path / "r"
    src.mkdir()
    (src / "labels.csv").write_text("name,label,split\na.wav,worried,training\nb.wav,anxious,Val\nc.wav,,test\n")
    (src / "a.wav").touch()
    corpus = import_cheavd(src, tmp_path / "c", partial=True)
    assert list(corpus.table["id"]) == ["a", "b", "c"]
    assert list(corpus.table["split"]) == ["train", "valid", "test"]
    assert list(corpus.table["label"]) == ["worried", "anxious", ""]
    assert corpus.info["partial"] == ["clips of valid: 0 of 1", "clips of test: 0 of 1"]
    assert corpus.table["audio"][0].endswith("a.wav")


def test_labels_alone_and_missing_splits(tmp_path):
    src = release(tmp_path / "r", clips=False)
    assert "partial" not in import_cheavd(src, tmp_path / "c").info
    (src / "test.csv").unlink()
    with pytest.raises(BadCorpus, match=r"incomplete .test: no labels"):
        import_cheavd(src, tmp_path / "d")
    assert import_cheavd(src, tmp_path / "d", partial=True).info["partial"] == ["test: no labels"]


def test_missing_clips_need_partial(tmp_path):
    src = release(tmp_path / "r")
    (src / "val" / "val_0003.avi").unlink()
    with pytest.raises(BadCorpus, match=r"clips per split: incomplete .valid: 7 of 8"):
        import_cheavd(src, tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("train.csv", "clip,label\na,sad\n", "train.csv has no column 'name'"),
        ("train.csv", "name,emotion\na,sad\n", "no column 'label'"),
        ("train.csv", "name,label\na,fear\n", "unknown label 'fear' of a"),
        ("part1.csv", "name,label\na,sad\n", "unknown split 'part1'"),
        ("labels.csv", "name,label,split\na,sad,dev\n", "unknown split 'dev'"),
        ("train.csv", "name,label\na,sad\na,sad\n", "'a'"),
        ("train.csv", "", "not a readable csv"),
    ],
)
def test_damaged_tables(tmp_path, name, content, error):
    (tmp_path / name).write_text(content)
    with pytest.raises(BadCorpus, match=error):
        import_cheavd(tmp_path, tmp_path / "c", partial=True)
