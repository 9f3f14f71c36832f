"""The shards of a store: which utterances share one, and a single one filled.

The manifest's order and its media decide which utterances share a shard, so a store is the same, bit by bit, whether it
was made in one go or after interruptions, by one process or by many. A shard is one task, written whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from affuse.core.errors import AffuseError
from affuse.core.types import Feature
from affuse.features.extractor import checked
from affuse.media.clip import Clip
from affuse.stores.store import FeatureStore, shard_path, write_shard

Failures = dict[str, dict[str, str]]  # utterance id -> {type, message, remedy}
MOST, HEAVIEST = 64, 8 << 20  # utterances, and bytes of their media, that one shard takes at most
RATE = 64 << 10  # bytes that a second of an utterance with a start and an end stands for


@dataclass(frozen=True)
class Shard:
    """One task: the utterances of a shard in their order, and the files that hold features of some of them already.

    `half`: numbers are stored in half precision.
    """

    number: int
    clips: tuple[tuple[str, Clip], ...]
    kept: tuple[Path, ...] = ()
    half: bool = False


def plan(clips: Sequence[tuple[str, Clip]]) -> list[list[tuple[str, Clip]]]:
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


def fill(extractor: Any, path: Path, shard: Shard) -> Failures:
    """Extract what the shard lacks, write it whole, and say what failed; Ctrl-C keeps what is complete."""
    kept: FeatureStore | dict[str, Feature] = FeatureStore(path, shard.kept) if shard.kept else {}
    found = {i: kept[i] for i, _ in shard.clips if i in kept}
    failures: Failures = {}
    try:
        for i, outcome in outcomes(extractor, [(i, clip) for i, clip in shard.clips if i not in found]):
            if isinstance(outcome, Feature):
                found[i] = halved(outcome) if shard.half else outcome
            else:
                failures[i] = outcome
    finally:
        if found:
            write_shard(shard_path(path, shard.number), {i: found[i] for i, _ in shard.clips if i in found})
    return failures


def halved(feature: Feature) -> Feature:
    """The feature with its numbers in half precision, those beyond its range at its end; whole numbers as they are."""
    if feature.values.dtype.kind != "f":
        return feature
    most = np.finfo(np.float16).max
    return replace(feature, values=np.clip(feature.values, -most, most).astype(np.float16))


def outcomes(extractor: Any, clips: Sequence[tuple[str, Clip]]) -> Iterator[tuple[str, Feature | dict[str, str]]]:
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
