"""A user's .npz as arrays: ids, values and offsets, or one array per utterance; what else was saved is named."""

from __future__ import annotations

import zipfile
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from affuse.core.errors import BadFeatures, MissingFile

SAVE = "save it with numpy.savez(FILE, ids=ids, values=values) and, for sequences, offsets=offsets"
JOIN = "concatenate them: values=numpy.concatenate(arrays), offsets=numpy.cumsum([0, *map(len, arrays)])"


class Arrays(NamedTuple):
    """ids [n]; values [n, D], or [total, D] with offsets [n + 1]."""

    ids: list[str]
    values: np.ndarray
    offsets: np.ndarray | None = None


def read_npz(path: Path, known: Container[str] = ()) -> Arrays:
    """The arrays of an .npz with the keys ids, values (and offsets), or with a key for each of the `known` utterances.

    Raises MissingFile, or BadFeatures for other files and for arrays of Python objects, which only a pickle holds.
    """
    if not path.is_file():
        raise MissingFile(f"no file {path}", "give an .npz with keys ids, values and, for sequences, offsets")
    content = _content(path)
    if "ids" not in content and "values" not in content and any(key in known for key in content):
        return _joined(path, content)
    for key in ("ids", "values"):
        if not isinstance(content.get(key), np.ndarray):  # members that are no arrays come as bytes
            raise BadFeatures(
                f"{path} has no key '{key}'; its keys: {', '.join(list(content)[:8]) or 'none'}",
                "keys: ids, values and, for sequences, offsets; or one per utterance id",
            )
    ids = content["ids"]
    if ids.ndim != 1 or not len(ids):
        raise BadFeatures(f"{path}: ids have shape {list(ids.shape)}", "give one id per utterance")
    names = [i.decode("utf-8", "replace") if isinstance(i, bytes) else str(i) for i in ids.tolist()]
    return Arrays(names, content["values"], content.get("offsets"))


def _content(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        if file.read(6) == b"\x93NUMPY":
            raise BadFeatures(
                f"{path} is a single array (.npy), which says nothing of its utterances",
                f"give an .npz with ids and values: {SAVE}",
            )
    if not zipfile.is_zipfile(path):
        raise BadFeatures(f"{path} is not an .npz file", SAVE)
    content: dict[str, Any] = {}
    key = ""
    try:
        with np.load(path) as arrays:
            for key in arrays.files:
                content[key] = arrays[key]
    except Exception as error:  # a damaged archive can raise anything
        if "allow_pickle" in str(error):
            remedy = (
                "save them as text: ids=ids.astype(str)"
                if key == "ids"
                else f"save numbers: {key}.astype(numpy.float32); arrays of several lengths: {JOIN}"
            )
            raise BadFeatures(f"{path}: '{key}' holds Python objects", remedy) from error
        raise BadFeatures(f"{path} is not an .npz of plain arrays: {error}", SAVE) from error
    return content


def _joined(path: Path, content: Mapping[str, Any]) -> Arrays:
    """One array per utterance: vectors [D] of one length, or sequences [T, D] one after the other."""
    arrays = {key: value for key, value in content.items() if isinstance(value, np.ndarray)}
    shapes = {value.shape if value.ndim == 1 else value.shape[1:] for value in arrays.values()}
    dimensions = {value.ndim for value in arrays.values()}
    if len(arrays) < len(content) or len(dimensions) > 1 or len(shapes) > 1 or shapes == {()}:
        first = next(iter(arrays), "")
        others = (f"'{k}' {list(v.shape)}" for k, v in arrays.items() if v.shape != arrays[first].shape)
        odd = next(others, "no array")
        shape = list(arrays[first].shape) if first else []
        raise BadFeatures(
            f"{path}: the arrays of its utterances do not fit together: '{first}' {shape}, {odd}",
            "give every utterance a vector [D], or every one a sequence [T, D]",
        )
    values = list(arrays.values())
    if values[0].ndim == 1:
        return Arrays(list(arrays), np.stack(values))
    return Arrays(list(arrays), np.concatenate(values), np.cumsum([0, *map(len, values)]))
