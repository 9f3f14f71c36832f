"""Foreign pickles: everything numeric comes through unchanged, nothing else comes through at all."""

from __future__ import annotations

import bz2
import collections
import contextlib
import gzip
import hashlib
import lzma
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from affuse.core import pickles
from affuse.core.errors import BadFeatures, MissingFile

joblib = pytest.importorskip("joblib")

CONTENT: dict[str, Any] = {
    "f": np.arange(12, dtype=np.float32).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big": np.arange(5, dtype=">i4"),
    "bool": np.array([True, False]),
    "words": np.array(["a", "bcd"]),
    "bytes": np.array([b"x", b"yz"]),
    "empty": np.zeros((0, 7)),
    "scalar": np.float64(2.5),
    "zero-d": np.array(3),
    "objects": np.array([None, "a", [1, 2]], dtype=object),
    "plain": [1, 2.5, True, None, "é", b"\x00\xff", (1, (2,)), {3}, frozenset({4}), 10**30, 1j, bytearray(b"b")],
}


def same(a: Any, b: Any) -> bool:
    if isinstance(b, np.ndarray):
        native = b.dtype.newbyteorder("=")  # numpy's own unpickling turns foreign byte orders, too
        return type(a) is np.ndarray and a.dtype == native and a.shape == b.shape and bool((a == b).all())
    if isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in b)
    return type(a) is type(b) and a == b


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_pickles_come_through_at_every_protocol(tmp_path: Path, protocol: int) -> None:
    path = written(tmp_path / "x.pkl", pickle.dumps(CONTENT, protocol))
    assert same(pickles.load(path), CONTENT)


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3), ("lz4", 3)])
def test_joblib_files_come_through_with_every_compressor(tmp_path: Path, compress: Any) -> None:
    joblib.dump(CONTENT, tmp_path / "x.joblib", compress=compress)
    assert same(pickles.load(tmp_path / "x.joblib"), CONTENT)


@pytest.mark.parametrize("squeeze", [zlib.compress, gzip.compress, bz2.compress, lzma.compress])
def test_compressed_pickles(tmp_path: Path, squeeze: Callable[[bytes], bytes]) -> None:
    assert same(pickles.load(written(tmp_path / "x", squeeze(pickle.dumps(CONTENT)))), CONTENT)


def test_pickles_of_numpy_1_and_python_2(tmp_path: Path) -> None:
    old = pickle.dumps(CONTENT["f"], 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in old
    assert same(pickles.load(written(tmp_path / "1", old)), CONTENT["f"])
    raw = np.array([1.5, -2.0]).tobytes()
    text = raw.decode("latin1").encode("unicode_escape").replace(b"'", b"\\x27")
    python2 = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n"
        b"(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'" + text + b"'\ntb."
    )
    assert same(pickles.load(written(tmp_path / "2", python2)), np.array([1.5, -2.0]))


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(st.sampled_from(["<f4", ">f8", "<i2", "|u1", "<c8", "<U3", "|S4", "|b1"]), hnp.array_shapes(min_side=0))
)
def test_any_array_survives(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    folder = tmp_path_factory.mktemp("a")
    plain = pickles.load(written(folder / "p", pickle.dumps(array, 4)))
    joblib.dump(array, folder / "j")
    for found in (plain, pickles.load(folder / "j")):
        assert found.dtype == array.dtype.newbyteorder("=")
        assert found.shape == array.shape
        assert found.astype(array.dtype).tobytes() == array.tobytes()


def test_a_shared_array_stays_one_array(tmp_path: Path) -> None:
    a = np.arange(3)
    found = pickles.load(written(tmp_path / "x", pickle.dumps([a, a])))
    assert found[0] is found[1]


class Gadget:
    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call, self.arguments


class Plain:
    pass


@pytest.mark.parametrize(
    ("evil", "named"),
    [
        (Gadget(os.system, "touch {mark}"), "system"),
        (Gadget(eval, "open('{mark}', 'w')"), "builtins.eval"),
        (Gadget(exec, "open('{mark}', 'w')"), "builtins.exec"),
        (Gadget(getattr, "x", "upper"), "builtins.getattr"),
        (Gadget(open, "{mark}", "w"), "open"),
        (Gadget(np.load, "{mark}"), "numpy.load"),
        (Gadget(np.fromfile, "{mark}"), "fromfile"),
        (Gadget(np.memmap, "{mark}", "u1", "w+", 0, (8,)), ""),
        (Gadget(joblib.load, "{mark}"), "joblib"),
        (Gadget(pickle.loads, b"."), "pickle"),
        (Plain(), "Plain"),
        (collections.Counter("aab"), "collections.Counter"),
        (Path("x"), "pathlib"),
        (np.load, "numpy.load"),
    ],
)
@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: {"x": [np.zeros(2), e]}, lambda e: np.array([e, 1], object)])
@pytest.mark.parametrize("writer", ["pickle", "joblib"])
def test_nothing_else_is_built_and_no_code_runs(
    tmp_path: Path, evil: Any, named: str, wrap: Callable[[Any], Any], writer: str
) -> None:
    mark, path = tmp_path / "mark", tmp_path / "x"
    if isinstance(evil, Gadget):
        arguments = [a.format(mark=mark) if isinstance(a, str) else a for a in evil.arguments]
        evil = Gadget(evil.call, *arguments)
    if writer == "joblib":
        joblib.dump(wrap(evil), path)
    else:
        path.write_bytes(pickle.dumps(wrap(evil)))
    if named:
        with pytest.raises(BadFeatures, match=named) as caught:
            pickles.load(path)
        assert "refused" in str(caught.value)
        assert "could run code" in str(caught.value)
    else:  # a memory map is read as the empty array its name stands for: nothing is opened
        pickles.load(path)
    assert not mark.exists()


def assembled(dtype: bytes, state: bytes, shape: bytes, data: bytes) -> bytes:
    """A hand-written array pickle: what no honest writer would write."""
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n" + shape + b"cnumpy\ndtype\n"
        b"(S'" + dtype + b"'\nI0\nI1\ntR(" + state + b"tbI00\n" + data + b"tb."
    )


PLAIN_STATE = b"I3\nS'<'\nNNNI-1\nI-1\nI0\n"


@pytest.mark.parametrize(
    "forged",
    [
        assembled(b"O", PLAIN_STATE, b"(I1000\nt", b"(lI1\na"),  # fewer objects than the shape has
        assembled(b"O", PLAIN_STATE, b"(I1\nt", b"S'\\x41\\x41\\x41\\x41\\x41\\x41\\x41\\x41'\n"),  # bytes as pointers
        assembled(b"f8", PLAIN_STATE, b"(I1000\nt", b"S'abcdefgh'\n"),
        assembled(b"f8", PLAIN_STATE, b"(I-1\nt", b"S''\n"),
        assembled(b"f8", PLAIN_STATE, b"(L99999999999999999999999L\nt", b"S''\n"),
        assembled(b"O,O", PLAIN_STATE, b"(I1\nt", b"S''\n"),
        assembled(
            b"V8",
            b"I3\nS'|'\nN(S'a'\nt(dS'a'\n(cnumpy\ndtype\n(S'O'\nI0\nI1\ntRI0\ntsI8\nI1\nI0\n",
            b"(I1\nt",
            b"S''\n",
        ),
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O'\nI0\nI1\ntR"
        b"S'\\x41\\x41\\x41\\x41\\x41\\x41\\x41\\x41'\ntR.",
        b"\x80\x02\x82\x01.",  # a global by extension code
        b"Psomewhere\n.",  # a persistent id
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
        b"cbuiltins\ndict\n(dS'a'\nI1\nsb.",  # attributes for a class of ours
    ],
)
def test_forged_pickles_are_refused_and_touch_no_stray_memory(tmp_path: Path, forged: bytes) -> None:
    with pytest.raises(BadFeatures):
        pickles.load(written(tmp_path / "x", forged))


def test_byte_order_in_a_file_does_not_change_the_shared_dtype(tmp_path: Path) -> None:
    swapped = b"cnumpy\ndtype\n(S'f4'\nI0\nI0\ntR(I3\nS'>'\nNNNI-1\nI-1\nI0\ntb."
    assert pickles.load(written(tmp_path / "x", swapped)) == np.dtype(">f4")
    assert np.dtype("f4").isnative
    assert np.dtype(np.float32).isnative


@pytest.mark.parametrize("writer", ["pickle", "zlib", "lz4", "joblib"])
def test_cut_files_are_named(tmp_path: Path, writer: str) -> None:
    path = tmp_path / "cut.pkl"
    content = {"a": np.arange(2000.0), "b": "end"}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        joblib.dump(content, path, compress=0 if writer == "joblib" else (writer, 3))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadFeatures, match=r"cut\.pkl"):
        pickles.load(path)
    for keep in np.linspace(0, len(whole) - 1, 25).astype(int):
        path.write_bytes(whole[:keep])
        found: Any = None
        with contextlib.suppress(BadFeatures):
            found = pickles.load(path)
        if found is not None:  # only the compressor's own end mark was cut
            assert writer == "lz4"
            assert keep >= len(whole) - 8
            assert same(found, content)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_bytes_raise_only_our_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(pickle.dumps({"a": np.arange(6.0), "b": [1, "x"]}, data.draw(st.sampled_from([2, 4]))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadFeatures):
        pickles.load(written(tmp_path_factory.mktemp("d") / "x", bytes(content)))


def test_the_hash_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "x", pickle.dumps([1]))
    good = hashlib.sha256(path.read_bytes()).hexdigest()
    assert pickles.load(path, good) == pickles.load(path, good.upper()) == [1]
    path.write_bytes(pickle.dumps(Gadget(os.system, "exit 1")))
    with pytest.raises(BadFeatures, match="sha256"):
        pickles.load(path, good)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        pickles.load(tmp_path / "none.pkl")


def test_the_forged_array_template_is_sound(tmp_path: Path) -> None:
    honest = assembled(b"f8", PLAIN_STATE, b"(I1\nt", b"S'\\x00\\x00\\x00\\x00\\x00\\x00\\xf0?'\n")
    assert same(pickles.load(written(tmp_path / "x", honest)), np.array([1.0]))
