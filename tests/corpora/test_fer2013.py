from __future__ import annotations

import numpy as np
import pytest

from affuse.core.errors import BadCorpus
from affuse.corpora.fer2013 import decode_jpeg, import_fer2013
from affuse.features.store import FeatureStore


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
