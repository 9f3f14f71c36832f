from __future__ import annotations

import numpy as np
import pytest

from affuse.core.errors import BadCorpus, MissingFile
from affuse.corpora.fer2013 import decode_jpeg, import_fer2013
from affuse.stores.store import FeatureStore


def release(folder, n=6):
    """A few random pictures in the layout of the official CSV."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, 48 * 48))
    usage = ["Training", "Training", "PublicTest", "PrivateTest", "Training", "Training"]
    lines = [f"{i % 7},{' '.join(map(str, p))},{usage[i]}" for i, p in enumerate(pixels)]
    (folder / "fer2013.csv").write_text("emotion,pixels,Usage\n" + "\n".join(lines) + "\n")
    return pixels.reshape(n, 48, 48)


def test_official_csv(tmp_path):
    pixels = release(tmp_path)
    (tmp_path / "without.txt").write_text("Training_1\n")
    corpus = import_fer2013(tmp_path, tmp_path / "c", partial=True, without=tmp_path / "without.txt")
    assert list(corpus.table["id"]) == ["Training_0", "PublicTest_2", "PrivateTest_3", "Training_4", "Training_5"]
    assert list(corpus.table["split"]) == ["train", "valid", "test", "train", "train"]
    assert list(corpus.table["label"]) == ["angry", "fear", "happy", "sad", "surprise"]
    store = FeatureStore(corpus.store_path("faces"))
    assert (store["PublicTest_2"].values[0, :, :, 1] == pixels[2]).all()
    assert store.spec.scale == 1 / 255


def test_an_incomplete_release_writes_nothing(tmp_path):
    release(tmp_path)
    with pytest.raises(BadCorpus, match="incomplete"):
        import_fer2013(tmp_path, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    with pytest.raises(BadCorpus, match="no fer2013"):
        import_fer2013(tmp_path / "c", tmp_path / "d")


def test_packed_jpegs(shared_data):
    with np.load(shared_data / "fer2013" / "fer2013_dev.npz") as pack:
        at, data = pack["valid_offsets"], pack["valid_jpeg"]
        picture = decode_jpeg(data[at[5] : at[6]].tobytes())
    from imageio.v3 import imread

    reference = imread(data[at[5] : at[6]].tobytes())
    np.testing.assert_allclose(picture.astype(int), reference.reshape(48, 48).astype(int), atol=2)
    assert picture.shape == (48, 48)
    assert picture.dtype == np.uint8


GREY = " ".join(["7"] * 2304)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", "not a readable csv"),
        ("emotion,pixels\n3,7\n", "no column 'Usage'"),
        (f"emotion,pixels,Usage\n3,{GREY},Training,7\n", "more cells than the header"),
        (f"emotion,pixels,Usage\n3,{GREY}\n", "picture 0: unknown Usage ''"),
        (f"emotion,pixels,Usage\n3,{GREY},training\n", "unknown Usage 'training'"),
        (f"emotion,pixels,Usage\n-1,{GREY},Training\n", "'Training_0' has the emotion '-1'"),
        (f"emotion,pixels,Usage\n7,{GREY},Training\n", "has the emotion '7'"),
        (f"emotion,pixels,Usage\n0.5,{GREY},Training\n", "has the emotion '0.5'"),
        (f"emotion,pixels,Usage\n,{GREY},Training\n", "has the emotion ''"),
        (f"emotion,pixels,Usage\n3,{GREY} 7,Training\n", "'Training_0' is not 48 x 48"),
        (f"emotion,pixels,Usage\n3,{GREY[:-1]}256,Training\n", "is not 48 x 48"),
        (f"emotion,pixels,Usage\n3,{GREY[:-1]}-7,Training\n", "is not 48 x 48"),
        ("emotion,pixels,Usage\n3,,Training\n", "is not 48 x 48"),
        ('emotion,pixels,Usage\n3,"7 7', "not a readable csv"),
    ],
)
def test_damaged_csv(tmp_path, content, error):
    (tmp_path / "fer2013.csv").write_text(content)
    with pytest.raises(BadCorpus, match=error) as caught:
        import_fer2013(tmp_path, tmp_path / "c", partial=True)
    assert "fer2013.csv" in str(caught.value)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"train_offsets": None}, "train_offsets"),
        ({}, "not an .npz of packed pictures"),
        (None, "not an .npz of packed pictures"),
    ],
)
def test_damaged_packs(tmp_path, change, error):
    sound = {
        "train_jpeg": np.zeros(9, np.uint8),
        "train_offsets": np.array([0, 9]),
        "train_labels": np.array([3]),
        "train_ids": np.array(["a"]),
    }
    if change is None:
        (tmp_path / "x.npz").write_bytes(b"PK no zip")
    else:
        np.savez(tmp_path / "x.npz", **{k: v for k, v in {**sound, **change}.items() if v is not None})
    with pytest.raises(BadCorpus, match=error):
        import_fer2013(tmp_path, tmp_path / "c", partial=True)


def test_a_second_import_is_the_same_corpus_and_the_release_may_lie_deeper(tmp_path):
    (tmp_path / "r" / "fer2013").mkdir(parents=True)
    pixels = release(tmp_path / "r" / "fer2013")
    for _ in range(2):
        corpus = import_fer2013(tmp_path / "r", tmp_path / "c", partial=True)
        assert [p.name for p in corpus.store_path("faces").glob("shard-*")] == ["shard-00000.safetensors"]
    (tmp_path / "without.txt").write_text("Training_1\n")
    again = import_fer2013(tmp_path / "r", tmp_path / "c", partial=True, without=tmp_path / "without.txt")
    store = FeatureStore(again.store_path("faces"))
    assert sorted(store.ids) == sorted(again.table["id"])
    assert (store["Training_0"].values[0, :, :, 0] == pixels[0]).all()


def test_a_list_that_is_not_there(tmp_path):
    release(tmp_path)
    with pytest.raises(MissingFile, match="without"):
        import_fer2013(tmp_path, tmp_path / "c", partial=True, without=tmp_path / "nothing.txt")


def test_classes_and_sizes_of_packed_pictures_are_checked(shared_data, tmp_path):
    with np.load(shared_data / "fer2013" / "fer2013_dev.npz") as pack:
        end = pack["valid_offsets"][1]
        sound = {
            "valid_jpeg": pack["valid_jpeg"][:end],
            "valid_offsets": np.array([0, end]),
            "valid_ids": pack["valid_ids"][:1],
        }
    for label in (-1, 7, 0.5):
        np.savez(tmp_path / "x.npz", **sound, valid_labels=np.array([label]))
        with pytest.raises(BadCorpus, match=f"has the emotion '{label}'"):
            import_fer2013(tmp_path, tmp_path / "c", partial=True)
