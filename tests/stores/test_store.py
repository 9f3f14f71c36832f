from __future__ import annotations

import numpy as np
import pytest

from affuse.core.errors import BadConfig, BadFeatures, MissingFile
from affuse.core.types import Feature, StreamSpec
from affuse.stores.align import at_rate
from affuse.stores.collate import collate
from affuse.stores.store import FeatureStore, StoreWriter, guess_modality, import_arrays, store_card

SPEC = StreamSpec("faces", "vision", (3,), 5.0, 0.5)


def write(path, features, **card):
    with StoreWriter(path, store_card(SPEC, "test", 1, card)) as writer:
        for name, feature in features.items():
            writer.add(name, feature)
    return FeatureStore(path)


def test_round_trip_with_validity_and_start(tmp_path):
    values = np.arange(30, dtype=np.float32).reshape(10, 3)
    valid = np.arange(10) % 3 > 0
    store = write(tmp_path / "faces", {"a/b": Feature(values, valid, 0.4), "c": Feature(values[:0])})
    found = store["a/b"]
    assert (found.values == values).all()
    assert (found.valid == valid).all()
    assert found.t0 == 0.4
    assert store.length("a/b") == 10
    assert len(store["c"].values) == 0
    assert store.spec == SPEC


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.5, 0.9), (0.9, None), (1.0, 1.0), (5.0, 9.0)])
def test_slices_hold_the_steps_of_their_time(tmp_path, start, end):
    times = 0.4 + np.arange(10) / 5
    store = write(tmp_path / "faces", {"a": Feature(times[:, None].repeat(3, 1).astype(np.float32), t0=0.4)})
    wanted = times[(times >= start - 1e-9) & (times < (9e9 if end is None else end) - 1e-9)]
    part = store.get("a", start, end)
    np.testing.assert_allclose(part.values[:, 0], wanted, rtol=1e-6)
    if len(wanted):
        assert part.t0 == pytest.approx(wanted[0])
    whole = store.get("a").between(5.0, start, 9e9 if end is None else end)
    np.testing.assert_array_equal(whole.values, part.values)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int16", "int64", "bool"])
def test_slices_have_the_stored_type_and_belong_to_their_id(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 200, (2, 9, 3)).astype(dtype)
    store = write(tmp_path / "faces", {"a": Feature(values[0], np.arange(9) > 3), "b": Feature(values[1])})
    for name, all_of_it in zip("ab", values, strict=True):
        part = store.get(name, 0.4, 1.2).values
        assert part.dtype == store.get(name).values.dtype == dtype
        np.testing.assert_array_equal(part, all_of_it[2:6])


def test_resuming_adds_and_other_options_are_refused(tmp_path):
    write(tmp_path / "faces", {"a": Feature(np.ones((2, 3), np.float32))}, fps=5)
    store = write(tmp_path / "faces", {"b": Feature(np.zeros((1, 3), np.float32))}, fps=5)
    assert store.ids == ["a", "b"]
    with pytest.raises(BadFeatures, match="fps"):
        write(tmp_path / "faces", {}, fps=10)


def test_interrupt_keeps_what_is_complete(tmp_path):
    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path / "faces", store_card(SPEC, "test", 1, {})) as writer:
        writer.add("a", Feature(np.ones((2, 3), np.float32)))
        raise KeyboardInterrupt
    assert FeatureStore(tmp_path / "faces").ids == ["a"]


def test_damage_is_named(tmp_path):
    store = write(tmp_path / "faces", {"a": Feature(np.ones((200, 3), np.float32))})
    shard = next(store.path.glob("shard-*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(BadFeatures, match="damaged"):
        FeatureStore(store.path)
    with pytest.raises(MissingFile, match="extract"):
        FeatureStore(tmp_path / "none")
    with pytest.raises(BadFeatures, match="not in store"):
        store["zzz"]


def test_imported_sequences_and_missing_numbers(tmp_path):
    values = np.arange(12.0).reshape(6, 2)
    values[2] = np.nan
    values[4, 0] = np.inf
    store = import_arrays(tmp_path / "face_au", ["a", "b"], values, np.array([0, 4, 6]))
    assert store.spec.modality == "vision"
    assert store["a"].valid.tolist() == [True, True, False, True]
    assert np.isnan(store["b"].values[0, 0])
    batch = collate([store.spec], {"face_au": [store["a"], store["b"]]})
    assert batch.mask["face_au"].tolist() == [[True, True, False, True], [True, True, False, False]]
    assert (batch.x["face_au"][~batch.mask["face_au"]] == 0).all()


@pytest.mark.parametrize(
    ("ids", "values", "offsets"),
    [
        (["a"], np.ones((2, 3)), None),
        (["a", "a"], np.ones((2, 3)), None),
        (["a"], np.ones(3), None),
        (["a", "b"], np.ones((4, 2)), np.array([0, 3, 2])),
        (["a", "b"], np.ones((4, 2)), np.array([0, 2, 3])),
        (["a"], np.array([["x"]]), None),
        (["a", "b"], np.ones((4, 2)), np.array([0, 2.5, 4])),
    ],
)
def test_shapes_that_do_not_fit_are_refused(tmp_path, ids, values, offsets):
    with pytest.raises(BadFeatures):
        import_arrays(tmp_path / "audio_x", ids, values, offsets)


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("audio", "audio"), ("video", "vision"), ("face_features", "vision"), ("bert_tokens", "text"),
        ("wav2vec", "audio"), ("au_openface", "vision"), ("clip_embedding", "vision"), ("egemaps", "audio"),
    ],
)
def test_modality_from_the_name(name, modality):
    assert guess_modality(name) == modality


def test_unknown_modality_asks():
    with pytest.raises(BadFeatures, match="--modality"):
        raise_guess()


def raise_guess():
    try:
        guess_modality("things")
    except BadFeatures as error:
        raise BadFeatures(error.remedy) from error


def test_scale_is_applied_once(tmp_path):
    store = write(tmp_path / "faces", {"a": Feature(np.full((2, 3), 4, np.uint8))})
    assert (collate([store.spec], {"faces": [store["a"]]}).x["faces"] == 2).all()


def test_importing_the_same_again_writes_nothing_twice(tmp_path):
    values = np.ones((2, 3))
    store = import_arrays(tmp_path / "audio_x", ["a", "b"], values)
    again = import_arrays(tmp_path / "audio_x", ["a", "b"], values, rate=5.0)
    assert again.shards == store.shards
    assert len(list(again.path.glob("*.safetensors"))) == 1
    assert again.spec.rate == 5.0


@pytest.mark.parametrize("rate", [-5.0, np.nan, np.inf])
def test_a_rate_that_is_none_is_refused(tmp_path, rate):
    with pytest.raises(BadConfig, match="steps per second"):
        import_arrays(tmp_path / "audio_x", ["a"], np.ones((1, 3)), rate=rate)
    with pytest.raises(BadConfig, match="steps per second"):
        import_arrays(tmp_path / "audio_x", ["a"], np.ones((1, 3)), rate=5.0).at(rate)


def test_features_under_an_extractors_name_are_not_to_be_deleted(tmp_path):
    store = import_arrays(tmp_path / "egemaps", ["a"], np.ones((1, 3)))
    with pytest.raises(BadFeatures, match="import your features under another name"):
        store.check({"extractor": "egemaps", "version": 1, "parameters": {}, "weights_hash": ""})

def test_a_part_on_a_grid_is_the_part_of_the_whole(tmp_path):
    """Only the steps around a window are read, and they give what the whole recording gives there."""
    rng = np.random.default_rng(0)
    import_arrays(tmp_path / "s", ["a"], rng.normal(size=(503, 3)), np.array([0, 503]), "audio", 100.0)
    for how in ("mean", "nearest"):
        for rate in (5.0, 7.3, 240.0):
            store = FeatureStore(tmp_path / "s").at(rate, how)
            for start, end in ((0.0, 0.9), (1.4, 3.0), (4.6, 5.4), (5.2, 6.0)):
                part = store.get("a", start, end)
                whole = at_rate(FeatureStore(tmp_path / "s").get("a"), 100.0, rate, how, start, end)
                np.testing.assert_allclose(part.values, whole.values, atol=1e-6)
                assert part.valid.tolist() == whole.valid.tolist()
