from __future__ import annotations

import json

import numpy as np
import pytest

from affuse.core.errors import BadConfig, BadCorpus
from affuse.core.labels import SPACES, canonical
from affuse.corpora.c_expr_db import BEGIN, CLASSES, COUNTS, END, VIDEOS, import_c_expr_db
from affuse.corpora.manifest import make_splits
from affuse.stores.store import FeatureStore

HEADER = ",".join(f'"{name}"' for name in (BEGIN, END, *CLASSES))


def release(folder, videos=True, folds=True, words=False):
    """The official layout and counts: 125 intervals dealt to 56 videos, 5 folds dealt to the intervals."""
    labels = [c for c in CLASSES for _ in range(COUNTS[c])]
    (folder / "annotation").mkdir(parents=True)
    (folder / "videos").mkdir()
    ids = []
    for n, video in enumerate(VIDEOS):
        lines, seen = [HEADER], dict.fromkeys(CLASSES, 0)
        for i, label in enumerate(labels[n::56]):
            cells = ['"1 "' if c == label else "" for c in CLASSES]  # some official cells have blanks
            lines.append(f"00:00:{i * 5:02d}.250,00:00:{i * 5 + 4:02d}.750,{','.join(cells)}")
            ids.append(
                (f"{label.replace(' ', '-')}/{video}_{label.replace(' ', '-')}_{seen[label]}", CLASSES.index(label))
            )
            seen[label] += 1
        (folder / "annotation" / f"{video}.csv").write_text("\n".join(lines) + "\n")
        if videos:
            (folder / "videos" / f"{video}.mp4").touch()
    for k in range(5) if folds else ():
        place = folder / "folds" / f"split-{k}"
        place.mkdir(parents=True)
        spoken = {True: ["Oh no, please, stop.", "nobody is speaking"]}.get(words, [])
        lines = [",".join([name, str(c), *spoken[i % 2 : i % 2 + 1]]) for i, (name, c) in enumerate(ids)]
        held = [line for i, line in enumerate(lines) if i % 5 == k]
        for name, part in {"train": [line for line in lines if line not in held], "val": held, "test": held}.items():
            (place / f"{name}.txt").write_text("\n".join(part) + "\n")
    return folder


def test_annotated_intervals_of_a_complete_release(tmp_path):
    corpus = import_c_expr_db(release(tmp_path / "r", words=True), tmp_path / "c")
    table = corpus.table
    assert (len(table), corpus.info["label_space"], corpus.info["warnings"]) == (125, "compound-8", [])
    assert "partial" not in corpus.info
    assert table["expression"].value_counts().to_dict() == {c: COUNTS[c] for c in CLASSES}
    assert (table["label"] == "other").sum() == COUNTS["Other"]
    assert [canonical(e) for e in table["expression"]] == list(table["label"])
    assert [canonical(c) for c in CLASSES] == list(SPACES["compound-8"].labels)
    assert SPACES["compound-8"].labels == (*SPACES["compound-7"].labels, "other")
    assert (table["source"] == table["conversation"]).all()
    assert table["source"].nunique() == 56
    second = table[table["source"] == "03"].iloc[1]
    assert (second["position"], second["start"], second["end"]) == (1, 5.25, 9.75)
    assert second["video"].endswith("/videos/03.mp4")
    assert second["text"] in {"Oh no, please, stop.", ""}
    assert set(table["text"]) == {"Oh no, please, stop.", ""}
    assert "fold" not in table


def test_default_folds_keep_videos_together_and_published_folds_are_flagged(tmp_path):
    src = release(tmp_path / "r")
    grouped = import_c_expr_db(src, tmp_path / "c").table
    for split in make_splits(grouped, "source", 0.2, 0.2, 5, 0):
        assert not set(grouped.loc[split == "test", "source"]) & set(grouped.loc[split != "test", "source"])
    corpus = import_c_expr_db(src, tmp_path / "d", folds="published")
    table = corpus.table
    assert sorted(table["fold"].unique()) == [0, 1, 2, 3, 4]
    each = [
        sum(s in set(table.loc[table["fold"] != k, "source"]) for s in table.loc[table["fold"] == k, "source"])
        for k in range(5)
    ]
    leak, same = corpus.info["warnings"]
    assert f"{sum(each)} of 125" in leak
    assert "in 5 of 5" in same


def test_the_label_track_holds_each_interval(tmp_path):
    corpus = import_c_expr_db(release(tmp_path / "r"), tmp_path / "c", rate=25.0)
    store = FeatureStore(corpus.annotation_path("expression"))
    assert (set(store.ids), store.spec.rate) == (set(corpus.table["id"]), 25.0)
    for row in corpus.table.itertuples():
        assert store[row.id].values.shape == (113, 1)  # 4.5 s at 25 Hz
        assert (store[row.id].values == SPACES["compound-8"].index(row.label)).all()


def test_other_can_be_left_out_and_is_counted_then(tmp_path):
    corpus = import_c_expr_db(release(tmp_path / "r"), tmp_path / "c", other=False, folds="published")
    assert (len(corpus.table), corpus.info["label_space"]) == (105, "compound-7")
    assert set(corpus.table["label"]) == set(SPACES["compound-7"].labels)
    said = "other=false: 20 of 125 intervals (90.0 s) are Other and were left out"
    assert corpus.info["warnings"][-1] == said
    assert set(FeatureStore(corpus.annotation_path("expression")).ids) == set(corpus.table["id"])


def test_challenge_videos_have_no_labels(tmp_path):
    corpus = import_c_expr_db(release(tmp_path / "r"), tmp_path / "c", part="challenge")
    assert list(corpus.table["id"]) == list(VIDEOS)
    assert set(corpus.table["label"]) == {""}
    assert set(corpus.table["split"]) == {"test"}
    assert corpus.table["end"].isna().all()
    assert "not scored" in corpus.info["warnings"][0]
    (tmp_path / "r" / "videos" / "07.mp4").unlink()
    with pytest.raises(BadCorpus, match=r"incomplete.*videos: 55 of 56"):
        import_c_expr_db(tmp_path / "r", tmp_path / "d", part="challenge")
    assert len(import_c_expr_db(tmp_path / "r", tmp_path / "d", part="challenge", partial=True)) == 55
    with pytest.raises(BadCorpus, match="none of the challenge's videos"):
        import_c_expr_db(tmp_path / "c", tmp_path / "e", part="challenge", partial=True)


def test_labels_without_videos_need_partial(tmp_path):
    release(tmp_path / "r", videos=False, folds=False)
    with pytest.raises(BadCorpus, match=r"incomplete.*videos: 0 of 56"):
        import_c_expr_db(tmp_path / "r", tmp_path / "c")
    assert not (tmp_path / "c").exists()
    (tmp_path / "r" / "annotation" / "01.csv").unlink()
    corpus = import_c_expr_db(tmp_path / "r", tmp_path / "c", partial=True)
    assert "annotation files: 55 of 56" in corpus.info["partial"]
    assert set(corpus.table["video"]) == {""}


def test_nothing_but_other(tmp_path):
    (tmp_path / "annotation").mkdir()
    (tmp_path / "annotation" / "01.csv").write_text(f'{HEADER}\n00:00:01.000,00:00:02.000,,,,,,,,"1"\n')
    corpus = import_c_expr_db(tmp_path, tmp_path / "c", partial=True)
    assert list(corpus.table["label"]) == ["other"]
    with pytest.raises(BadCorpus, match="all 1 intervals are Other"):
        import_c_expr_db(tmp_path, tmp_path / "d", partial=True, other=False)


@pytest.mark.parametrize(
    ("file", "old", "new", "error"),
    [
        ("annotation/02.csv", '"1 "', '"x"', r"02\.csv, interval 1: marked .*'x'"),
        ("annotation/02.csv", '"1 "', "", r"interval 1: marked no class"),
        ("annotation/02.csv", '"1 ",,', '"1","1",', "marked .*Happily"),
        ("annotation/02.csv", "00:00:04.750", "00:00:00.100", "no time, or not after"),
        ("annotation/02.csv", "00:00:05.250", "00:00:03.000", r"interval 2.*not after the interval before"),
        ("annotation/02.csv", "00:00:00.250", "soon", "'soon' to"),
        ("annotation/02.csv", '"Other"', '"Others"', "no column 'Other'"),
        ("annotation/02.csv", '"Other"', '"Other","Bored"', "column 'Bored' that the release lacks"),
        ("folds/split-1/val.txt", ",0\n", ",1\n", "is Happily Surprised, its annotation says Fearfully Surprised"),
        ("folds/split-1/val.txt", ",0\n", ",9\n", "is not CLASS/INTERVAL"),
        ("folds/split-1/val.txt", "Surprised_0", "Surprised_9", "no annotation has an interval"),
        (
            "folds/split-1/train.txt",
            "Fearfully-Surprised/01_Fearfully-Surprised_0,0",
            "Fearfully-Surprised/03_Fearfully-Surprised_0,0",
            "in train.txt and in val",
        ),
        ("folds/split-1/val.txt", "Fearfully-Surprised/03_Fearfully-Surprised_0,0\n", "", "is in 0 of the 5 lists"),
    ],
)
def test_damaged_files_are_named(tmp_path, file, old, new, error):
    path = release(tmp_path / "r") / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(BadCorpus, match=error):
        import_c_expr_db(tmp_path / "r", tmp_path / "c", folds="published")
    assert not (tmp_path / "c").exists()


def test_changed_labels_foreign_files_and_missing_lists_fail(tmp_path):
    src = release(tmp_path / "r", folds=False)
    with pytest.raises(BadCorpus, match="no folds/split-0"):
        import_c_expr_db(src, tmp_path / "c", folds="published")
    with pytest.raises(BadConfig, match="rate = 0"):
        import_c_expr_db(src, tmp_path / "c", rate=0)
    path = src / "annotation" / "02.csv"
    path.write_text(path.read_text().replace('"1 ",,', ',"1",', 1))
    with pytest.raises(BadCorpus, match="16 of 'Happily Surprised', the release has 15"):
        import_c_expr_db(src, tmp_path / "c", partial=True)
    path.rename(path.with_name("57.csv"))
    with pytest.raises(BadCorpus, match=r"57\.csv is no annotation"):
        import_c_expr_db(src, tmp_path / "c", partial=True)


def test_the_real_annotations_and_how_their_folds_leak(shared_data, tmp_path):
    src = shared_data / "cexpr_annotations"
    corpus = import_c_expr_db(src, tmp_path / "c", partial=True, folds="published")
    table = corpus.table
    assert corpus.info["partial"] == ["videos: 0 of 56"]
    assert table["expression"].value_counts().to_dict() == {c: COUNTS[c] for c in CLASSES}
    assert table["source"].nunique() == 56
    assert "92 of 125" in corpus.info["warnings"][0]
    assert "(23/27, 13/26, 23/26, 18/24, 15/22)" in corpus.info["warnings"][0]
    assert table["fold"].value_counts().sort_index().to_list() == [27, 26, 26, 24, 22]
    assert (table["end"] - table["start"]).sum() == pytest.approx(847.2, abs=0.1)
    lines = (src / "folds" / "split-3" / "val.txt").read_text().split()
    assert set(table.loc[table["fold"] == 3, "id"]) == {line.split("/")[1].split(",")[0] for line in lines}
    store = FeatureStore(corpus.annotation_path("expression"))
    assert len(store) == 125
    spans = table.set_index("id")
    steps = np.array([store.length(i) for i in spans.index])
    assert (np.abs(steps / 30 - (spans["end"] - spans["start"])) <= 1 / 30).all()
    assert json.loads((corpus.path / "corpus.json").read_text())["overlap"] == {}


# Classes, intervals and seconds as measured over the 56 files when the importer was specified.
MEASURED = {
    "fearfully surprised": (24, 98.8),
    "happily surprised": (15, 150.6),
    "sadly surprised": (13, 182.2),
    "disgustedly surprised": (10, 82.5),
    "angrily surprised": (8, 53.9),
    "sadly fearful": (19, 107.6),
    "sadly angry": (16, 100.6),
    "other": (20, 71.0),
}


def test_the_real_annotations_have_the_published_counts_and_seconds(shared_data, tmp_path):
    src = shared_data / "cexpr_annotations"
    table = import_c_expr_db(src, tmp_path / "c", partial=True).table
    by_class = (table["end"] - table["start"]).groupby(table["label"])
    assert {label: (len(t), round(t.sum(), 1)) for label, t in by_class} == MEASURED
    corpus = import_c_expr_db(src, tmp_path / "d", partial=True, other=False)
    assert len(corpus.table) == 105
    assert "20 of 125 intervals (71.0 s)" in corpus.info["warnings"][-1]
