"""Aff-Wild2, as the ABAW challenges release it: valence and arousal, expression and 12 action units per frame."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from affuse.core.errors import BadConfig, BadCorpus, BadMedia
from affuse.core.labels import SPACES
from affuse.corpora.manifest import Corpus, check_counts, write_corpus
from affuse.corpora.reading.release import PICTURE

CARD = {
    "summary": "Aff-Wild2 (ABAW): videos from the web; valence and arousal, 8 expressions, 12 action units per frame",
    "source": "Kollias & Zafeiriou, Aff-Wild2: Extending the Aff-Wild Database for Affect Recognition, 2018; the ABAW "
    "challenges",
    "entry": "import_aff_wild2",
    "licence": "by agreement with the organisers (ibug / ABAW), non-commercial research",
    "download": "annotations and videos (batch1, batch2, ...; cropped_aligned if wanted) as the organisers of ABAW "
    "send them",
    "layout": "{VA_Estimation,EXPR_Classification,AU_Detection}_Challenge/{Train_Set,Validation_Set}/VIDEO.txt, a "
    "line per frame, or {training,validation}_set_annotations.txt (multi-task: VIDEO/FRAME.jpg, values); VIDEO.mp4 "
    "anywhere; cropped_aligned/VIDEO/FRAME.jpg",
    "counts": {},
    "splits": "the challenges' training and validation sets; their tests are unlabelled. Task all holds out what any "
    "challenge validates on",
}
UNITS = tuple(f"AU{n}" for n in (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26))


class Track(NamedTuple):
    """One challenge: folders by edition, head line, what marks a missing value, and what a value may be."""

    folders: tuple[str, ...]
    header: tuple[str, ...]
    width: int
    missing: float
    low: float
    high: float
    whole: bool


TRACKS: dict[str, Track] = {
    "valence_arousal": Track(("VA_Estimation_Challenge",), ("valence", "arousal"), 2, -5, -1, 1, False),
    "expression": Track(
        ("EXPR_Classification_Challenge", "EXPR_Recognition_Challenge"),
        ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other"),  # as in abaw-8
        *(1, -1, 0, 7, True),
    ),
    "action_units": Track(("AU_Detection_Challenge",), UNITS, 12, -1, 0, 1, True),
}
SETS = {"Train_Set": "train", "Validation_Set": "valid"}
MULTI_TASK = {
    "train": ("training_set_annotations.txt", "train_set.txt", "train.csv"),
    "valid": ("validation_set_annotations.txt", "validation_set.txt", "val.csv"),
}
_IMAGE = re.compile(r"(.+)/(\d{5})\.jpg")
_NAMED_RATE = re.compile(r"\d+-(\d+)-\d+x\d+")  # number-fps-size, as in 46-30-484x360
_PERSON = re.compile(r"_(left|right)$")


class Clock(NamedTuple):
    """When the frames of a video are shown: the first at `start` s, then `fps` a second; `times` [T]: if uneven."""

    fps: float
    start: float
    times: np.ndarray


@dataclass
class Release:
    """What lies below the source folder: "CHALLENGE/SET" -> folder, files, videos and aligned crops by name."""

    sets: dict[str, Path] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    videos: dict[str, Path] = field(default_factory=dict)
    crops: dict[str, Path] = field(default_factory=dict)


@dataclass
class Labels:
    """track -> name -> values [T, D] (NaN = missing, row k = frame k + 1); challenge -> name -> split; warnings."""

    values: dict[str, dict[str, np.ndarray]] = field(default_factory=lambda: {track: {} for track in TRACKS})
    splits: dict[str, dict[str, str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def import_aff_wild2(
    src: Path,
    dst: Path,
    *,
    partial: bool = False,
    task: Literal["all", "valence_arousal", "expression", "action_units", "multi_task"] = "all",
    rate: float = 30.0,
    fps: float = 30.0,
) -> Corpus:
    """Import videos and their frame labels below `src`; a person of a two-person video (_left, _right) is a row of it.

    Such a person is looked for in that half of the picture (column crop). Label tracks: valence_arousal [T, 2],
    expression [T, 1] (index of abaw-8), action_units [T, 12]; frames marked -5 or -1 are absent. Frame n is shown from
    (n - 1) / fps s on; fps is the video's, else the one in its name (46-30-484x360), else `fps`. Where a video's frames
    come unevenly, each is shown from its own time on. Videos differ in fps, a track has one clock: step k of `rate` Hz
    has the label of the frame shown at k / rate s; columns frames and fps lead back. `task`: one challenge with its
    official sets; all challenges (any validation set held out, with the whole video); or the multi-task set, which
    `all` takes where no challenge folder is. Raises BadCorpus for damaged files, foreign values, missing sets or
    videos; BadConfig for rates.
    """
    if not (rate > 0 and fps > 0):
        raise BadConfig(f"rate = {rate}, fps = {fps}", "give steps per second above 0")
    release = _survey(src)
    several = task == "multi_task" or (task == "all" and not release.sets)
    labels, short = (_read_multi_task if several else _read_challenges)(src, release, task, partial)
    rows, clocks = _rows(release, labels, task == "all", fps, short, partial)
    _warn(labels, rows, rate)
    extra = {"licence": CARD["licence"], "warnings": labels.warnings, **({"partial": short} if short else {})}
    names = {name: TRACKS[name].header for name, values in labels.values.items() if values}
    tracks = {name: list(SPACES["abaw-8"].labels if name == "expression" else header) for name, header in names.items()}
    corpus = write_corpus(dst, rows, "aff_wild2", "abaw-8", tracks=tracks, **extra)
    for name in tracks:
        _write_track(corpus, name, labels.values[name], clocks, rate)
    return corpus


def _survey(src: Path) -> Release:
    """One walk: the millions of pictures below cropped_aligned are not looked at."""
    release = Release()
    seen: set[str] = set()
    for here, folders, files in os.walk(src, followlinks=True):
        path = Path(here)
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in [f for f in folders if f.startswith("cropped")]:
            release.crops |= {p.name: p for p in sorted((path / name).iterdir()) if p.is_dir()}
            folders.remove(name)
        folders.sort(key=lambda name: (os.path.islink(os.path.join(here, name)), name))
        if path.name in SETS:
            release.sets[f"{path.parent.name}/{path.name}"] = path
        for name in sorted(f for f in files if not f.startswith(".")):
            release.files.setdefault(name, path / name)
            if Path(name).suffix.lower() in PICTURE:
                release.videos.setdefault(Path(name).stem, (path / name).resolve())
    return release


def _read_challenges(src: Path, release: Release, task: str, partial: bool) -> tuple[Labels, list[str]]:
    labels = Labels()
    found: dict[str, int] = {}
    for track in [task] if task in TRACKS else TRACKS:
        spec = TRACKS[track]
        folder = next((f for f in spec.folders if any(f"{f}/{s}" in release.sets for s in SETS)), spec.folders[0])
        found |= {f"{folder}/{s}": int(f"{folder}/{s}" in release.sets) for s in SETS}
        splits = labels.splits.setdefault(track, {})
        there = [release.sets[f"{folder}/{s}"] for s in SETS if f"{folder}/{s}" in release.sets]
        for path in (p for one in there for p in sorted(one.glob("[!.]*.txt"))):
            if path.stem in splits:
                raise BadCorpus(f"{folder}: '{path.stem}' is in both sets", "use the official annotations")
            splits[path.stem] = SETS[path.parent.name]
            labels.values[track][path.stem] = _read_frames(path, spec)
    if not any(labels.splits.values()):
        raise BadCorpus(f"no frame labels for task={task} below {src}", "see: affuse show aff_wild2")
    return labels, check_counts(found, dict.fromkeys(found, 1), "annotation folders", partial)


def _read_frames(path: Path, spec: Track) -> np.ndarray:
    head, *lines = _lines(path)
    if [c.strip().lower() for c in head.split(",")] != [c.lower() for c in spec.header]:
        raise BadCorpus(f"{path} begins with {head!r}, not {','.join(spec.header)!r}", "use the official file")
    return _checked(path, _numbers(path, lines, spec.width), spec)


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise BadCorpus(f"{path} is not a text file: {error}", "download the official file again") from error
    if len(lines) < 2:
        raise BadCorpus(f"{path} has no lines of labels", "download the official file again")
    return lines


def _numbers(path: Path, lines: list[str], width: int) -> np.ndarray:
    """Numbers [len(lines), width]; a line left out would shift every later frame, so blank ones are refused."""
    try:
        values = np.loadtxt(lines, delimiter=",", ndmin=2, comments=None, dtype=np.float64)
    except ValueError as error:
        raise BadCorpus(f"{path}: {error}", "download the official file again") from error
    if values.shape != (len(lines), width):
        raise BadCorpus(
            f"{path} has {len(lines)} lines that read as {values.shape[0]} x {values.shape[1]} numbers",
            f"every line holds {width}, none is blank: download the official file again",
        )
    return values


def _checked(path: Path, values: np.ndarray, spec: Track) -> np.ndarray:
    """float32 [T, D] with NaN for missing; BadCorpus names the first value that cannot be one."""
    missing = values == spec.missing
    fits = (values >= spec.low) & (values <= spec.high) & (not spec.whole or values == np.floor(values))
    if not (missing | fits).all():
        row, column = np.argwhere(~(missing | fits))[0]
        raise BadCorpus(
            f"{path}, line of labels {row + 1}: {values[row, column]:g} is no value of {'/'.join(spec.header[:2])}...",
            f"values are {spec.low:g} to {spec.high:g}, or {spec.missing:g} where missing",
        )
    return np.where(missing, np.nan, values).astype(np.float32)


def _read_multi_task(src: Path, release: Release, task: str, partial: bool) -> tuple[Labels, list[str]]:
    """The files of the multi-task set: 15 values for single frames; frames that are not listed have no label."""
    files = {s: next((release.files[n] for n in names if n in release.files), None) for s, names in MULTI_TASK.items()}
    if not any(files.values()):
        raise BadCorpus(f"no annotations of Aff-Wild2 below {src}", "see: affuse show aff_wild2")
    labels = Labels()
    splits: dict[str, str] = {}
    for split, path in files.items():
        for name, values in _listed_frames(path, labels.warnings).items() if path else ():
            if name in splits:
                raise BadCorpus(f"{path}: '{name}' is in both sets", "use the official annotations")
            splits[name] = split
            for track, part in zip(TRACKS, np.split(values, (2, 3), axis=1), strict=True):
                labels.values[track][name] = part
    labels.splits["multi_task"] = splits
    found = {MULTI_TASK[s][0]: int(path is not None) for s, path in files.items()}
    return labels, check_counts(found, dict.fromkeys(found, 1), "annotation files", partial)


def _listed_frames(path: Path, warnings: list[str]) -> dict[str, np.ndarray]:
    """Name -> values [last frame, 15], NaN where a frame is not listed."""
    lines = _lines(path)
    lines = lines[lines[0].startswith("image,") :]
    matches = [_IMAGE.fullmatch(line.partition(",")[0]) for line in lines]
    if None in matches:
        wrong = lines[matches.index(None)]
        raise BadCorpus(f"{path}: {wrong[:60]!r} does not begin with VIDEO/00001.jpg", "use the official file")
    numbers = _numbers(path, [line.partition(",")[2] for line in lines], 15)
    parts = zip(TRACKS.values(), np.split(numbers, (2, 3), axis=1), strict=True)
    values = np.concatenate([_checked(path, part, spec) for spec, part in parts], axis=1)
    names, inverse = np.unique([m[1] for m in matches if m], return_inverse=True)
    frames = np.array([int(m[2]) for m in matches if m])
    if (frames < 1).any():
        raise BadCorpus(f"{path}: '{names[inverse[frames < 1][0]]}' has a frame 00000", "frames count from 00001")
    if twice := len(lines) - len(np.unique(np.stack([inverse, frames]), axis=1).T):
        warnings.append(f"{path.name} lists {twice} images twice: the later line counts")
    order = np.argsort(inverse, kind="stable")
    found = {}
    for name, rows in zip(names, np.split(order, np.cumsum(np.bincount(inverse))[:-1]), strict=True):
        found[str(name)] = np.full((frames[rows].max(), 15), np.nan, dtype=np.float32)
        found[str(name)][frames[rows] - 1] = values[rows]
    return found


def _rows(
    release: Release, labels: Labels, together: bool, fps: float, short: list[str], partial: bool
) -> tuple[list[dict[str, Any]], dict[str, Clock]]:
    """Manifest rows, and when the frames of each name are shown."""
    names = sorted({name for splits in labels.splits.values() for name in splits})
    source = {n: n if n in release.videos else _PERSON.sub("", n) for n in names}
    given = {n: {s[n] for s in labels.splits.values() if n in s} for n in names}
    held = {source[n] for n in names if "valid" in given[n]}
    rows: list[dict[str, Any]] = []
    clocks: dict[str, Clock] = {}
    unusable: set[str] = set()
    for name in names:
        split = "valid" if "valid" in given[name] or (together and source[name] in held) else "train"
        clocks[name], origin, pictures = _clock(name, release.videos.get(source[name]), fps, partial)
        if origin != "video":
            unusable.add(source[name])
        crops = release.crops.get(name)
        row = {
            "id": name,
            "speaker": name,
            "source": source[name],
            "split": split,
            "video": str(release.videos[source[name]]) if origin == "video" else "",
            "crop": name.rpartition("_")[2] if source[name] != name else "",
            "frames": max(len(values[name]) for values in labels.values.values() if name in values),
            "pictures": pictures,
            "fps": clocks[name].fps,
            "fps_from": origin,
            "crops": sum(p.suffix == ".jpg" for p in crops.iterdir()) if crops else 0,
        }
        rows.append(row | {f"split_{c}": splits.get(name, "") for c, splits in labels.splits.items()})
    videos = len(set(source.values()))
    short += check_counts({"videos": videos - len(unusable)}, {"videos": videos}, "Aff-Wild2", partial)
    return rows, clocks


def _clock(name: str, video: Path | None, fps: float, partial: bool) -> tuple[Clock, str, int]:
    """(when frames are shown, where that comes from, number of pictures) of a video."""
    if video is not None:
        from affuse.media.probe import probe
        from affuse.media.video import frame_times

        try:
            track = probe(video).video
        except BadMedia:
            if not partial:
                raise
            track = None
        if track is not None:
            times = np.zeros(0) if track.even else frame_times(video)
            return Clock(track.fps, track.start, times), "video", track.frames
    named = _NAMED_RATE.match(name)
    told = named is not None and int(named[1]) > 0
    rate = float(named[1]) if named is not None and told else fps
    return Clock(rate, 0.0, np.zeros(0)), "name" if told else "assumed", 0


def _warn(labels: Labels, rows: list[dict[str, Any]], rate: float) -> None:
    """What a user must know: contradictory sets, guessed and resampled frame rates, lines without pictures."""
    splits = labels.splits.values()
    mixed = sum(len({s[row["id"]] for s in splits if row["id"] in s}) > 1 for row in rows)
    guessed = {kind: sum(row["fps_from"] == kind for row in rows) for kind in ("name", "assumed")}
    other = sum(abs(row["fps"] - rate) > 1e-6 for row in rows)
    off = {r["id"]: r["frames"] - r["pictures"] for r in rows if r["pictures"]}
    worst = max(off, key=lambda n: abs(off[n]), default="")
    lines = {
        "how many videos and frames the sets have differs between editions and is not checked": True,
        f"{mixed} rows are in the training set of one challenge and the validation set of another: held out as valid "
        "(columns split_*; task=NAME imports one challenge with its official sets)": mixed,
        f"frame rates of {guessed['name']} rows are read from their names": guessed["name"],
        f"frame rates of {guessed['assumed']} rows are not known: taken as the option fps": guessed["assumed"],
        f"{other} rows are not at {rate:g} frames per second: label tracks are on a clock of {rate:g} Hz, official "
        "scores "
        "are per frame (columns frames and fps)": other,
        f"label lines and pictures differ in number, most in '{worst}': {off.get(worst, 0):+d}": off.get(worst, 0),
    }
    labels.warnings += [line for line, holds in lines.items() if holds]


def _write_track(
    corpus: Corpus, name: str, values: dict[str, np.ndarray], clocks: dict[str, Clock], rate: float
) -> None:
    from affuse.stores.store import import_arrays

    timed = [on_clock(v, clocks[n].fps, clocks[n].start, rate, clocks[n].times) for n, v in values.items()]
    offsets = np.concatenate([[0], np.cumsum([len(t) for t in timed])])
    import_arrays(corpus.annotation_path(name), list(values), np.concatenate(timed), offsets, "vision", rate)


def on_clock(
    values: np.ndarray, fps: float, start: float, rate: float, times: np.ndarray | Sequence[float] = ()
) -> np.ndarray:
    """Frame values [T, D] as steps of `rate` Hz from 0 s: of the frame shown then, NaN before `start` s.

    `times` [n]: when the frames of an uneven video begin (s), half a step early as pictures are shown; values beyond
    them follow at `fps`.
    """
    given = np.asarray(times, dtype=float)[: len(values) + 1]
    rest = np.arange(len(values) + 1 - len(given))
    begins = np.concatenate([given, (given[-1] + (rest + 1) / fps) if len(given) else start + rest / fps])
    early = 0.5 / max(fps, rate) if len(given) else 1e-6 / fps
    steps = np.arange(int(np.ceil(begins[-1] * rate - 1e-6)))
    frame = np.searchsorted(begins - early, steps / rate, side="right") - 1
    return np.where((frame >= 0)[:, None], values[np.clip(frame, 0, len(values) - 1)], np.nan).astype(np.float32)
