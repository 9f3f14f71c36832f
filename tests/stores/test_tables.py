"""OpenFace and openSMILE tables: what was seen, when, of whom."""

from __future__ import annotations

import numpy as np
import pytest

from affuse.core.errors import BadConfig, BadFeatures, MissingFile
from affuse.stores.store import FeatureStore
from affuse.stores.tables import find_tables, import_tables, read_openface, read_opensmile

HEADER = "frame, face_id, timestamp, confidence, success, gaze_angle_x, AU01_r, AU01_c"


def openface(path, rows=None, header=HEADER, n=20, rate=25.0, **change):
    """Rows of (frame, face, time, confidence, success, gaze, AU01_r, AU01_c), as OpenFace prints them."""
    if rows is None:
        rows = [[i + 1, 0, i / rate, 0.98, 1, 0.1 * i, i, i % 2] for i in range(n)]
    lines = [", ".join([f"{r[0]}", f"{r[1]}", f"{r[2]:.3f}", *[f"{v:g}" for v in r[3:]]]) for r in rows]
    path.write_text("\n".join([header, *lines]) + "\n", **change)
    return path


def test_a_real_table(shared_data):
    path = shared_data / "openface_reference" / "subj01_timepoint01_openface.csv"
    table = read_openface(path)
    assert table.values.shape == (158, 709)
    assert table.rate == 30.0
    assert table.t0 == 0.0
    assert table.valid.all()
    assert table.columns[0] == "gaze_0_x"
    assert table.columns[-1] == "AU45_c"
    assert table.values[0, 0] == pytest.approx(0.039066)
    units = read_openface(path, columns="gaze_angle_*,AU*_r")
    assert units.values.shape == (158, 19)
    np.testing.assert_array_equal(
        units.values[:, 2:], table.values[:, [c.startswith("AU") and c.endswith("_r") for c in table.columns]]
    )


@pytest.mark.parametrize("rate", [12.5, 23.976, 25.0, 29.97, 30.0, 59.94, 60.0])
@pytest.mark.parametrize("with_frames", [True, False])
def test_the_rate_comes_from_times_printed_in_milliseconds(tmp_path, rate, with_frames):
    path = openface(tmp_path / "a.csv", n=3000, rate=rate)
    if not with_frames:
        lines = [line.split(",", 1)[1] for line in path.read_text().splitlines()]
        path.write_text("\n".join(lines))
    table = read_openface(path)
    assert table.rate == pytest.approx(rate, abs=2e-3)
    assert len(table.values) == 3000
    assert table.valid.all()


def test_missing_frames_are_gaps_and_failures_are_not_zeros(tmp_path):
    rows = [[i + 1, 0, i / 25, 0.9, 1, 1, 1, 1] for i in range(30) if i not in (0, 1, 10, 11)]
    rows[3][4] = 0  # frame 6
    rows[4][3] = 0.2  # frame 7
    table = read_openface(openface(tmp_path / "a.csv", rows))
    assert table.t0 == pytest.approx(0.08)
    assert len(table.values) == 28
    assert list(np.flatnonzero(~table.valid)) == [3, 4, 8, 9]
    assert np.isnan(table.values[~table.valid]).all()
    assert (table.values[table.valid] == 1).all()
    assert read_openface(tmp_path / "a.csv", confidence=0.1).valid.sum() == 25


def test_one_face_is_followed(tmp_path):
    rows = [[i + 1, f, i / 25, 0.9, int(f == 1 or i < 3), f, f, f] for i in range(10) for f in (0, 1)]
    path = openface(tmp_path / "a.csv", rows)
    table = read_openface(path)
    assert len(table.values) == 10
    assert (table.values == 1).all()
    other = read_openface(path, face=0)
    assert other.valid.sum() == 3
    assert len(other.values) == 10
    with pytest.raises(BadFeatures, match="no face 7; it has 0, 1"):
        read_openface(path, face=7)


def test_a_variable_frame_rate_is_put_on_the_clock(tmp_path):
    times = np.concatenate([np.arange(20) / 30, 2.0 + np.arange(20) / 30])
    rows = [[i + 1, 0, t, 0.9, 1, t, 0, 0] for i, t in enumerate(times)]
    table = read_openface(openface(tmp_path / "a.csv", rows))
    clock = table.t0 + np.arange(len(table.values)) / table.rate
    assert np.abs(clock - table.values[:, 0])[table.valid].max() < 0.51 / table.rate


def test_other_versions_and_spellings(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        b"\xef\xbb\xbfframe, timestamp, confidence, success, AU01_r\r\n1, 0, 0.9, 1, -nan(ind)\r\n"
        b"2, 0.04, 0.9, 1, 2.5\r\n3, 0.08, 0.9, 1, inf\r\n"
    )
    table = read_openface(path)
    assert list(table.valid) == [False, True, False]
    assert table.rate == 25
    path.write_text("face, confidence, AU01_r\n0, 0.9, 1\n")
    with pytest.raises(BadFeatures, match="no column 'timestamp'"):
        read_openface(path)


def test_opensmile_functionals(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("name;frameTime;F0_mean;F0_std\n'some; file.wav';0.000000;1.5;-2e-1\n")
    table = read_opensmile(path)
    assert table.values.tolist() == [[1.5, pytest.approx(-0.2)]]
    assert (table.rate, table.t0, table.columns) == (0.0, 0.0, ("F0_mean", "F0_std"))
    path.write_text("file,start,end,F0_mean,F0_std\nx.wav,0 days,0 days 00:00:01.5,1.5,-0.2\n")
    assert read_opensmile(path).columns == ("F0_mean", "F0_std")


@pytest.mark.parametrize("sep", [";", ","])
def test_opensmile_low_level_descriptors(tmp_path, sep):
    path = tmp_path / "a.csv"
    lines = [sep.join(["'unknown'", f"{0.02 + i / 100:.6f}", f"{i}", "0.5"]) for i in range(50) if i != 7]
    path.write_text("\n".join([sep.join(["name", "frameTime", "loudness", "pitch"]), *lines]))
    table = read_opensmile(path)
    assert table.rate == 100
    assert table.t0 == pytest.approx(0.02)
    assert len(table.values) == 50
    assert list(np.flatnonzero(~table.valid)) == [7]
    assert table.values[8].tolist() == [8, 0.5]
    assert read_opensmile(path, columns="pitch").values.shape == (50, 1)


def test_the_opensmile_package_s_own_frames(tmp_path):
    path = tmp_path / "a.csv"
    lines = [f"x.wav,0 days 00:00:00.{i:02d}0000,0 days 00:00:00.{i + 2:02d}0000,{i}" for i in range(20)]
    path.write_text("\n".join(["file,start,end,Loudness", *lines]))
    table = read_opensmile(path)
    assert table.rate == 100
    assert table.values[:, 0].tolist() == list(range(20))


def test_a_folder_becomes_a_store_and_failures_are_listed(tmp_path):
    files = {i: openface(tmp_path / f"{i}.csv", n=10 + k) for k, i in enumerate("abc")}
    files["cut"] = tmp_path / "cut.csv"
    files["cut"].write_bytes(files["a"].read_bytes()[:-9])
    files["none"] = tmp_path / "none.csv"
    files["other"] = openface(tmp_path / "other.csv", header=HEADER.replace("AU01_c", "AU02_c"))
    files["unseen"] = openface(tmp_path / "unseen.csv", [[1, 0, 0, 0.1, 0, 0, 0, 0], [2, 0, 0.04, 0.1, 0, 0, 0, 0]])
    store = import_tables(tmp_path / "units", files, "openface", columns="AU*")
    assert store.spec.modality == "vision"
    assert store.spec.rate == 25
    assert store.card["columns"] == ["AU01_r", "AU01_c"]
    assert {i: store.length(i) for i in store.ids} == {"a": 10, "b": 11, "c": 12, "unseen": 0}
    assert set(store.failures) == {"cut", "none", "other"}
    assert "AU01_c" in store.failures["other"]["message"]
    assert store.get("c", 0.2).values[:, 0].tolist() == [5, 6, 7, 8, 9, 10, 11]
    again = import_tables(tmp_path / "units", files, "openface", columns="AU*")
    assert len(list((tmp_path / "units").glob("shard-*"))) == 1
    assert again.hash == store.hash
    openface(files["a"], n=9)
    with pytest.raises(BadFeatures, match="delete"):
        import_tables(tmp_path / "units", files, "openface", columns="AU*")


def test_other_frame_rates_are_put_on_the_first_without_new_values(tmp_path):
    files = {
        "one": openface(tmp_path / "0.csv", n=1),
        "slow": openface(tmp_path / "a.csv", n=50),
        "fast": openface(tmp_path / "b.csv", n=101, rate=50.0),
    }
    store = import_tables(tmp_path / "s", files, "openface")
    assert store.spec.rate == 25
    assert store.failures == {}
    assert store.length("one") == 1
    assert set(store["fast"].values[:, 2]) <= {0.0, 1.0}
    np.testing.assert_array_equal(store["fast"].values[:, 1], np.arange(0, 101, 2)[: store.length("fast")])
    assert import_tables(tmp_path / "t", files, "openface", rate=10).length("slow") == 20


def test_vectors_of_opensmile_are_one_step_without_a_rate(tmp_path):
    for i in "ac":
        (tmp_path / f"{i}.csv").write_text(f"name;frameTime;x\n'{i}';0;3\n")
    (tmp_path / "b.csv").write_text("name;frameTime;y\n'b';0;1\n'b';0.01;1\n")
    files = {i: tmp_path / f"{i}.csv" for i in "ac"}
    store = import_tables(tmp_path / "s", files, "opensmile")
    assert (store.spec.rate, store.spec.modality, store["c"].values.tolist()) == (0.0, "audio", [[3.0]])
    mixed = import_tables(tmp_path / "t", {**files, "b": tmp_path / "b.csv"}, "opensmile")
    assert set(mixed.failures) in ({"b"}, {"a", "c"})


def test_nothing_usable_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(BadFeatures, match="no tables"):
        import_tables(tmp_path / "s", {}, "openface")
    with pytest.raises(BadFeatures, match="none of the 1 tables"):
        import_tables(tmp_path / "s", {"a": tmp_path / "a.csv"}, "openface")
    with pytest.raises(BadConfig, match="kind"):
        import_tables(tmp_path / "s", {}, "csv")
    with pytest.raises(MissingFile):
        read_openface(tmp_path / "a.csv")
    assert not (tmp_path / "s").exists()
    with pytest.raises(MissingFile):
        FeatureStore(tmp_path / "s")


def spreadsheet(path, sep=";", mark=",", change=lambda text: text, encoding="utf-8"):
    """The table of `openface` as a spreadsheet of a country with decimal commas saves it."""
    lines = [HEADER.replace(", ", sep)]
    lines += [
        sep.join(str(v) for v in [i + 1, 0, round(i / 25, 3), 0.98, 1, 0.5 * i, i, i % 2]).replace(".", mark)
        for i in range(20)
    ]
    path.write_bytes(change("\r\n".join(lines) + "\r\n").encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("sep", [";", "\t"])
@pytest.mark.parametrize("mark", [",", "."])
def test_spreadsheets_with_semicolons_tabs_and_decimal_commas(tmp_path, sep, mark, encoding):
    table = read_openface(spreadsheet(tmp_path / "a.csv", sep, mark, encoding=encoding))
    assert table.rate == 25
    assert table.valid.all()
    assert table.values[:, 0].tolist() == [0.5 * i for i in range(20)]
    named = read_openface(spreadsheet(tmp_path / "a.csv", sep, mark, lambda text: f"sep={sep}\r\n{text}"))
    np.testing.assert_array_equal(named.values, table.values)


def test_decimal_commas_of_opensmile_and_exponents(tmp_path):
    (tmp_path / "a.csv").write_text("name;frameTime;x;y\n'a, b.wav';0,00;1,5E-01;4\n'a, b.wav';0,01;;-3,5\n")
    table = read_opensmile(tmp_path / "a.csv")
    np.testing.assert_allclose(table.values, [[0.15, 4], [np.nan, -3.5]], rtol=1e-6)
    assert table.rate == 100


def test_two_decimal_marks_and_commas_for_both_are_named(tmp_path):
    with pytest.raises(BadFeatures, match=r"'0,0' and '1\.0'") as caught:
        read_openface(spreadsheet(tmp_path / "a.csv", change=lambda text: text.replace(";1,0;", ";1.0;")))
    assert "decimal mark" in caught.value.remedy
    with pytest.raises(BadFeatures, match="cells") as caught:
        read_openface(spreadsheet(tmp_path / "a.csv", ","))
    assert "decimal commas" in caught.value.remedy
    with pytest.raises(BadFeatures, match="'hello'"):
        read_openface(spreadsheet(tmp_path / "a.csv", change=lambda text: text.replace(";1,0;", ";hello;")))


def test_tables_are_found_by_id_whatever_the_case_of_their_suffix(tmp_path):
    for name in ("a.CSV", "deep/e\u0301.csv", "b.tsv", "other.csv", "._a.csv", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found, strange = find_tables(tmp_path, {"a", "b", "\u00e9"})
    assert {i: p.name for i, p in found.items()} == {"a": "a.CSV", "b": "b.tsv", "\u00e9": "e\u0301.csv"}
    assert [p.name for p in strange] == ["other.csv"]
    (tmp_path / "deep" / "a.csv").touch()
    with pytest.raises(BadFeatures, match="'a' has two tables"):
        find_tables(tmp_path, {"a"})


def test_an_odd_table(shared_data):
    table = read_openface(shared_data / "odd_inputs" / "F22_openface_decimal_comma_semicolon.csv")
    assert table.values[:, 0].tolist() == pytest.approx([i / 10 for i in range(10)])
