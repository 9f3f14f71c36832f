"""Work for processes that die: importable by name, so that a spawned process finds it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from affuse.core.errors import MissingFile
from affuse.corpora import preprocess
from affuse.corpora.clip_files import ClipFiles
from affuse.corpora.extraction.in_processes import _start_worker, _try, _work
from affuse.corpora.extraction.shards import Failures, Shard


def begin(*_: Any) -> None:
    pass


def double(n: int) -> int:
    if n < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * n


def refuse(*_: Any) -> None:
    raise MissingFile("no model here", "train one")


def run_out(*_: Any) -> None:
    raise MemoryError("40 GB")


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def begin_extractor(name: str, parameters: dict[str, Any], path: Path) -> None:
    _start_worker(name, parameters, path)


def work(shard: Shard) -> Failures:
    _die_on(shard)
    return _work(shard)


def attempt(shard: Shard) -> bool:
    _die_on(shard)
    return _try(shard)


def _die_on(shard: Shard) -> None:
    if any(i == "u003" for i, _ in shard.clips):
        os.kill(os.getpid(), signal.SIGSEGV)


def sleep(seconds: int) -> int:
    """Takes its time."""
    time.sleep(seconds)
    return seconds


def begin_files(files: ClipFiles) -> None:
    preprocess._start(files)


def write(item: preprocess.Item) -> Any:
    if item.id == "u003":
        os.kill(os.getpid(), signal.SIGSEGV)
    return preprocess._work(item)
