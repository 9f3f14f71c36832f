"""Running extractors over a corpus: shard by shard, resumable, in processes or on a Ray cluster, failures listed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from affuse.core import io, registry
from affuse.core.config import extractor_of
from affuse.core.errors import BadFeatures
from affuse.corpora.extraction.clips import clips_of
from affuse.corpora.extraction.in_processes import run_in_processes
from affuse.corpora.extraction.on_ray import run_on_ray
from affuse.corpora.extraction.shards import Failures, Shard, fill, plan
from affuse.stores.store import FORMAT, FeatureStore, shard_path, store_card

if TYPE_CHECKING:
    from affuse.corpora.manifest import Corpus
    from affuse.media.clip import Clip

TEXTS = "texts.jsonl"
HALF = "float16"
Progress = Callable[[int, int, int], None]  # done, total, failed


@dataclass(frozen=True)
class Extraction:
    """What one extraction did; `unusable`: utterances in the store of which no step is usable."""

    store: FeatureStore
    added: int
    failures: Failures
    unusable: tuple[str, ...] = ()


def extract(
    corpus: Corpus,
    name: str,
    parameters: Mapping[str, Any] | None = None,
    workers: int = 0,
    progress: Progress | None = None,
    on: Literal["processes", "ray"] = "processes",
    half: bool = False,
) -> Extraction:
    """Fill the corpus' store `name` by the extractor of that name, or the one that the parameters' `name` says.

    What is there stays, what failed before is tried again. `workers`: processes, in which a crash of a decoder is one
    failed utterance; 0: in this process. `half`: numbers are stored in half precision; a store stays as it was begun.
    Raises BadFeatures when the existing store was made differently; errors of single utterances are listed, not
    raised. The texts that an extractor makes can be read in `texts.jsonl` of the store; what it keeps for the next
    time (its card says so: option -> file name) lies in the corpus' folder.
    """
    kind, options = extractor_of(name, parameters or {})
    full = registry.resolve("extractors", kind, options, name)
    for option, file in registry.cards("extractors")[kind].get("keeps", {}).items():
        full[option] = full[option] or (corpus.path / file).resolve()
    extractor = registry.build("extractors", kind, **full)
    path, version = corpus.store_path(name), registry.cards("extractors")[kind]["version"]
    spec = replace(extractor.spec, name=name)
    stored = {"dtype": HALF} if half or begun_half(path) else {}
    made = store_card(spec, kind, version, full, weights_hash=getattr(extractor, "weights_hash", ""), **stored)
    clips = clips_of(corpus)
    failures: Failures = {}
    with io.exclusive(path, "another affuse extract fills it"):
        shards = _open(path, made, clips)
        before = len(FeatureStore(path))
        done, total = len(clips) - sum(len(s.clips) for s in shards), len(clips)
        if progress is not None:
            progress(done, total, 0)
        for shard, failed in _run(extractor, kind, full, path, shards, workers, on):
            failures |= failed
            done += len(shard.clips)
            if progress is not None:
                progress(done, total, len(failures))
        for old in path.glob("before-*.safetensors"):
            old.unlink()
        failures = {i: failures[i] for i, _ in clips if i in failures}
        io.write_json(path / "failures.json", failures)
        store = FeatureStore(path)
        counts = {"utterances": len(store), "failed": len(failures), "shards": store.shards}
        io.write_json(path / "manifest.json", counts)
        _write_texts(store, [i for i, _ in clips])
    unusable = tuple(i for i, _ in clips if i in store and not store.usable(i))
    return Extraction(store, len(store) - before, failures, unusable)


def _open(path: Path, card: Mapping[str, Any], clips: Sequence[tuple[str, Clip]]) -> list[Shard]:
    """The shards that lack something, after making sure that the store is this extractor's and divided in this way."""
    parts = plan(clips)
    made = {**card, "plan": io.digest([[i for i, _ in part] for part in parts])}
    old = FeatureStore(path) if (path / "card.json").is_file() else None
    if old is not None:
        old.check(made)
        if old.card.get("dtype") != made.get("dtype"):
            raise BadFeatures(f"{path} was begun in full precision", f"leave --half out, or delete {path}")
        if old.card.get("plan") != made["plan"]:  # the corpus changed: what is there moves to where it belongs now
            for shard in sorted(path.glob("shard-*.safetensors"), reverse=True):
                shard.rename(path / f"before-{io.digest([shard.name, shard.stat().st_mtime_ns])}.safetensors")
            old = FeatureStore(path)
    for left in path.glob(".aside-*"):
        left.unlink()
    if old is None or old.card != {"format": FORMAT, **made}:
        io.write_json(path / "card.json", {"format": FORMAT, **made})
    shards = []
    for number, part in enumerate(parts):
        files = {old.file(i) for i, _ in part if i in old} if old is not None else set()
        if files != {shard_path(path, number)} or any(old is None or i not in old for i, _ in part):
            shards.append(Shard(number, tuple(part), tuple(sorted(files)), made.get("dtype") == HALF))
    return shards


def begun_half(path: Path) -> bool:
    """Whether the store there, if any, is one of half precision."""
    return (path / "card.json").is_file() and io.read_json(path / "card.json").get("dtype") == HALF


def _write_texts(store: FeatureStore, ids: Sequence[str]) -> None:
    """The texts that the ids of utterances stand for, for readers; nothing where the extractor makes none."""
    rows = [{"id": i, "text": store.text(i)} for i in ids if i in store and store.text(i)]
    if rows:
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        io.write_text(store.path / TEXTS, "".join(lines))


def _run(
    extractor: Any, name: str, parameters: dict[str, Any], path: Path, shards: list[Shard], workers: int, on: str
) -> Iterator[tuple[Shard, Failures]]:
    """(shard, failures) as they come: in this process, in several, or on a cluster."""
    if on == "ray" and shards:
        yield from run_on_ray(name, parameters, path, shards, max(1, workers))
    elif workers > 0 and shards:
        yield from run_in_processes(name, parameters, path, shards, workers)
    else:
        for shard in shards:
            yield shard, fill(extractor, path, shard)
