"""A restricted unpickler for files of others: it reads arrays and plain containers, and nothing else.

Community feature files and the `mtcnn` wheel's weights are pickles, and a pickle is a program. Here every global that a
file may name is mapped to a small function of this module or to a plain container, so that no code of another module
is called with arguments from the file. Numpy's own `__setstate__` does not check its input (a forged dtype or a short
object list reads foreign memory), so the checks are made here.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import math
import pickle
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, ClassVar, NoReturn

import numpy as np

from affuse.core.errors import AffuseError, BadFeatures, MissingDependency, MissingFile

# booleans, integers, floats, complex, byte strings, strings, and object arrays whose elements were built here
_DTYPE = re.compile(r"[<>|=]?(\?|[biufcSUO]\d*)")


def load(path: str | Path, sha256: str | None = None) -> Any:
    """The content of a pickle or joblib file (plain, zlib, gzip, bz2, xz or lz4).

    Returns numpy arrays (native byte order) and scalars, dict, list, tuple, set, str, bytes, numbers, bool and None.
    With `sha256` (hexadecimal) the file is hashed before it is read. Raises MissingFile, BadFeatures (wrong hash,
    damaged file, or any other object, named module.name), MissingDependency (lz4).
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"no such file: {path}", "give the path of a pickle or joblib file")
    with path.open("rb") as file:
        if sha256 is not None:
            _check_hash(file, path, sha256)
        try:
            return ArrayUnpickler(_decompressed(file)).load()
        except AffuseError as error:
            raise type(error)(f"{path}: {error.message}", error.remedy) from error
        except Exception as error:  # a damaged pickle can raise anything
            raise BadFeatures(
                f"{path}: damaged or not a pickle ({type(error).__name__}: {error})",
                "download the file again and compare its size or hash with the source's",
            ) from error


def _check_hash(file: IO[bytes], path: Path, sha256: str) -> None:
    found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    file.seek(0)
    if found != sha256.lower():
        raise BadFeatures(
            f"{path}: sha256 is {found}, expected {sha256}",
            "the file was changed or belongs to another version; install or download the expected one",
        )


def _decompressed(file: IO[bytes]) -> IO[bytes]:
    """The decompressed file; joblib's compressors are recognised by their first bytes."""
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(file)  # type: ignore[return-value]
    if magic.startswith(b"BZ"):
        return bz2.open(file)
    if magic.startswith((b"\xfd7zXZ", b"\x5d\x00")):
        return lzma.open(file)
    if magic.startswith(b'\x04"M\x18'):
        return _lz4(file)
    if magic.startswith(b"x"):
        return io.BytesIO(zlib.decompress(file.read()))
    return file


def _lz4(file: IO[bytes]) -> IO[bytes]:
    try:
        import lz4.frame
    except ImportError as error:
        raise MissingDependency("the file is compressed with lz4, which is not installed", "pip install lz4") from error
    stream: IO[bytes] = lz4.frame.open(file)
    return stream


def refuse(what: str, why: str) -> NoReturn:
    raise BadFeatures(
        f"refused to build {what}: {why}",
        "affuse reads arrays and plain containers only; convert the file to .npz or .safetensors where you trust it",
    )


class _Blank:
    """In place of numpy's array class and joblib's wrapper: an empty array that BUILD fills in place."""

    def __new__(cls, *_: object) -> Any:
        return np.ndarray(0, "b")


def _dtype(code: str, align: bool = False, copy: bool = True) -> np.dtype:
    if not isinstance(code, str) or not _DTYPE.fullmatch(code):
        refuse(f"numpy.dtype({code!r})", "only plain numeric, string and object element types are read")
    # a copy, because BUILD changes the byte order in place and np.dtype("f4") is shared by the whole process
    return np.dtype(code, copy=True)


def _scalar(dtype: np.dtype, data: bytes | str) -> Any:
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        refuse("numpy scalar", "it holds a Python object")
    return np.frombuffer(_raw(data), dtype, count=1)[0]


def _frombuffer(data: bytes | bytearray, dtype: np.dtype, shape: tuple[int, ...], order: str, *_: object) -> np.ndarray:
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        refuse("numpy array", "it maps Python objects onto raw bytes")
    array = np.frombuffer(bytearray(data), dtype).astype(dtype.newbyteorder("="), copy=False)
    return array.reshape(shape, order="F" if order == "F" else "C")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Bytes, in the form in which protocol 2 writes them."""
    if encoding not in ("latin1", "latin-1"):
        refuse(f"_codecs.encode({encoding!r})", "only latin1 is used for bytes")
    return text.encode("latin1")


def _raw(data: bytes | str) -> bytes:
    """Array bytes; Python 2 pickled them as str, which arrives decoded as latin1."""
    return data.encode("latin1") if isinstance(data, str) else bytes(data)


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Blank,
    ("numpy", "memmap"): _Blank,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Blank,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _Blank,
    ("collections", "OrderedDict"): dict,
    ("_codecs", "encode"): _encode,
    **{("builtins", t.__name__): t for t in (dict, list, tuple, set, frozenset, str, bytes, bytearray)},
    **{("builtins", t.__name__): t for t in (bool, int, float, complex)},
}
_RENAMED = {"__builtin__": "builtins", "numpy._core.multiarray": "numpy.core.multiarray"}
_RENAMED |= {"numpy._core.numeric": "numpy.core.numeric"}


class ArrayUnpickler(pickle._Unpickler):
    """Python's own unpickler (in pure Python: joblib puts array bytes between opcodes) with a fixed list of globals."""

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")  # type: ignore[arg-type]
        self.file = file

    def find_class(self, module: str, name: str) -> Any:
        part = _ALLOWED.get((_RENAMED.get(module, module), name))
        if part is None:
            refuse(f"{module}.{name}", "it is neither an array nor a plain container and could run code")
        return part

    def get_extension(self, code: int) -> None:
        refuse(f"extension code {code}", "it names an object outside the file")

    def load_build(self) -> None:
        """BUILD: fills arrays and dtypes only; the default would set attributes of anything."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, np.dtype):
            _set_dtype(target, state)
        elif isinstance(target, np.ndarray) and isinstance(state, dict):
            self._read_inline(target, state)
        elif isinstance(target, np.ndarray):
            _set_array(target, *state[-4:])
        else:
            refuse(f"the state of a {type(target).__name__}", "only arrays have one")

    dispatch[pickle.BUILD[0]] = load_build

    def _read_inline(self, target: np.ndarray, wrapper: dict[str, Any]) -> None:
        """joblib: [padding length, padding,] raw bytes, or a whole pickle where the elements are objects."""
        shape, dtype = wrapper["shape"], wrapper["dtype"]
        if dtype.hasobject:
            inner = ArrayUnpickler(self.file).load()
            return _set_array(target, inner.shape, inner.dtype, False, list(inner.flat))
        if wrapper.get("numpy_array_alignment_bytes") is not None:
            self.file.read(self.file.read(1)[0])
        size = math.prod(shape) * dtype.itemsize
        data = self.file.read(size)
        _set_array(target, shape, dtype, wrapper["order"] == "F", data)


def _set_dtype(target: np.dtype, state: tuple[Any, ...]) -> None:
    """Set the byte order, the only state of a plain element type that is read; the rest is recomputed."""
    if len(state) < 8 or any(part is not None for part in state[2:5]):
        refuse(f"numpy.dtype with state {state!r}"[:200], "structured element types are not read")
    if state[1] == ">" and target.itemsize > 1:
        target.__setstate__(target.newbyteorder(">").__reduce__()[2])  # type: ignore[attr-defined]


def _set_array(target: np.ndarray, shape: tuple[int, ...], dtype: np.dtype, fortran: bool, data: Any) -> None:
    """Fill `target` in place, so that every later reference to it in the file has the content."""
    if not isinstance(dtype, np.dtype) or not all(type(n) is int and n >= 0 for n in shape):
        refuse(f"an array of shape {shape!r}"[:200], "its shape or element type is forged")
    count = math.prod(shape)
    if dtype.hasobject:
        fits = isinstance(data, list) and len(data) == count
    else:
        data = _raw(data)
        fits = len(data) == count * dtype.itemsize
    if fits and dtype.kind == "U" and (np.frombuffer(data, f"{dtype.byteorder}u4") > 0x10FFFF).any():
        refuse("an array of text", "it holds code points that do not exist")
    if not fits:
        message = f"an array of shape {shape} and type {dtype} has not its data"
        raise BadFeatures(message, "the file is cut off or forged")
    target.__setstate__((1, tuple(shape), dtype, bool(fortran), data))  # type: ignore[arg-type]
