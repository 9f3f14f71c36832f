"""Word vectors: the file's own numbers, Penn's words, unknown ones invalid, damage named, a fast second start."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from affuse.core.errors import AffuseError, BadConfig, BadFeatures, MissingDependency
from affuse.core.io import file_sha256
from affuse.corpora.extraction.extract import extract
from affuse.corpora.reading.release import mend, read_csv
from affuse.features import glove
from affuse.features.extractor import make_extractor
from affuse.features.glove import GloVe, WordVectors, tokenise
from affuse.media.clip import Clip
from affuse.stores.collate import collate

WORDS = {
    "the": (0.1, 0.2),
    ". . .": (1, 2),
    "cat": (-1e-3, 4),
    "été": (5, 6),
    "nan": (1, 2),
    "1": (3, 4),
    "n't": (7, 8),
    "!": (0, 0),
}
TEXT = "".join(f"{w} {a} {b}\n" for w, (a, b) in WORDS.items()).encode()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AFFUSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def saved(tmp_path: Path, data: bytes, name: str = "v.txt") -> Path:
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


def zipped(**members: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.txt", data)
    return held.getvalue()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I don't, Mr. X.", "i do n't , mr. x ."),
        (
            "She CAN'T; I'm, you've, he'd, we'll, they're Ross's",
            "she ca n't ; i 'm , you 've , he 'd , we 'll , they 're ross 's",
        ),
        (
            "shouldn't've cannot gonna wanna gotta gimme lemme",
            "should n't 've can not gon na wan na got ta gim me lem me",
        ),
        ("’Tis ’cause “it’s” o’clock, ma’am…", "'t is 'cause \" it 's \" o'clock , ma'am ..."),
        (
            "Oh—I paid 1,000.50 in the U.S. for good-natured girls' toys?!",
            "oh -- i paid 1,000.50 in the u.s. for good-natured girls ' toys ? !",
        ),
        ("cannots wannabe étés naïve", "cannots wannabe étés naïve"),
        ("  \n", ""),
    ],
)
def test_words_split_as_in_the_penn_treebank(text: str, words: str) -> None:
    assert tokenise(text) == words.split()
    assert [w.lower() for w in tokenise(text, lower=False)] == words.split()
    assert tokenise(words) == words.split()


@pytest.mark.parametrize(
    "data", [TEXT, TEXT.replace(b"\n", b" \r\n"), b"8 2\n" + TEXT, b"8 2 \n" + TEXT.replace(b"\n", b" \n"), TEXT[:-1]]
)
@pytest.mark.parametrize("kind", ["txt", "gz", "zip"])
def test_every_layout_gives_the_files_own_numbers(tmp_path: Path, data: bytes, kind: str) -> None:
    packed = {"txt": data, "gz": gzip.compress(data), "zip": zipped(v=data)}[kind]
    extractor = GloVe(weights=saved(tmp_path, packed))
    assert extractor.spec.shape == (2,)
    assert len(extractor.vectors) == len(WORDS)
    rows = extractor.vectors.rows([*WORDS, "The", "", "zebra"])
    np.testing.assert_array_equal(extractor.vectors.values[rows[:-3]], np.array(list(WORDS.values()), np.float32))
    assert rows[-3:].tolist() == [-1, -1, -1]


def test_one_step_per_word_or_their_mean(tmp_path: Path) -> None:
    path = saved(tmp_path, TEXT)
    each, mean = GloVe(weights=path, pool="none"), GloVe(weights=path)
    steps = each(Clip(text="The cat meows!"))
    assert steps.valid.tolist() == [True, True, False, True]
    np.testing.assert_allclose(steps.values[[0, 1, 3]], [WORDS["the"], WORDS["cat"], WORDS["!"]], rtol=1e-6)
    np.testing.assert_allclose(
        mean(Clip(text="The cat meows!")).values, steps.values[steps.valid].mean(0, keepdims=True)
    )
    assert each(Clip(text="the cat")).valid is None
    assert GloVe(weights=path, lower=False, pool="none")(Clip(text="The cat")).valid.tolist() == [False, True]


def test_absence_is_a_mask(tmp_path: Path) -> None:
    path = saved(tmp_path, TEXT)
    for extractor in (GloVe(weights=path), GloVe(weights=path, pool="none")):
        for words in (None, "", "  ", "zebra"):
            feature = extractor(Clip(text=words))
            assert feature.values.shape[1:] == (2,) and feature.coverage == 0
            assert not collate([extractor.spec], {"glove": [feature]}).present.any()
    assert GloVe(weights=path, pool="none")(Clip(text="zebra gnu")).valid.tolist() == [False, False]


def test_second_start_maps_what_the_first_converted(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, TEXT)
    first = GloVe(weights=path)
    assert first.weights_hash == file_sha256(path)
    (kept,) = cache.rglob("*.safetensors")
    assert first.weights_hash in kept.name
    np.testing.assert_array_equal(load_file(kept)["values"], first.vectors.values)
    monkeypatch.setattr(glove, "convert", lambda *_: pytest.fail("converted again"))
    again = GloVe(weights=saved(tmp_path, TEXT, "elsewhere.txt"), sha256=first.weights_hash.upper()).vectors
    base = again.values
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)
    assert [again[i] for i in range(len(again))] == sorted(w.encode() for w in WORDS)


def test_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3000, 5)).astype(np.float32)
    data = "".join(
        f"w{(i * 7) % 3000} {' '.join(map(repr, map(float, row)))}\n" for i, row in enumerate(values)
    ).encode()
    monkeypatch.setattr(glove, "BLOCK", 4096)
    found = GloVe(weights=saved(tmp_path, data)).vectors
    np.testing.assert_array_equal(found.values[found.rows([f"w{(i * 7) % 3000}" for i in range(3000)])], values)


def test_of_a_few_repeated_words_the_first_stands(tmp_path: Path) -> None:
    data = b"".join(b"w%d 1 2\n" % i for i in range(1999)) + b"w7 3 4\n"
    found = GloVe(weights=saved(tmp_path, data)).vectors
    assert len(found) == 1999
    assert found.values[found.rows(["w7"])].tolist() == [[1, 2]]


BROKEN = {
    "empty": (b"", "does not begin"),
    "blank": (b"\n\n", "does not begin"),
    "binary": (bytes(range(256)) * 8, "does not begin"),
    "word2vec's binary": (b"2 2\nthe " + np.float32([1, 2]).tobytes() + b"cat ", "does not begin"),
    "tabs": (b"the\t1\t2\n", "does not begin"),
    "short line": (TEXT + b"dog 1\n", "not 2 numbers: 'dog 1'"),
    "long line": (TEXT + b"dog 1 2 3\n", "not 2 numbers: 'dog 1 2 3'"),
    "cut off": (TEXT[:-3], "not 2 numbers"),
    "not a number": (TEXT + b"dog 1 x\n", "'x'"),
    "no number": (TEXT + b"dog 1 \n", "invalid value ''"),
    "nan": (TEXT + b"dog nan 1\n", "'dog' has numbers that are not finite"),
    "nan in a word with spaces": (TEXT + b"at home nan 1\n", "'at home' has numbers"),
    "too large": (TEXT + b"dog 1 1e400\n", "'dog' has numbers"),
    "joined": (TEXT + TEXT, "8 of 16 words come twice"),
    "too few words": (b"9 2\n" + TEXT, "promises 9 words and has 8"),
    "wrong dimension": (b"8 3\n" + TEXT, "does not begin"),
    "only a head": (b"8 2\n", "does not begin"),
    "truncated gz": (gzip.compress(TEXT)[:-20], "cannot be unpacked"),
    "damaged gz": (gzip.compress(os.urandom(64).hex().encode() + TEXT)[:-8] + bytes(8), "cannot be unpacked"),
    "truncated zip": (zipped(v=TEXT)[:-30], "cannot be unpacked"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_damaged_files_are_named(tmp_path: Path, cache: Path, case: str) -> None:
    data, message = BROKEN[case]
    path = saved(tmp_path, data)
    with pytest.raises(BadFeatures, match=message) as caught:
        _ = GloVe(weights=path).weights_hash
    assert str(path) in str(caught.value) and caught.value.remedy
    assert not list(cache.rglob("*.safetensors"))


def test_members_of_an_archive(tmp_path: Path) -> None:
    path = saved(tmp_path, zipped(a=TEXT, b=TEXT + b"dog 1 2\n"))
    assert [len(GloVe(weights=path, member=f"{m}.txt").vectors) for m in "ab"] == [8, 9]
    for member in ("", "c.txt"):
        with pytest.raises(BadConfig, match="2 files") as caught:
            _ = GloVe(weights=path, member=member).spec
        assert "a.txt, b.txt" in caught.value.remedy
    with pytest.raises(BadConfig, match="no zip file"):
        _ = GloVe(weights=saved(tmp_path, TEXT), member="a.txt").spec


def test_absent_wrong_and_spoilt_files(tmp_path: Path, cache: Path) -> None:
    for path in (None, tmp_path / "nowhere.txt"):
        with pytest.raises(MissingDependency, match=r"GloVe.*GB.*PDDL") as missing:
            _ = GloVe(weights=path).spec
        assert "weights=FILE" in missing.value.remedy
    path = saved(tmp_path, TEXT)
    with pytest.raises(BadFeatures, match="sha256 is"):
        _ = GloVe(weights=path, sha256="0" * 64).weights_hash
    _ = GloVe(weights=path).weights_hash
    (kept,) = cache.rglob("*.safetensors")
    for length in (0, 100, 530, kept.stat().st_size - 1):
        os.truncate(kept, length)
        with pytest.raises(BadFeatures, match="are damaged") as spoilt:
            WordVectors(kept)
        assert "delete" in spoilt.value.remedy


def test_damage_stops_an_extraction_once(tmp_path: Path, vector_corpus) -> None:
    path = saved(tmp_path, TEXT + b"words 1 2\n7 3 5\n")
    done = extract(vector_corpus, "glove", {"weights": path})
    assert not done.failures and done.added == 48
    np.testing.assert_array_equal(done.store["u007"].values, [[2, 3.5]])
    assert "glove" in done.store.card["extractor"] and str(tmp_path) not in str(done.store.card["parameters"])
    with pytest.raises(AffuseError, match="not 2 numbers"):
        extract(vector_corpus, "glove", {"weights": saved(tmp_path, TEXT + b"dog 1\n", "bad.txt")})
    assert make_extractor("glove", {"weights": str(path), "pool": "none"}).spec.shape == (2,)


def test_real_vectors_on_real_words(tmp_path: Path, shared_data: Path) -> None:
    subset = np.load(shared_data / "lexica" / "glove300_mustard_subset.npz")
    words, vectors = subset["words"].tolist(), subset["vectors"].astype(np.float32)
    path = saved(
        tmp_path,
        "".join(f"{w} {' '.join(map(str, v.tolist()))}\n" for w, v in zip(words, vectors, strict=True)).encode(),
    )
    extractor = GloVe(weights=path, pool="none")
    assert extractor.spec.shape == (300,)
    np.testing.assert_array_equal(extractor.vectors.values[extractor.vectors.rows(words)], vectors)
    table = read_csv(shared_data / "meld_text" / "MELD" / "dev_sent_emo.csv", "Utterance")
    features = [extractor(Clip(text=mend(t))) for t in table["Utterance"]]
    lengths = np.array([len(f.values) for f in features])
    known = np.array([f.coverage for f in features]) @ lengths / lengths.sum()
    assert len(features) == 1109 and 0.6 < known < 0.9  # 1,970 words of another sitcom corpus, without full stops
