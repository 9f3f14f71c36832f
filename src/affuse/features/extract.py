"""Running extractors over a corpus: shard by shard, resumable, in processes or on a Ray cluster, failures listed.

The manifest's order and its media decide which utterances share a shard, so a store is the same, bit by bit, whether it
was made in one go or after interruptions, by one process or by many. A shard is one task, written whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from affuse.core import io, registry
from affuse.core.config import extractor_of
from affuse.core.errors import AffuseError, BadCorpus, BadFeatures, BadMedia
from affuse.core.processes import CRASH, spread
from affuse.core.types import Feature
from affuse.features.store import FORMAT, FeatureStore, shard_path, store_card, write_shard
from affuse.media.clip import Clip

if TYPE_CHECKING:
    from affuse.corpora.manifest import Corpus

Progress = Callable[[int, int, int], None]  # done, total, failed
Failures = dict[str, dict[str, str]]
MOST, HEAVIEST = 64, 8 << 20  # utterances, and bytes of their media, that one shard takes at most
RATE = 64 << 10  # bytes that a second of an utterance with a start and an end stands for


@dataclass(frozen=True)
class Extraction:
    """What one extraction did; `unusable`: utterances in the store of which no step is usable."""

    store: FeatureStore
    added: int
    failures: Failures
    unusable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shard:
    """One task: the utterances of a shard in their order, and the files that hold features of some of them already."""

    number: int
    clips: tuple[tuple[str, Clip], ...]
    kept: tuple[Path, ...] = ()


def clips_of(corpus: Corpus, ids: Sequence[str] | None = None) -> list[tuple[str, Clip]]:
    """(id, Clip) of the corpus' utterances; media paths are relative to the corpus unless absolute."""
    table = corpus.table if ids is None else corpus.table[corpus.table["id"].isin(set(ids))]

    def path(value: str) -> Path | None:
        return corpus.path / value if value else None

    def clip(row: Any) -> Clip:
        end = None if row.end != row.end else row.end
        crop: Any = getattr(row, "crop", "")
        return Clip(path(row.video), path(row.audio), row.text or None, row.start, end, crop if crop in ("left", "right") else "", _words(row))

    return [(row.id, clip(row)) for row in table.itertuples()]


def _words(row: Any) -> tuple[tuple[float, float], ...]:
    """The word times of a row of the manifest; BadCorpus for what is no list of pairs."""
    times = getattr(row, "word_times", None)
    if times is None or isinstance(times, float):  # None and NaN: there are none
        return ()
    try:
        return tuple((float(a), float(b)) for a, b in times)
    except (TypeError, ValueError) as error:
        raise BadCorpus(f"utterance '{row.id}' has word_times {times!r}", "give [start, end] of each word, as only a Parquet table can") from error


def make_extractor(name: str, parameters: Mapping[str, Any] | None = None) -> Any:
    """The extractor `name` (or the one that the parameters name) with its parameters checked."""
    kind, options = extractor_of(name, parameters or {})
    return registry.build("extractors", kind, **registry.resolve("extractors", kind, options, name))


def extract(
    corpus: Corpus,
    name: str,
    parameters: Mapping[str, Any] | None = None,
    workers: int = 0,
    progress: Progress | None = None,
    on: Literal["processes", "ray"] = "processes",
) -> Extraction:
    """Fill the corpus' store `name` by the extractor of that name, or the one that the parameters' `name` says.

    What is there stays, what failed before is tried again. `workers`: processes, in which a crash of a decoder is one failed utterance; 0: in this process. Raises BadFeatures when
    the existing store was made differently; per-utterance errors are listed, not raised.
    """
    kind, options = extractor_of(name, parameters or {})
    full = registry.resolve("extractors", kind, options, name)
    extractor = registry.build("extractors", kind, **full)
    path, version = corpus.store_path(name), registry.cards("extractors")[kind]["version"]
    spec = replace(extractor.spec, name=name)
    made = store_card(spec, kind, version, full, weights_hash=getattr(extractor, "weights_hash", ""))
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
        io.write_json(path / "manifest.json", {"utterances": len(store), "failed": len(failures), "shards": store.shards})
    return Extraction(store, len(store) - before, failures, tuple(i for i, _ in clips if i in store and not store.usable(i)))


def _open(path: Path, card: Mapping[str, Any], clips: Sequence[tuple[str, Clip]]) -> list[Shard]:
    """The shards that lack something, after making sure that the store is this extractor's and parted in this way."""
    plan = _plan(clips)
    made = {**card, "plan": io.digest([[i for i, _ in part] for part in plan])}
    old = FeatureStore(path) if (path / "card.json").is_file() else None
    if old is not None:
        old.check(made)
        if old.card.get("plan") != made["plan"]:  # the corpus changed: what is there moves to where it belongs now
            for shard in sorted(path.glob("shard-*.safetensors"), reverse=True):
                shard.rename(path / f"before-{io.digest([shard.name, shard.stat().st_mtime_ns])}.safetensors")
            old = FeatureStore(path)
    for left in path.glob(".aside-*"):
        left.unlink()
    if old is None or old.card != {"format": FORMAT, **made}:
        io.write_json(path / "card.json", {"format": FORMAT, **made})
    shards = []
    for number, part in enumerate(plan):
        files = {old.file(i) for i, _ in part if i in old} if old is not None else set()
        if files != {shard_path(path, number)} or any(old is None or i not in old for i, _ in part):
            shards.append(Shard(number, tuple(part), tuple(sorted(files))))
    return shards


def _plan(clips: Sequence[tuple[str, Clip]]) -> list[list[tuple[str, Clip]]]:
    """Neighbours in the manifest share a shard until it holds MOST utterances or its media weigh HEAVIEST."""
    parts: list[list[tuple[str, Clip]]] = []
    weight = HEAVIEST
    for name, clip in clips:
        if weight >= HEAVIEST or len(parts[-1]) >= MOST:
            parts.append([])
            weight = 0
        parts[-1].append((name, clip))
        weight += _weight(clip)
    return parts


def _weight(clip: Clip) -> int:
    if clip.end is not None:
        return int((clip.end - clip.start) * RATE)
    return sum(p.stat().st_size for p in (clip.video, clip.audio) if p is not None and p.is_file())


def _run(
    extractor: Any, name: str, parameters: Mapping[str, Any], path: Path, shards: list[Shard], workers: int, on: str
) -> Iterator[tuple[Shard, Failures]]:
    """(shard, failures) as they come: in this process, in several, or on a cluster."""
    if on == "ray" and shards:
        from affuse.features.on_ray import run_on_ray

        yield from run_on_ray(name, dict(parameters), path, shards, max(1, workers))
        return
    if workers < 1 or not shards:
        for shard in shards:
            yield shard, fill(extractor, path, shard)
        return
    for shard, failed in spread(_work, shards, workers, _start_worker, (name, dict(parameters), path)):
        yield shard, _one_by_one(shard, name, parameters, path) if failed is None else failed


def _one_by_one(shard: Shard, name: str, parameters: Mapping[str, Any], path: Path) -> Failures:
    """A shard in which a process died: found is which utterance it was, and the others are written."""
    single = [Shard(shard.number, (pair,), shard.kept) for pair in shard.clips]
    arguments = (name, dict(parameters), path)
    dead = {s.clips[0][0] for s, ok in spread(_try, single, 1, _start_worker, arguments) if ok is None}
    rest = Shard(shard.number, tuple(c for c in shard.clips if c[0] not in dead), shard.kept)
    failed = next(spread(_work, [rest], 1, _start_worker, arguments))[1] if rest.clips else {}
    crash = BadMedia(CRASH, "try the clip by itself; convert it, e.g. with ffmpeg").to_dict()
    if failed is None:  # each alone went well, all together did not
        failed = dict.fromkeys((i for i, _ in rest.clips), crash)
    return failed | dict.fromkeys(dead, crash)


def fill(extractor: Any, path: Path, shard: Shard) -> Failures:
    """Extract what the shard lacks, write it whole, and say what failed; Ctrl-C keeps what is complete."""
    kept: FeatureStore | dict[str, Feature] = FeatureStore(path, shard.kept) if shard.kept else {}
    found = {i: kept[i] for i, _ in shard.clips if i in kept}
    failures: Failures = {}
    try:
        for i, outcome in _outcomes(extractor, [(i, clip) for i, clip in shard.clips if i not in found]):
            if isinstance(outcome, Feature):
                found[i] = outcome
            else:
                failures[i] = outcome
    finally:
        if found:
            write_shard(shard_path(path, shard.number), {i: found[i] for i, _ in shard.clips if i in found})
    return failures


def _outcomes(extractor: Any, clips: Sequence[tuple[str, Clip]]) -> Iterator[tuple[str, Feature | dict[str, str]]]:
    """(id, Feature or error); an extractor with `many` takes the clips together (text models gain from it)."""
    if hasattr(extractor, "many") and len(clips) > 1:
        try:
            found = [checked(f, extractor.spec.name) for f in extractor.many([clip for _, clip in clips])]
        except AffuseError:
            pass  # one of them: the loop below finds out which
        else:
            yield from zip([i for i, _ in clips], found, strict=True)
            return
    for i, clip in clips:
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
    return bool(dict(_outcomes(_worker[0], shard.clips)))
