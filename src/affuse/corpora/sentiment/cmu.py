"""What the importers of CMU-MOSI, CMU-MOSEI and CH-SIMS share: sources recognised by content, one corpus made.

A source is a file or a folder. Utterances come from the first of: the labels sequence (.csd), opinion segments (csv
without header: start, end, video, segment, label), label.csv of MMSA, a feature pickle, a label JSON of MERTools.
Whatever else is there adds features, words and clips.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from affuse.core import io, registry
from affuse.core.errors import BadCorpus, BadFeatures
from affuse.core.labels import SPACES
from affuse.core.types import Feature, Modality, StreamSpec
from affuse.corpora.manifest import Corpus, check_counts, write_corpus
from affuse.corpora.reading.release import mend
from affuse.corpora.sentiment import csd as csds
from affuse.corpora.sentiment.csd import Csd, Segment
from affuse.corpora.sentiment.pickles import EMOTIONS, UNIMODAL, FeaturePickle, Row
from affuse.corpora.sentiment.sources import Sources, opinions, survey
from affuse.stores.store import FeatureStore, StoreWriter, guess_modality, store_card

Labels = Literal["none", "sentiment-2", "sentiment-3"]
SAME_TIME = 0.01  # s: labels and transcripts state the same times with different precision
SISTERS = ("cmu_mosi", "cmu_mosei", "ch_sims", "ch_sims_v2")


@dataclass(frozen=True)
class Release:
    """What one corpus is: its card, the space of its sentiment, official folds (video -> split) if they are known."""

    name: str
    title: str
    card: Mapping[str, Any]
    space: str = "sentiment"
    emotions: bool = False
    unimodal: bool = False
    language: str = "en"
    folds: Mapping[str, str] = field(default_factory=dict)
    videos: Mapping[str, int] = field(default_factory=dict)
    segments_published: bool = True

    @property
    def counts(self) -> dict[str, int]:
        """Published utterances per split."""
        return dict(self.card["counts"])


@dataclass(frozen=True)
class Stream:
    """Features to store: `content` identifies the values, `features` yields (id, Feature)."""

    spec: StreamSpec
    content: str
    features: Callable[[], Iterator[tuple[str, Feature]]]


def import_release(
    release: Release,
    src: Path,
    dst: Path,
    *,
    partial: bool,
    labels: Labels = "none",
    aligned: bool = False,
    split: str = "published",
) -> Corpus:
    """Import `src` (file or folder) as `release`.

    `labels` maps sentiment to classes of the label column; `aligned` averages csd features over words; `split` other
    than "published" leaves the split open (made by video when training) and keeps the published one as a column.
    Raises BadCorpus, BadFeatures (pickles), MissingFile or MissingDependency (h5py).
    """
    sources = survey(src, release.language)
    rows, notes, labelled = _utterances(release, sources, src)
    _complete(release, rows, sources)
    streams = _csd_streams(release, rows, sources, aligned, notes) + _pickle_streams(rows, sources.pickles, notes)
    for name, n in Counter(stream.spec.name for stream in streams).items():
        if n > 1:
            raise BadCorpus(f"{src}: {n} files hold features called '{name}'", "keep one of them")
    short = _check(release, rows, labelled, partial, notes) + _content(rows, sources, bool(streams), partial, notes)
    space = SPACES[release.space if labels == "none" else labels]
    notes += _shared_videos(rows, split)
    for row, name in zip(rows, class_names([r["sentiment"] for r in rows], labels), strict=True):
        row["label"] = name
        if split != "published":
            row["published_split"], row["split"] = row["split"], ""
    extra = {k: v for k, v in {"partial": short, "warnings": notes}.items() if v}
    corpus = write_corpus(
        dst, rows, release.name, space.name, licence=release.card["licence"], language=release.language, **extra
    )
    for stream in streams:
        _store(corpus, stream)
    return corpus


def class_names(sentiment: list[float], labels: Labels) -> list[str]:
    """Class of every sentiment: its sign; 0 is neutral in sentiment-3 and without a class in sentiment-2."""
    zero = {"none": "", "sentiment-2": "", "sentiment-3": "neutral"}[labels]
    if labels == "none":
        return [""] * len(sentiment)
    return ["" if v != v else zero if v == 0 else "positive" if v > 0 else "negative" for v in sentiment]


def _utterances(release: Release, sources: Sources, src: Path) -> tuple[list[Row], list[str], str]:
    """(rows, notes, what they came from)."""
    notes: list[str] = []
    labels = _labels_csd(release, sources)
    if labels is not None:
        return _csd_rows(labels, notes), notes, "csd"
    if sources.opinions:
        return opinions(_only(sources.opinions, src)), notes, "opinions"
    for kind, lists in (
        ("label.csv", sources.tables),
        ("pickle", [p.rows for p in sources.pickles]),
        ("JSON", sources.jsons),
    ):
        if lists:
            return [dict(row) for row in _fitting(release, lists, kind, src)], notes, kind
    what = (
        "sequences (.csd) without labels"
        if sources.csds
        else "no labels, neither .csd, label.csv, feature pickle nor label JSON"
    )
    raise BadCorpus(f"{src}: {what}", f"add the labels; see: affuse show {release.name}")


def _only(paths: list[Path], src: Path) -> Path:
    if len(paths) > 1:
        raise BadCorpus(f"{src} holds {len(paths)} label tables: {paths[0].name}, {paths[1].name}", "give one of them")
    return paths[0]


def _fitting(release: Release, lists: list[list[Row]], kind: str, src: Path) -> list[Row]:
    """The one list of utterances, or of several the first of which a split has exactly its published size."""
    fitting = [
        rows for rows in lists if any(n == release.counts.get(s) for s, n in Counter(r["split"] for r in rows).items())
    ]
    if fitting or len(lists) == 1:
        return (fitting or lists)[0]
    raise BadCorpus(
        f"{src} holds {len(lists)} label files ({kind}), none with the counts of {release.title}", "give one file"
    )


def _labels_csd(release: Release, sources: Sources) -> Csd | None:
    """The labels sequence: 1 column (sentiment) or 7 (and emotions); by name where several fit or others exist."""
    fitting = [c for c in sources.csds if not c.words and c.width == (7 if release.emotions else 1)]
    named = [c for c in fitting if _called_labels(c)]
    if not named and (sources.opinions or sources.tables or sources.pickles or sources.jsons):
        return None
    if len(named or fitting) > 1:
        names = ", ".join(c.path.name for c in (named or fitting)[:3])
        raise BadCorpus(f"several sequences may be the labels: {names}", "keep one labels file")
    return next(iter(named or fitting), None)


def _called_labels(csd: Csd) -> bool:
    return "label" in f"{csd.name} {csd.path.name}".lower()


def _csd_rows(labels: Csd, notes: list[str]) -> list[Row]:
    """One row per label interval, its id video[k] as in the SDK; k counts in the order of the file, not of time."""
    rows: list[Row] = []
    early = empty = 0
    columns = ("sentiment", *EMOTIONS)[: labels.width]
    for key, intervals, values in labels.read():
        aligned = re.fullmatch(r"(.+)\[(\d+)\]", key) if len(intervals) == 1 else None
        for k, ((start, end), vector) in enumerate(zip(intervals.tolist(), values.astype(float), strict=True)):
            if not end > max(start, 0.0):
                empty += 1
                continue
            early += start < 0
            name, video = (key, aligned[1]) if aligned else (f"{key}[{k}]", key)
            times = {"start": max(start, 0.0), "end": end}
            rows.append(
                {"id": name, "conversation": video, **times, **dict(zip(columns, map(float, vector), strict=True))}
            )
    before: Counter[str] = Counter()
    for row in sorted(rows, key=lambda row: row["start"]):
        row["position"] = before[row["conversation"]]
        before[row["conversation"]] += 1
    if early:
        notes.append(f"{labels.path.name}: {early} label intervals begin before 0 s; they begin at 0 s here")
    if empty:
        notes.append(f"{labels.path.name}: {empty} label intervals have no duration; they were left out")
    return rows


def _complete(release: Release, rows: list[Row], sources: Sources) -> None:
    """Add words, times, splits and clips that other files know; every row gets every column."""
    ids = {row["id"] for row in rows}
    words = sorted(sources.words, key=lambda known: len(known.keys() & ids))  # of two, the fitting one counts
    said = {name: line for known in words for name, line in known.items()}
    spoken = _by_time(said, rows) if not any(c.words for c in sources.csds) else {}
    folds = {**release.folds, **sources.folds}
    if not folds:
        folds = {
            r["conversation"]: r["split"]
            for other in [*sources.jsons, *(p.rows for p in sources.pickles)]
            for r in other
            if "conversation" in r
        }
    columns = ("sentiment", *(EMOTIONS if release.emotions else ()), *(UNIMODAL.values() if release.unimodal else ()))
    for row in rows:
        known = said.get(row["id"]) or spoken.get(row["id"], {})
        row["text"] = row.get("text") or known.get("text", "")
        row["split"] = row.get("split") or folds.get(row.get("conversation", ""), "")
        row["source"] = row.get("conversation", "")
        for column in columns:
            row.setdefault(column, float("nan"))
        own: Row = {k: row.pop(k) for k in ("start", "end") if k in row}
        times = own or {k: known[k] for k in ("start", "end") if k in known}
        row |= _clip(sources.clips, row["id"], row["source"], times)
    if release.emotions and any(row[EMOTIONS[0]] == row[EMOTIONS[0]] for row in rows):
        for row in rows:
            row["emotions"] = [row[e] for e in EMOTIONS]


def _by_time(said: Mapping[str, Row], rows: list[Row]) -> dict[str, Row]:
    """Lines of transcripts for label intervals, which are numbered otherwise: those that begin with them."""
    lines: dict[str, list[Row]] = {}
    for name, line in said.items():
        if "start" in line:
            lines.setdefault(name.rpartition("_")[0], []).append(line)
    return {
        row["id"]: line
        for row in rows
        for line in lines.get(row.get("conversation", ""), ())
        if "start" in row and abs(line["start"] - row["start"]) < SAME_TIME
    }


def _clip(clips: Mapping[str, Path], name: str, video: str, times: Row) -> Row:
    """The utterance's own clip; else the whole recording with the utterance's times."""
    for stem, cut in ((name, {}), (video, times)):
        picture, sound = clips.get(stem), clips.get(f"{stem}:sound")
        if (picture or sound) and (stem == name or times):
            segment = {f"segment_{k}": v for k, v in times.items()} if stem == name else {}
            return {"video": str(picture or ""), "audio": str(sound or ""), **cut, **segment}
    return dict(times)


def _shared_videos(rows: list[Row], split: str) -> list[str]:
    """What users of a published split must know where it parts videos."""
    places: dict[str, set[str]] = {}
    for row in rows:
        if row["source"] and row["split"]:
            places.setdefault(row["source"], set()).add(row["split"])
    shared = sum(len(s) > 1 for s in places.values())
    if not shared:
        return []
    what = (
        "scores on it are too good"
        if split == "published"
        else "it was not used (split=published would), training parts by video"
    )
    return [f"the published split has parts of {shared} of {len(places)} videos in more than one split: {what}"]


def _check(release: Release, rows: list[Row], labelled: str, partial: bool, notes: list[str]) -> list[str]:
    """Ranges and counts against what is published; returns the shortfalls."""
    _check_ranges(release, rows)
    found = Counter(row["split"] for row in rows if row["split"])
    open_ = sum(not row["split"] for row in rows)
    if open_:
        notes.append(f"{open_} of {len(rows)} utterances have no published split here; see: affuse show {release.name}")
    if labelled == "csd" and not release.segments_published:
        published = "/".join(str(n) for n in release.counts.values())
        notes.append(
            f"the labels sequence has {len(rows)} segments, other releases keep {published}: not checked against a "
            "count"
        )
        videos = Counter(split for _, split in {(r["source"], r["split"]) for r in rows} if split)
        if not videos:
            return []
        return [f"videos of {s}" for s in check_counts(videos, release.videos, "videos per split", partial)]
    for sister in SISTERS:
        counts = registry.cards("corpora").get(sister, {}).get("counts")
        if counts and dict(found) == counts != release.counts:
            raise BadCorpus(f"these are the counts of {sister}, not of {release.title}", f"use: affuse import {sister}")
    if not found and open_ == sum(release.counts.values()):
        return []
    return check_counts(found, release.counts, "utterances per split", partial)


def _check_ranges(release: Release, rows: list[Row]) -> None:
    space = SPACES[release.space]
    ranges = {"sentiment": (space.low, space.high), **dict.fromkeys(UNIMODAL.values(), (space.low, space.high))}
    ranges |= dict.fromkeys(EMOTIONS, (0.0, 3.0)) if release.emotions else {}
    for column, (low, high) in ranges.items():
        values = np.array([row.get(column, np.nan) for row in rows], dtype=float)
        wrong = np.flatnonzero((values < low - 1e-4) | (values > high + 1e-4) | np.isinf(values))
        if len(wrong):
            name = rows[wrong[0]]["id"]
            raise BadCorpus(
                f"{column} of '{name}' is {values[wrong[0]]:g}, outside {low:g} to {high:g}",
                f"is this {release.title}?",
            )


def _content(rows: list[Row], sources: Sources, features: bool, partial: bool, notes: list[str]) -> list[str]:
    """Shortfalls: clips that some utterances have and others lack, or that there is nothing but labels."""
    has = {
        "clips": sum(bool(r.get("video") or r.get("audio")) for r in rows),
        "words": sum(bool(r["text"]) for r in rows),
    }
    if sources.clips and not has["clips"]:
        notes.append(
            f"{len(set(sources.clips.values()))} media files were left out: no utterance has their names, or times to "
            "cut them by"
        )
    if sources.words and not has["words"]:
        notes.append("the transcripts were left out: no utterance has their names, or begins when they do")
    if not features and not any(has.values()):
        line = f"no words, clips or features: labels only ({len(rows)} utterances)"
        if not partial:
            raise BadCorpus(line, "add them to the folder, or pass --partial to use the labels alone")
        return [line]
    if 0 < has["words"] < len(rows):
        notes.append(f"{len(rows) - has['words']} of {len(rows)} utterances have no words")
    return check_counts({"clips": has["clips"]}, {"clips": len(rows)}, "clips", partial) if has["clips"] else []


def _csd_streams(release: Release, rows: list[Row], sources: Sources, aligned: bool, notes: list[str]) -> list[Stream]:
    """A stream per sequence of numbers; the words sequence gives the text, and the steps where `aligned`."""
    found, labels = sources.csds, _labels_csd(release, sources)
    if not found:
        return []
    timed = [row for row in rows if row.get("end", row.get("segment_end")) is not None]
    if not timed:
        notes.append(f"{len(found)} sequences (.csd) were left out: the labels have no times to cut them by")
        return []
    words = max((c for c in found if c.words), key=_vocabulary, default=None)
    spans = _words(words, timed) if words is not None else {}
    if aligned and words is None:
        raise BadCorpus("aligned=true needs the words", "add the TimestampedWords .csd, or import without aligned=true")
    streams = []
    for csd in found:
        if csd.words or csd is labels:
            continue
        modality, segments = _modality(csd), _segments(csd, timed)
        lost = sum(len(found) for key, found in segments.items() if key not in csd.rows)
        if modality is None:
            notes.append(f"{csd.path.name} was left out: '{csd.name}' tells neither audio, vision nor text")
        elif lost == len(timed):
            notes.append(f"{csd.path.name} was left out: its keys are not the videos of the labels")
        else:
            notes += [f"{csd.path.name} lacks the videos of {lost} of {len(timed)} utterances"] if lost else []
            streams.append(_csd_stream(csd, modality, segments, spans if aligned else None))
    return streams


def _csd_stream(
    csd: Csd, modality: Modality, segments: dict[str, list[Segment]], spans: Mapping[str, np.ndarray] | None
) -> Stream:
    rate = 0.0 if spans is not None else csds.frame_rate(csd)
    spec = StreamSpec(_stream_name(csd), modality, (csd.width,), rate)
    content = io.digest([io.file_sha256(csd.path), sorted(segments.items()), spans is not None])
    return Stream(spec, content, lambda: csds.features(csd, segments, rate, spans))


def _segments(csd: Csd, rows: list[Row]) -> dict[str, list[Segment]]:
    """Utterances per key of a sequence: by video, or by their own id where the SDK has aligned the file."""
    found: dict[str, list[Segment]] = {}
    for row in rows:
        start, end = (float(row[k if k in row else f"segment_{k}"]) for k in ("start", "end"))
        own = row["id"] in csd.rows  # everything below that key is the utterance's
        segment = (row["id"], -np.inf, np.inf) if own else (row["id"], start, end)
        found.setdefault(row["id"] if own else row["source"], []).append(segment)
    return found


def _vocabulary(csd: Csd) -> int:
    """Distinct strings of the first videos: words have more than phones."""
    return len({w for _, _, said in csd.read(list(csd.rows)[:20]) for w in said})


def _words(csd: Csd, rows: list[Row]) -> dict[str, np.ndarray]:
    """Fill in the text of rows from timed words; returns the words' times [W, 2] per id, pauses left out."""
    spans, by_id = {}, {row["id"]: row for row in rows}
    segments = _segments(csd, rows)
    for key, times, said in csd.read([k for k in segments if k in csd.rows]):
        for name, start, end in segments[key]:
            chosen = [i for i in csds.within(times, start, end) if said[i] != csds.PAUSE]
            spans[name] = times[chosen].reshape(-1, 2)
            if not by_id[name]["text"]:
                by_id[name]["text"] = mend(" ".join(said[chosen]))
                begin = start if np.isfinite(start) else spans[name][:1, :1]
                by_id[name]["word_times"] = (spans[name] - begin).tolist()
    return spans


def _modality(csd: Csd) -> Modality | None:
    """Whose features these are; None where no name tells, and of labels, which no folder's name makes features."""
    for hint in () if _called_labels(csd) else (csd.name, csd.path.stem, csd.path.parent.name):
        if any(word in hint.lower() for word in ("covarep", "acoustic")):
            return "audio"
        try:
            return guess_modality(re.sub(r"\W+", "_", hint))
        except BadFeatures:
            continue
    return None


def _stream_name(csd: Csd) -> str:
    name = re.sub(r"\W+", "_", csd.name.lower()).strip("_")
    name = re.sub(r"^cmu_(mosi|mosei)_", "", name)
    return f"csd_{name}" if name in registry.cards("extractors") else name


def _pickle_streams(rows: list[Row], pickles: list[FeaturePickle], notes: list[str]) -> list[Stream]:
    """Streams like mmsa_audio; with several pickles their file names tell them apart."""
    ids = {row["id"] for row in rows}
    usable = [p for p in pickles if ids & {row["id"] for row in p.rows}]
    notes += [f"{p.path.name} was left out: its ids are not those of the labels" for p in pickles if p not in usable]
    streams = []
    for pickle in usable:
        lost = len(ids - {row["id"] for row in pickle.rows})
        notes += [*pickle.warnings, *([f"{pickle.path.name} lacks {lost} of {len(ids)} utterances"] if lost else [])]
        content = io.file_sha256(pickle.path)
        for modality in pickle.arrays:
            name = f"{pickle.layout.lower()}_{modality}" + (f"_{pickle.path.stem}" if len(usable) > 1 else "")
            spec = StreamSpec(name, modality, (pickle.width(modality),))
            streams.append(Stream(spec, content, _known(pickle, modality, ids)))
    return streams


def _known(pickle: FeaturePickle, modality: Modality, ids: set[str]) -> Callable[[], Iterator[tuple[str, Feature]]]:
    return lambda: ((name, feature) for name, feature in pickle.features(modality) if name in ids)


def _store(corpus: Corpus, stream: Stream) -> None:
    path = corpus.store_path(stream.spec.name)
    with StoreWriter(path, store_card(stream.spec, "imported", 1, {}, content_hash=stream.content)) as writer:
        have = set(FeatureStore(path).ids)
        for name, found in stream.features():
            if name not in have:
                writer.add(name, found)
