from __future__ import annotations

import numpy as np
import pytest

from affuse.core.errors import BadCorpus
from affuse.core.labels import SPACES
from affuse.core.tasks import Task
from affuse.corpora.manifest import Corpus
from affuse.corpora.muse_mimic import import_muse_mimic
from affuse.stores.store import FeatureStore

SPLIT = {"a1": "train", "a2": "train", "b1": "devel", "c1": "test"}
LABELS = {"a1": "0.25,0.5,1.0", "a2": "0.1,0.2,0.3", "b1": "0.0,0.5,0.75", "c1": ",,"}


def cell(name):
    """An id as the release's csv files hold it: in literal double quotes."""
    return f'"""{name}"""'


def feature_csv(path, times, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = ",".join(["File_ID", "timestamp", *(f"f{i}" for i in range(len(values[0])))])
    lines = [",".join([cell(path.stem), str(t), *(f"{x:.4f}" for x in v)]) for t, v in zip(times, values, strict=True)]
    path.write_text("\n".join([header, *lines]) + "\n")


def release(folder, seed=0):
    """c1_muse_mimic with three feature sets: a grid, a grid with gaps, and tokens."""
    rng = np.random.default_rng(seed)
    root = folder / "c1_muse_mimic"
    root.mkdir(parents=True, exist_ok=True)
    (root / "partition.csv").write_text("File_ID,partition\n" + "".join(f"{cell(n)},{s}\n" for n, s in SPLIT.items()))
    (root / "labels.csv").write_text(
        "filename,Approval_,Disappointment_,Uncertainty_\n" + "".join(f"{cell(n)},{v}\n" for n, v in LABELS.items())
    )
    made = {}
    for i, name in enumerate(SPLIT):
        grid = [500 * t for t in range(6 + i)]
        gaps = [t for t in range(0, 2500, 250) if t not in (250, 1000)]
        words = np.cumsum(rng.integers(90, 700, 5)).tolist()
        for kind, times in (("egemaps", grid), ("faus", gaps), ("electra", words)):
            made[kind, name] = rng.random((len(times), 3)).round(4)
            feature_csv(root / "features" / kind / f"{name}.csv", times, made[kind, name])
    return folder, made


def test_labels_and_partition(tmp_path):
    corpus = import_muse_mimic(release(tmp_path / "r")[0], tmp_path / "c")
    table = Corpus.open(tmp_path / "c").table
    assert corpus.space is SPACES["muse-mimic-3"]
    assert list(table["id"]) == list(SPLIT)
    assert list(table["split"]) == ["train", "train", "valid", "test"]
    assert list(table.loc[0, list(SPACES["muse-mimic-3"].labels)]) == [0.25, 0.5, 1.0]
    assert table.loc[3, ["approval", "disappointment", "uncertainty"]].isna().all()
    assert "partial" not in corpus.info


def test_the_list_column_is_a_target_of_three(tmp_path):
    import_muse_mimic(release(tmp_path / "r")[0], tmp_path / "c", features=False)
    table = Corpus.open(tmp_path / "c").table
    values, known = Task("mimic", SPACES["muse-mimic-3"]).targets(table["mimic"].tolist())
    assert values.shape == (4, 3)
    assert known.tolist() == [True, True, True, False]
    np.testing.assert_allclose(values[:3], table[["approval", "disappointment", "uncertainty"]][:3], rtol=1e-6)


def test_feature_sets_keep_their_clock(tmp_path):
    src, made = release(tmp_path / "r")
    corpus = import_muse_mimic(src, tmp_path / "c")
    assert corpus.stores() == ["muse_egemaps", "muse_electra", "muse_faus"]
    sets = {name[5:]: FeatureStore(corpus.store_path(name)) for name in corpus.stores()}
    assert {n: (s.spec.modality, s.spec.rate, s.spec.shape) for n, s in sets.items()} == {
        "egemaps": ("audio", pytest.approx(2.0), (3,)),
        "faus": ("vision", pytest.approx(4.0), (3,)),
        "electra": ("text", 0.0, (3,)),
    }
    np.testing.assert_allclose(sets["egemaps"]["a2"].values, made["egemaps", "a2"], atol=1e-6)
    np.testing.assert_allclose(sets["electra"]["b1"].values, made["electra", "b1"], atol=1e-6)
    faces = sets["faus"]["c1"]
    assert faces.valid.tolist() == [True, False, True, True, False, *[True] * 5]
    np.testing.assert_allclose(faces.values[faces.valid], made["faus", "c1"], atol=1e-6)


def test_times_start_where_the_file_says_and_rounded_rates_are_grids(tmp_path):
    src, _ = release(tmp_path / "r")
    times = [round(1000 * (k + 5) / 30) for k in range(60)]
    for name in SPLIT:
        feature_csv(src / "c1_muse_mimic" / "features" / "vit" / f"{name}.csv", times, np.ones((60, 2)))
    store = FeatureStore(import_muse_mimic(src, tmp_path / "c").store_path("muse_vit"))
    assert store.spec.rate == pytest.approx(30, rel=1e-3)
    assert store["a1"].t0 == pytest.approx(5 / 30, abs=1e-3)
    assert store["a1"].valid is None
    assert len(store["a1"].values) == 60


def test_what_is_missing_needs_partial(tmp_path):
    src, _ = release(tmp_path / "r")
    (src / "c1_muse_mimic" / "features" / "faus" / "a2.csv").unlink()
    with pytest.raises(BadCorpus, match=r"features faus: incomplete .train: 1 of 2"):
        import_muse_mimic(src, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    corpus = import_muse_mimic(src, tmp_path / "c", partial=True)
    assert corpus.info["partial"] == ["features faus of train: 1 of 2"]
    labels = src / "c1_muse_mimic" / "labels.csv"
    labels.write_text(labels.read_text().replace(LABELS["b1"], ",,"))
    with pytest.raises(BadCorpus, match=r"labels: incomplete .valid: 0 of 1"):
        import_muse_mimic(src, tmp_path / "d", features=False)


def test_a_second_import_replaces_what_broke_off(tmp_path):
    src, _ = release(tmp_path / "r")
    path = src / "c1_muse_mimic" / "features" / "faus" / "c1.csv"
    whole = path.read_text()
    path.write_text(whole.replace("0.", "o.", 1))
    with pytest.raises(BadCorpus, match=r"c1.csv is not a csv"):
        import_muse_mimic(src, tmp_path / "c")
    assert not (tmp_path / "c" / "manifest.parquet").exists()
    path.write_text(whole)
    corpus = import_muse_mimic(src, tmp_path / "c")
    assert len(FeatureStore(corpus.store_path("muse_faus"))) == len(SPLIT)
    assert len(list(corpus.store_path("muse_faus").glob("shard-*"))) == 1


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        ("partition.csv", ("devel", "dev"), "unknown partition 'dev'"),
        ("partition.csv", ("c1", "a1"), "partition.csv names .* twice"),
        ("partition.csv", (cell("c1") + ",test\n", ""), "labels of c1, which is in no partition"),
        ("partition.csv", (",", ";"), "has 1 column"),
        ("labels.csv", ("Approval_", "Approval"), "labels.csv has no column 'Approval_'"),
        ("labels.csv", ("0.25", "1.25"), "a1 has a target outside 0..1"),
        ("labels.csv", ("0.25", "high"), "a target is not a number"),
        ("labels.csv", ("0.25", ""), "a1 has one target but lacks another"),
        ("labels.csv", ('"a2"', '"a1"'), "a1 is named twice"),
        ("features/egemaps/b1.csv", ("timestamp", "time"), "b1.csv is not a csv of id, timestamp"),
        ("features/egemaps/b1.csv", (",500,", ",5000,"), "b1.csv: the timestamps do not rise"),
        ("features/egemaps/b1.csv", (",f2", ""), "not a csv|other|features"),
    ],
)
def test_damaged_files(tmp_path, name, change, error):
    src, _ = release(tmp_path / "r")
    path = src / "c1_muse_mimic" / name
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(BadCorpus, match=error):
        import_muse_mimic(src, tmp_path / "c")


def test_a_file_with_other_features_and_a_foreign_file(tmp_path):
    src, _ = release(tmp_path / "r")
    feature_csv(src / "c1_muse_mimic" / "features" / "faus" / "b1.csv", [0, 250], np.ones((2, 5)))
    with pytest.raises(BadCorpus, match=r"b1.csv has 5 features, the set has 3"):
        import_muse_mimic(src, tmp_path / "c")
    feature_csv(src / "c1_muse_mimic" / "features" / "egemaps" / "zz.csv", [0, 500], np.ones((2, 3)))
    with pytest.raises(BadCorpus, match=r"features egemaps: 1 of 'no partition .zz.'"):
        import_muse_mimic(src, tmp_path / "c", partial=True)


@pytest.mark.parametrize("time", ["inf", "1e12"])
def test_times_beyond_a_day_are_damage(tmp_path, time):
    src, _ = release(tmp_path / "r")
    path = src / "c1_muse_mimic" / "features" / "egemaps" / "a1.csv"
    path.write_text(path.read_text().replace(",2500,", f",{time},"))
    with pytest.raises(BadCorpus, match=r"a1.csv: the timestamps do not rise, or lie beyond a day"):
        import_muse_mimic(src, tmp_path / "c")


def test_a_damaged_release_leaves_the_store_of_a_sound_one(tmp_path):
    src, _ = release(tmp_path / "r")
    corpus = import_muse_mimic(src, tmp_path / "c")
    path = src / "c1_muse_mimic" / "features" / "egemaps" / "c1.csv"
    (path.parent / "._c1.csv").write_bytes(b"\0\5\x16\7")  # as macOS packs it
    path.write_text(path.read_text().replace("0.", "o.", 1))
    with pytest.raises(BadCorpus, match=r"c1.csv is not a csv"):
        import_muse_mimic(src, tmp_path / "c")
    assert sorted(FeatureStore(corpus.store_path("muse_egemaps")).ids) == sorted(SPLIT)
    assert corpus.stores() == ["muse_egemaps", "muse_electra", "muse_faus"]
    assert sorted(p.name for p in corpus.path.iterdir()) == ["corpus.json", "features", "manifest.parquet"]
