"""C-EXPR-DB: compound expressions in the wild: annotated intervals of videos, or the challenge's unlabelled videos."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np

from affuse.core.errors import BadConfig, BadCorpus
from affuse.core.labels import canonical
from affuse.corpora.manifest import Corpus, check_counts, write_corpus
from affuse.corpora.reading.release import PICTURE, below, first, media, read_csv, seconds

CARD = {
    "summary": "C-EXPR-DB: 125 intervals of 56 videos, 7 compound expressions and Other; or the 56 videos of the ABAW "
    "challenge",
    "source": "Kollias, Multi-Label Compound Expression Recognition: C-EXPR Database & Network, CVPR 2023; intervals: "
    "Richet et al. 2024",
    "entry": "import_c_expr_db",
    "licence": "none stated for the annotations; videos: by agreement with the organisers of ABAW, research use",
    "download": "C-EXPR-DB/ (annotation, folds) of github.com/nicolas-richet/feature-vs-text-compound-emotion; videos "
    "from the ABAW organisers",
    "layout": "annotation/NN.csv (begin, end, one column per class); folds/split-K/{train,val,test}.txt; "
    "videos/NN.mp4, NN = 01..56",
    "counts": {
        "Fearfully Surprised": 24,
        "Happily Surprised": 15,
        "Sadly Surprised": 13,
        "Disgustedly Surprised": 10,
        "Angrily Surprised": 8,
        "Sadly Fearful": 19,
        "Sadly Angry": 16,
        "Other": 20,
        "annotation files": 56,
        "videos": 56,
    },
    "splits": "none (folds are made by video); folds=published: 5 folds by interval, which share 92 of 125 intervals' "
    "videos with training",
}
COUNTS: dict[str, int] = CARD["counts"]  # type: ignore[assignment]
BEGIN, END = "Begin Time - hh:mm:ss.ms", "End Time - hh:mm:ss.ms"
CLASSES = tuple(COUNTS)[:8]  # in the order of the files, which is the order of the numbers in the fold lists
OTHER = CLASSES[-1]
VIDEOS = tuple(f"{n:02d}" for n in range(1, 57))
SILENCE = "nobody is speaking"
Row = dict[str, object]
Lists = dict[str, dict[str, tuple[str, str]]]  # list -> interval -> (class, words)


def import_c_expr_db(
    src: Path,
    dst: Path,
    *,
    partial: bool = False,
    part: Literal["annotated", "challenge"] = "annotated",
    folds: Literal["grouped", "published"] = "grouped",
    other: bool = True,
    rate: float = 30.0,
) -> Corpus:
    """Import the annotated intervals below `src` (rows inside their videos), or the challenge's untrimmed videos.

    annotated: `source` and conversation are the video; the classes are those of compound-8, in the order of the files.
    `other=false` leaves the intervals of Other out, with a warning that counts them: the classes are compound-7 then.
    The label track `expression` holds each interval's class at `rate` Hz, [T, 1]: its index. Words come from the fold
    lists where those carry transcripts. challenge: split test, no labels. Raises BadCorpus for damaged or foreign
    annotations, wrong counts, fold lists that contradict the annotations, and where nothing but Other is there.
    """
    if not rate > 0:
        raise BadConfig(f"rate = {rate} is not a rate", "give steps per second above 0")
    videos = {name: path for name, path in media(src, PICTURE).items() if name in VIDEOS}
    if part == "challenge":
        return _challenge(dst, videos, partial)
    rows = [row for name, path in _files(src).items() for row in _intervals(path, name, videos)]
    found = Counter(str(row["expression"]) for row in rows)
    found |= {"annotation files": len({row["source"] for row in rows}), "videos": len(videos)}
    short = check_counts(found, COUNTS, "C-EXPR-DB", partial)
    warnings = _apply_lists(src, rows, folds == "published", partial)
    if not other:
        rows, dropped = _without_other(rows)
        warnings += dropped
    extra = {"licence": CARD["licence"], "warnings": warnings, **({"partial": short} if short else {})}
    corpus = write_corpus(dst, rows, "c_expr_db", "compound-8" if other else "compound-7", **extra)
    _write_track(corpus, rate)
    return corpus


def _without_other(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """The intervals of the seven compound expressions, and a line that counts the others (none: no line)."""
    kept = [row for row in rows if row["expression"] != OTHER]
    if not kept:
        raise BadCorpus(
            f"all {len(rows)} intervals are Other, and other=false leaves those out", "leave other=false out"
        )
    seconds_lost = sum(_seconds(row) for row in rows if row["expression"] == OTHER)
    count = f"{len(rows) - len(kept)} of {len(rows)} intervals ({seconds_lost:.1f} s)"
    return kept, [f"other=false: {count} are Other and were left out"] if len(kept) < len(rows) else []


def _seconds(row: Row) -> float:
    return float(str(row["end"])) - float(str(row["start"]))


def _challenge(dst: Path, videos: dict[str, Path], partial: bool) -> Corpus:
    if not videos:
        raise BadCorpus(
            "none of the challenge's videos 01.mp4 ... 56.mp4 is there", "ask the organisers of ABAW for them"
        )
    short = check_counts({"videos": len(videos)}, {"videos": len(VIDEOS)}, "C-EXPR-DB challenge", partial)
    rows = [
        {"id": n, "conversation": n, "source": n, "split": "test", "video": str(p)} for n, p in sorted(videos.items())
    ]
    extra = {"licence": CARD["licence"], **({"partial": short} if short else {})}
    unlabelled = "the challenge's labels are not public: these videos can be analysed, not scored"
    return write_corpus(dst, rows, "c_expr_db_challenge", "compound-7", warnings=[unlabelled], **extra)


def _files(src: Path) -> dict[str, Path]:
    files = {p.stem: p for p in below(src, "*.csv") if p.parent.name == "annotation"}
    if not files:
        raise BadCorpus(f"no annotation/01.csv below {src}", "see: affuse show c_expr_db (part=challenge needs none)")
    if foreign := sorted(set(files) - set(VIDEOS)):
        raise BadCorpus(f"{files[foreign[0]]} is no annotation of a video 01 ... 56", "remove foreign files")
    return files


def _intervals(path: Path, name: str, videos: dict[str, Path]) -> list[Row]:
    """The rows of one video in time order; ids as in the fold lists: video, class, number within both."""
    table = read_csv(path, BEGIN, END, *CLASSES)
    if foreign := sorted(set(table) - {BEGIN, END, *CLASSES}):
        raise BadCorpus(f"{path} has a column '{foreign[0]}' that the release lacks", "use the official file")
    seen: Counter[str] = Counter()
    rows: list[Row] = []
    last = 0.0
    lines = zip(table.to_dict("records"), seconds(table, BEGIN), seconds(table, END), strict=True)
    for i, (cells, begin, end) in enumerate(lines):
        where = f"{path}, interval {i + 1}"
        if not (begin >= last and end > begin):
            raise BadCorpus(
                f"{where}: {cells[BEGIN]!r} to {cells[END]!r} is no time, or not after the interval before",
                "times are hh:mm:ss.mmm; intervals follow each other: use the official file",
            )
        last = end
        chosen = _chosen(where, cells)
        key = chosen.replace(" ", "-")
        rows.append(
            {
                "id": f"{name}_{key}_{seen[key]}",
                "conversation": name,
                "position": i,
                "source": name,
                "start": begin,
                "end": end,
                "video": str(videos.get(name, "")),
                "label": chosen,
                "expression": chosen,
            }
        )
        seen[key] += 1
    return rows


def _chosen(where: str, cells: dict[str, str]) -> str:
    """The one class that is marked; some files have blanks around the mark."""
    marks = {c: cells[c].strip() for c in CLASSES if cells[c].strip()}
    if set(marks.values()) != {"1"} or len(marks) != 1:
        raise BadCorpus(f"{where}: marked {marks or 'no class'}", "exactly one class holds a 1: use the official file")
    return next(iter(marks))


def _apply_lists(src: Path, rows: list[Row], published: bool, partial: bool) -> list[str]:
    """Check the fold lists, take their transcripts, and write the column `fold` if `published`; returns warnings."""
    folder = first(src, "split-0")
    if folder is None:
        if published:
            raise BadCorpus(f"no folds/split-0 below {src}", "download folds/ too, or leave folds=published out")
        return []
    by_id = {str(row["id"]): row for row in rows}
    folds = [_read_lists(folder.with_name(f"split-{k}"), by_id, partial) for k in range(5)]
    tested = Counter(name for lists in folds for name in lists["val"])
    if wrong := next((row["id"] for row in rows if tested[str(row["id"])] != 1), None):
        raise BadCorpus(
            f"{folder.parent}: '{wrong}' is in {tested[str(wrong)]} of the 5 lists val.txt", "use the official lists"
        )
    fold = {name: k for k, lists in enumerate(folds) for name in lists["val"]}
    for row in rows:
        words = folds[fold[str(row["id"])]]["val"][str(row["id"])][1]
        row["text"] = "" if words == SILENCE else words
        if published:
            row["fold"] = fold[str(row["id"])]
    return _leak(folds) if published else []


def _read_lists(folder: Path, rows: dict[str, Row], partial: bool) -> Lists:
    """The lists of one fold; intervals that a partial import lacks are left out."""
    lists: Lists = {}
    for name in ("train", "val", "test"):
        path = folder / f"{name}.txt"
        if not path.is_file():
            raise BadCorpus(f"no {path}", "the folds are split-0 ... split-4 with train.txt, val.txt and test.txt")
        found = dict(_entry(path, line) for line in path.read_bytes().splitlines() if line.strip())
        if not partial and (unknown := sorted(set(found) - set(rows))):
            raise BadCorpus(
                f"{path}: no annotation has an interval '{unknown[0]}'", "use annotations and folds of one release"
            )
        lists[name] = {k: v for k, v in found.items() if k in rows}
        for interval, (label, _) in lists[name].items():
            if rows[interval]["expression"] != label:
                raise BadCorpus(
                    f"{path}: '{interval}' is {label}, its annotation says {rows[interval]['expression']}",
                    "use annotations and folds of one release",
                )
    if both := sorted(set(lists["train"]) & set(lists["val"])):
        raise BadCorpus(f"{folder}: '{both[0]}' is in train.txt and in val.txt", "use the official lists")
    return lists


def _entry(path: Path, line: bytes) -> tuple[str, tuple[str, str]]:
    try:
        match = re.fullmatch(r"[\w-]+/([\w-]+),([0-7])(?:,(.*))?", line.decode().strip())
    except UnicodeDecodeError:
        match = None
    if match is None:
        raise BadCorpus(f"{path}: {line!r} is not CLASS/INTERVAL,0..7", "use the lists of C-EXPR-DB")
    return match[1], (CLASSES[int(match[2])], (match[3] or "").strip())


def _leak(folds: list[Lists]) -> list[str]:
    """How the published folds leak: validation intervals whose video is in the training list too."""
    shared, total = [], []
    for lists in folds:
        trained = {name.split("_")[0] for name in lists["train"]}
        shared.append(sum(name.split("_")[0] in trained for name in lists["val"]))
        total.append(len(lists["val"]))
    each = ", ".join(f"{a}/{b}" for a, b in zip(shared, total, strict=True))
    line = (
        f"the published folds leak: {sum(shared)} of {sum(total)} validation intervals come from a video of their "
        f"training list ({each})"
    )
    same = sum(lists["val"].keys() == lists["test"].keys() for lists in folds)
    equal = f"in {same} of {len(folds)} published folds the test list is the validation list"
    return [line, f"{equal}: what selects is what scores"]


def _write_track(corpus: Corpus, rate: float) -> None:
    """Each interval's class at every grid point: an interval is exact on any clock, no frame is needed."""
    from affuse.media.video import grid_steps
    from affuse.stores.store import import_arrays

    table = corpus.table
    lengths = [max(1, grid_steps(duration, rate)) for duration in table["end"] - table["start"]]
    index = [corpus.space.labels.index(canonical(label)) for label in table["label"]]
    values = np.repeat(np.array(index, dtype=np.float32), lengths)[:, None]
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    import_arrays(corpus.annotation_path("expression"), list(table["id"]), values, offsets, "vision", rate)
