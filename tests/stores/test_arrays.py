"""A user's arrays: what is read, and what is named instead of a raw error."""

from __future__ import annotations

import re

import numpy as np
import pytest

from affuse.cli.app import main
from affuse.core.errors import BadFeatures
from affuse.corpora.manifest import write_corpus
from affuse.stores.arrays import read_npz
from affuse.stores.store import FeatureStore, import_arrays

IDS = [f"u{i}" for i in range(4)]
VALUES = np.arange(12.0).reshape(4, 3)


def saved(tmp_path, **arrays):
    np.savez(tmp_path / "f.npz", **arrays)
    return tmp_path / "f.npz"


def test_ids_values_and_offsets(tmp_path):
    found = read_npz(saved(tmp_path, ids=np.array(IDS[:2]), values=VALUES, offsets=np.array([0, 3, 4])))
    assert found.ids == IDS[:2]
    assert found.offsets.tolist() == [0, 3, 4]
    assert read_npz(saved(tmp_path, ids=np.array([b"u0", "ü".encode()]), values=VALUES[:2])).ids == ["u0", "ü"]


def test_a_key_per_utterance(tmp_path):
    vectors = read_npz(saved(tmp_path, **dict(zip(IDS, VALUES, strict=True))), set(IDS))
    assert (vectors.values == VALUES).all()
    assert vectors.offsets is None
    sequences = read_npz(saved(tmp_path, u0=VALUES[:3], u1=VALUES[3:]), set(IDS))
    assert (sequences.ids, sequences.offsets.tolist()) == (["u0", "u1"], [0, 3, 4])
    assert (sequences.values == VALUES).all()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"ids": np.array(IDS, dtype=object), "values": VALUES}, r"ids\.astype\(str\)"),
        (
            {"ids": np.array(IDS), "values": np.array([VALUES[:1], VALUES[:2], 1, 2], dtype=object)},
            r"offsets=numpy\.cumsum",
        ),
        (
            {"ids": np.array(IDS), "values": VALUES, "offsets": np.array([0, None], dtype=object)},
            "'offsets' holds Python objects",
        ),
        ({"u0": np.array([1, None], dtype=object)}, "'u0' holds Python objects"),
        ({"X": VALUES, "names": np.array(IDS)}, "no key 'ids'; its keys: X, names"),
        ({"u0": VALUES[0], "u1": VALUES[0, :2]}, r"'u0' \[3\], 'u1' \[2\]"),
        ({"u0": VALUES, "u1": VALUES[:, :2]}, "do not fit together"),
        ({"u0": VALUES, "u1": VALUES[0]}, "do not fit together"),
        ({"u0": np.float64(1)}, "do not fit together"),
    ],
)
def test_what_does_not_fit_is_named_with_the_remedy(tmp_path, arrays, words):
    with pytest.raises(BadFeatures) as caught:
        read_npz(saved(tmp_path, **arrays), set(IDS))
    assert re.search(words, str(caught.value))


@pytest.mark.parametrize("name", ["f.npy", "f.npz"])
def test_a_single_array_asks_for_an_npz(tmp_path, name):
    with (tmp_path / name).open("wb") as file:
        np.save(file, VALUES)
    with pytest.raises(BadFeatures, match="single array") as caught:
        read_npz(tmp_path / name)
    assert ".npz with ids and values" in caught.value.remedy
    (tmp_path / name).write_text("a,b\n")
    with pytest.raises(BadFeatures, match=r"not an \.npz"):
        read_npz(tmp_path / name)


def test_infinities_and_overflow_are_missing_and_counted_after_the_cast(tmp_path, capsys):
    values = VALUES.copy()
    values[0, 0], values[1, 1], values[2, 2], values[3] = np.inf, 1e300, np.nan, -np.inf
    store = import_arrays(tmp_path / "audio_x", IDS, values)
    assert store.card["missing"] == 6
    assert np.isnan(store["u1"].values[0, 1])
    assert store["u1"].values[0, 0] == 3
    assert [store.usable(i) for i in IDS] == [True, True, True, False]
    write_corpus(tmp_path / "c", [{"id": i, "label": "sad"} for i in IDS], "c")
    file = saved(tmp_path, ids=np.array(IDS), values=values)
    assert main(["import", "features", str(tmp_path / "c"), "audio_x", str(file)]) == 0
    text = capsys.readouterr().err
    assert "6 of 12 numbers are missing" in text
    assert "1 of 4 utterances have no usable step" in text


def test_nothing_but_missing_numbers_and_doubled_ids_are_refused(tmp_path):
    with pytest.raises(BadFeatures, match="none of the 12 values is a finite number"):
        import_arrays(tmp_path / "audio_x", IDS, np.full((4, 3), np.inf))
    with pytest.raises(BadFeatures, match=r"1 occur more than once, e\.g\. 'u1'"):
        import_arrays(tmp_path / "audio_x", ["u0", "u1", "u1", "u2"], VALUES)
    assert not (tmp_path / "audio_x").exists()


@pytest.mark.parametrize(
    ("name", "words"), [("F17_object_ids.npz", "Python objects"), ("F17_plain.npy", "single array")]
)
def test_odd_arrays(shared_data, name, words):
    with pytest.raises(BadFeatures, match=words):
        read_npz(shared_data / "odd_inputs" / name)


def test_odd_infinities(shared_data, tmp_path):
    found = read_npz(shared_data / "odd_inputs" / "F12_inf.npz")
    store = import_arrays(tmp_path / "audio_x", *found)
    with np.errstate(over="ignore"):
        assert store.card["missing"] == (~np.isfinite(found.values.astype(np.float32))).sum() > 0
    assert all(np.isfinite(FeatureStore(store.path)[i].values).any() for i in store.ids if store.usable(i))
