"""Extraction in processes of this machine: a decoder that crashes costs one utterance, not the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from affuse.core.errors import BadMedia
from affuse.core.processes import CRASH, spread
from affuse.corpora.extraction.shards import Failures, Shard, fill, outcomes
from affuse.features.extractor import make_extractor


def run_in_processes(
    name: str, parameters: dict[str, Any], path: Path, shards: Sequence[Shard], workers: int
) -> Iterator[tuple[Shard, Failures]]:
    """(shard, failures) as `workers` processes finish them."""
    for shard, failed in spread(_work, shards, workers, _start_worker, (name, parameters, path)):
        yield shard, _one_by_one(shard, name, parameters, path) if failed is None else failed


def _one_by_one(shard: Shard, name: str, parameters: dict[str, Any], path: Path) -> Failures:
    """A shard in which a process died: finds the utterance that killed it, and writes the others."""
    single = [replace(shard, clips=(pair,)) for pair in shard.clips]
    arguments = (name, parameters, path)
    dead = {s.clips[0][0] for s, ok in spread(_try, single, 1, _start_worker, arguments) if ok is None}
    rest = replace(shard, clips=tuple(c for c in shard.clips if c[0] not in dead))
    failed = next(spread(_work, [rest], 1, _start_worker, arguments))[1] if rest.clips else {}
    crash = BadMedia(CRASH, "try the clip by itself; convert it, e.g. with ffmpeg").to_dict()
    if failed is None:  # each alone went well, all together did not
        failed = dict.fromkeys((i for i, _ in rest.clips), crash)
    return failed | dict.fromkeys(dead, crash)


_worker: tuple[Any, Path] | None = None


def _start_worker(name: str, parameters: dict[str, Any], path: Path) -> None:
    global _worker
    from affuse.core.seed import set_threads

    set_threads(1)
    _worker = make_extractor(name, parameters), path


def _work(shard: Shard) -> Failures:
    assert _worker is not None
    return fill(*_worker, shard)


def _try(shard: Shard) -> bool:
    """Whether the process survives this utterance; nothing is kept."""
    assert _worker is not None
    return bool(dict(outcomes(_worker[0], shard.clips)))
