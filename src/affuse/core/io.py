"""Reading and writing files: written under a temporary name and renamed, so that no file is left half-written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affuse.core.errors import BadCorpus, BadRun, MissingFile, StorageError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

ASIDE = ".aside-"  # how the names of unfinished files and folders begin


def cache_dir() -> Path:
    """Folder for converted weights: $AFFUSE_CACHE, else ~/.cache/affuse; made on first use."""
    path = Path(os.environ.get("AFFUSE_CACHE") or Path.home() / ".cache" / "affuse")
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def atomic(path: Path | str, mode: int = 0o666) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, renamed to it on success and removed on failure.

    `mode`: the permissions that the umask leaves. Raises StorageError when the disk is full or the folder cannot be
    written.
    """
    path = Path(path)
    tmp: Path | None = None
    try:
        with _refused(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=ASIDE, suffix=path.suffix, dir=path.parent)
            os.close(handle)
            tmp = Path(name)
            yield tmp
            tmp.chmod(mode & ~_umask())  # at the end, as safetensors creates the file again
            os.replace(tmp, path)
    finally:
        if tmp is not None:
            tmp.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which takes its place on success and is removed on failure.

    Raises StorageError as `atomic` does.
    """
    with _refused(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tmp = Path(tempfile.mkdtemp(prefix=ASIDE, dir=path.parent))
        old = tmp.with_name(f"{tmp.name}-old")
        try:
            yield tmp
            tmp.chmod(0o777 & ~_umask())
            if path.is_dir():
                os.replace(path, old)  # rather than deleted, which might be interrupted half-way
            os.replace(tmp, path)
        finally:
            for folder in (tmp, old):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """What the disk refuses, as a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(f"no space left to write {path}", "free some space and run again") from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
            raise StorageError(f"cannot write {path}: {error.strerror}", "choose another output folder") from error
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def exclusive(folder: Path, why: str) -> Iterator[None]:
    """Create `folder` and lock it for this process; StorageError says `why` it is in use (no lock on Windows)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror}", "choose another output folder") from error
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise StorageError(f"{folder} is in use: {why}", "wait for it, or stop it") from error
    finally:
        os.close(handle)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic(path) as tmp:
        tmp.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Parsed JSON; raises MissingFile or BadRun, which name the file."""
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"no file {path}", "check the path; an interrupted command can be run again")
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except ValueError as error:
        raise BadRun(f"{path} is not valid JSON: {error}", "delete it and run the command again") from error


def append_jsonl(path: Path, row: dict[str, Any]) -> None:
    """Append one JSON line (a single write, so that a crash leaves whole lines)."""
    with path.open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All complete lines of a JSON-lines file; [] for a missing file; an incomplete last line is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def write_table(path: Path | str, table: pd.DataFrame) -> None:
    """Write a data frame as Parquet, atomically."""
    with atomic(path) as tmp:
        table.to_parquet(tmp, index=False)


def read_table(path: Path | str) -> pd.DataFrame:
    """Read a Parquet table; raises MissingFile or BadCorpus, which name the file."""
    import pandas as pd

    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"no table {path}", "import the corpus first: affuse import ...")
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise BadCorpus(f"{path} is not a readable Parquet table: {error}", "import the corpus again") from error


def write_tensors(path: Path | str, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write named tensors as safetensors, atomically."""
    from safetensors.torch import save_file

    with atomic(path) as tmp:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, tmp, metadata)


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """Read a safetensors file; raises MissingFile or BadRun, which name the file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise MissingFile(f"no weights at {path}", "the run is incomplete: train it again, it resumes")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise BadRun(f"{path} is damaged: {error}", "train the run again") from error


def digest(value: Any) -> str:
    """Short stable hash (16 hex digits) of a JSON-like value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: Path | str) -> str:
    """SHA-256 of a file, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
