"""Running extractors over a corpus: resumable, in several processes, failures listed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affuse.core import io, registry
from affuse.core.errors import AffuseError, BadFeatures
from affuse.core.types import Feature
from affuse.features.store import FeatureStore, StoreWriter, store_card
from affuse.media.clip import Clip

if TYPE_CHECKING:
    from affuse.corpora.manifest import Corpus

Progress = Callable[[int, int, int], None]  # done, total, failed
Outcome = tuple[str, Feature | dict[str, str]]
CHUNK = 16


@dataclass(frozen=True)
class Extraction:
    """What one extraction did."""

    store: FeatureStore
    added: int
    failures: dict[str, dict[str, str]]


def clips_of(corpus: Corpus, ids: Sequence[str] | None = None) -> list[tuple[str, Clip]]:
    """(id, Clip) of the corpus' utterances; media paths are relative to the corpus unless absolute."""
    table = corpus.table if ids is None else corpus.table[corpus.table["id"].isin(set(ids))]

    def path(value: str) -> Path | None:
        return corpus.path / value if value else None

    return [
        (row.id, Clip(path(row.video), path(row.audio), row.text or None, row.start, None if row.end != row.end else row.end))
        for row in table.itertuples()
    ]


def make_extractor(name: str, parameters: Mapping[str, Any] | None = None) -> Any:
    """The extractor `name` with its parameters checked."""
    return registry.build("extractors", name, **registry.resolve("extractors", name, parameters or {}, name))


def extract(
    corpus: Corpus,
    name: str,
    parameters: Mapping[str, Any] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Extraction:
    """Fill the corpus' store `name`; what is there stays, what failed before is tried again.

    Raises BadFeatures when the existing store was made differently; per-utterance errors are listed, not raised.
    """
    full = registry.resolve("extractors", name, parameters or {}, name)
    extractor = registry.build("extractors", name, **full)
    path, card = corpus.store_path(name), registry.cards("extractors")[name]
    made = store_card(extractor.spec, name, card["version"], full, weights_hash=getattr(extractor, "weights_hash", ""))
    have = set(FeatureStore(path).ids) if (path / "card.json").is_file() else set()
    clips = [(i, clip) for i, clip in clips_of(corpus) if i not in have]
    failures: dict[str, dict[str, str]] = {}
    with StoreWriter(path, made) as writer:
        for done, (i, outcome) in enumerate(_outcomes(extractor, name, full, clips, workers), start=1):
            if isinstance(outcome, Feature):
                writer.add(i, outcome)
            else:
                failures[i] = outcome
            if progress is not None:
                progress(done, len(clips), len(failures))
    io.write_json(path / "failures.json", failures)
    return Extraction(FeatureStore(path), len(clips) - len(failures), failures)


def _outcomes(
    extractor: Any, name: str, parameters: Mapping[str, Any], clips: list[tuple[str, Clip]], workers: int
) -> Iterator[Outcome]:
    """(id, Feature or error) as they come, in this process or in several."""
    chunks = [clips[i : i + CHUNK] for i in range(0, len(clips), CHUNK)]
    if workers <= 1 or len(chunks) == 1:
        for chunk in chunks:
            yield from _run_chunk(extractor, chunk)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (name, dict(parameters)))
    try:
        waiting = iter(chunks)
        running: set[Future[list[Outcome]]] = {pool.submit(_work, c) for c in islice(waiting, 2 * workers)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {pool.submit(_work, c) for c in islice(waiting, len(finished))}
            for future in finished:
                yield from future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: Any = None


def _start_worker(name: str, parameters: dict[str, Any]) -> None:
    global _worker
    from affuse.core.seed import set_threads

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and keeps what is complete
    set_threads(1)
    _worker = make_extractor(name, parameters)


def _work(chunk: list[tuple[str, Clip]]) -> list[Outcome]:
    return list(_run_chunk(_worker, chunk))


def _run_chunk(extractor: Any, chunk: list[tuple[str, Clip]]) -> Iterator[Outcome]:
    """One chunk of clips; an extractor with `many` takes them together (text models gain from it)."""
    if hasattr(extractor, "many"):
        yield from zip([i for i, _ in chunk], extractor.many([clip for _, clip in chunk]), strict=True)
        return
    for i, clip in chunk:
        try:
            yield i, checked(extractor(clip), extractor.spec.name)
        except AffuseError as error:
            yield i, error.to_dict()


def checked(feature: Feature, name: str) -> Feature:
    """The feature itself; BadFeatures if an extractor returned numbers that are not finite."""
    import numpy as np

    if feature.values.dtype.kind == "f" and not np.isfinite(feature.values).all():
        raise BadFeatures(f"extractor '{name}' returned numbers that are not finite", "report the clip as a defect")
    return feature
