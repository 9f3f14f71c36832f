"""Community feature pickles of sentiment corpora: MMSA, MulT and CARAT layouts, recognised by their keys and shapes.

Each is a dict of splits of padded arrays [N, T, D]. Which steps are real is found from the data: stated lengths, the
BERT mask, else the rows of zeros before and after; a row of zeros in between is absent content.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from affuse.core.errors import BadCorpus
from affuse.core.pickles import load
from affuse.core.types import Feature, Modality
from affuse.corpora.reading.release import mend
from affuse.corpora.sentiment.csd import feature, finite

SPLITS = {"train": "train", "valid": "valid", "val": "valid", "dev": "valid", "test": "test"}
STREAMS: dict[Modality, tuple[str, ...]] = {
    "text": ("text", "src-text"),
    "audio": ("audio", "src-audio"),
    "vision": ("vision", "src-visual"),
}
UNIMODAL = {"T": "sentiment_text", "A": "sentiment_audio", "V": "sentiment_vision"}
# Label vector of the CMU-MultimodalSDK after the sentiment, in affuse's names; CARAT numbers them from 4.
EMOTIONS = ("happy", "sad", "angry", "surprise", "disgust", "fear")
Row = dict[str, Any]
_SEGMENT = re.compile(r"(.+)\[(\d+)\]")


@dataclass
class FeaturePickle:
    """Checked content: manifest `rows`, and per stream and split the array with its window and used steps."""

    path: Path
    layout: str
    rows: list[Row] = field(default_factory=list)
    arrays: dict[Modality, dict[str, Window]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def features(self, modality: Modality) -> Iterator[tuple[str, Feature]]:
        """(id, Feature) of every utterance."""
        for split, window in self.arrays[modality].items():
            ids = [row["id"] for row in self.rows if row["split"] == split]
            for name, x, used, first, last in zip(ids, window.x, window.used, window.first, window.last, strict=True):
                yield name, feature(finite(x[first:last]), used[first:last])

    def width(self, modality: Modality) -> int:
        """Numbers per step."""
        return int(next(iter(self.arrays[modality].values())).x.shape[2])


@dataclass
class Window:
    """x [N, T, D]; used [N, T]: steps with content; the utterance is x[i, first[i]:last[i]]."""

    x: np.ndarray
    used: np.ndarray
    first: np.ndarray
    last: np.ndarray


def is_pickle(head: bytes) -> bool:
    """Whether a file that begins with these bytes says that it is a pickle (protocol 2 to 5)."""
    return len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5


def read_pickle(path: Path) -> FeaturePickle:
    """The checked content of a feature pickle.

    Raises BadFeatures (refused or damaged, see core.pickles) or BadCorpus naming the key that does not fit.
    """
    content = load(path)
    splits = {SPLITS[k]: v for k, v in content.items() if k in SPLITS} if isinstance(content, dict) else {}
    if not splits:
        keys = ", ".join(map(str, list(content)[:6])) if isinstance(content, dict) else type(content).__name__
        raise _bad(path, f"no splits train, valid, test in it ({keys})")
    if len(splits) < sum(k in SPLITS for k in content):
        raise _bad(path, f"a split is there under two names: {', '.join(k for k in content if k in SPLITS)}")
    if wrong := [k for k, v in splits.items() if not isinstance(v, dict)]:
        raise _bad(path, f"'{wrong[0]}' is a {type(splits[wrong[0]]).__name__}, not a dict of arrays")
    found = FeaturePickle(path, _layout(path, splits))
    for split, part in splits.items():
        found.rows += _rows(found, split, part)
    for modality, names in STREAMS.items():
        if any(key in part for part in splits.values() for key in names):
            found.arrays[modality] = {s: _window(path, s, part, modality, names) for s, part in splits.items()}
    if not found.arrays:
        raise _bad(path, "none of the arrays text, audio, vision in it")
    _check_widths(found)
    for split, part in splits.items():
        _trim(found, split, part)
    if extra := [str(k) for k in content if k not in SPLITS and isinstance(content[k], dict) and "id" in content[k]]:
        found.warnings.append(f"{path.name}: '{extra[0]}' is none of train, valid, test and was left out")
    return found


def _layout(path: Path, splits: Mapping[str, Mapping[str, Any]]) -> str:
    for layout, key in {"MMSA": "regression_labels", "MulT": "labels", "CARAT": "tgt"}.items():
        has = [key in part for part in splits.values()]
        if all(has):
            return layout
        if any(has):
            raise _bad(path, f"'{key}' is in one split but not in another")
    keys = ", ".join(map(str, list(next(iter(splits.values())))[:8]))
    raise _bad(path, f"none of the keys regression_labels (MMSA), labels (MulT), tgt (CARAT): {keys}")


def _rows(found: FeaturePickle, split: str, part: Mapping[str, Any]) -> list[Row]:
    path = found.path
    labels = _targets(path, split, part["tgt"]) if found.layout == "CARAT" else _labels(path, split, part, found.layout)
    n = len(labels)
    columns = ("sentiment", *EMOTIONS) if n and labels.shape[1] == 7 else ("sentiment",)
    rows = [{"split": split, **dict(zip(columns, map(float, line), strict=True))} for line in labels]
    for letter, column in UNIMODAL.items():
        if (values := part.get(f"regression_labels_{letter}")) is not None:
            given = _numbers(path, split, f"regression_labels_{letter}", values, n)
            rows = [{**row, column: float(v)} for row, v in zip(rows, given[:, 0], strict=True)]
    words = _sized(path, split, part, "raw_text", n)
    names = _identities(found, split, _sized(path, split, part, "id", n), n)
    said = [""] * n if words is None else [mend(_string(w)) for w in words]
    return [{**row, **name, "text": text} for row, name, text in zip(rows, names, said, strict=True)]


def _sized(path: Path, split: str, part: Mapping[str, Any], key: str, n: int) -> Any:
    """A list or array of N strings or of rows of strings; None where the pickle has none."""
    values = part.get(key)
    if values is None:
        return None
    if _length(values) != n:
        raise _bad(path, f"{split}: {_length(values)} {key} for {n} labels")
    letters = isinstance(values, np.ndarray) and values.dtype.kind == "U" and values.nbytes
    # a letter beyond Unicode would break Python itself
    if letters and (np.ascontiguousarray(values).view(np.uint32) > 0x10FFFF).any():
        raise _bad(path, f"{split}: {key} holds what is no character")
    return values


def _length(values: Any) -> int:
    """Elements of a list or array; 0 for anything else."""
    listed = isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.ndim > 0)
    return len(values) if listed else 0


def _labels(path: Path, split: str, part: Mapping[str, Any], layout: str) -> np.ndarray:
    key = "regression_labels" if layout == "MMSA" else "labels"
    values = _numbers(path, split, key, part[key], None)
    if values.shape[1] not in (1, 7):
        raise _bad(
            path, f"{split}: {key} is {list(np.shape(part[key]))}, expected one sentiment, or sentiment and 6 emotions"
        )
    return values


def _numbers(path: Path, split: str, key: str, values: Any, n: int | None) -> np.ndarray:
    """Values as [N, columns] float64; NaN is a missing label, infinity is not a label."""
    try:
        if np.iscomplexobj(values):
            raise TypeError("complex numbers")
        table = np.asarray(values, dtype=np.float64)
        table = table.reshape(len(table), -1) if table.size else table.reshape(len(table), 1)
    except (ValueError, TypeError) as error:
        raise _bad(path, f"{split}: {key} are not numbers ({error})") from error
    if n is not None and len(table) != n:
        raise _bad(path, f"{split}: {len(table)} {key} for {n} labels")
    if np.isinf(table).any():
        raise _bad(path, f"{split}: {key} holds infinity at {int(np.flatnonzero(np.isinf(table).any(1))[0])}")
    return table


def _targets(path: Path, split: str, targets: Any) -> np.ndarray:
    """CARAT: lists of class numbers, 4 ... 9 for EMOTIONS, below 4 for marks; [N, 7] with the sentiment missing."""
    if not _length(targets):
        raise _bad(path, f"{split}: tgt 0 is missing: a {type(targets).__name__}, no list of lists of class numbers")
    table = np.zeros((len(targets), 7))
    table[:, 0] = np.nan
    for i, numbers in enumerate(targets):
        try:
            chosen = [int(float(k)) for k in numbers]
        except (ValueError, TypeError, OverflowError) as error:
            raise _bad(path, f"{split}: tgt {i} is {numbers!r}"[:200] + ", not a list of class numbers") from error
        if any(not 0 <= k < 10 for k in chosen):
            raise _bad(path, f"{split}: tgt {i} names class {max(chosen)}, expected 0 to 9")
        table[i, [k - 3 for k in chosen if k >= 4]] = 1.0
    return table


def _identities(found: FeaturePickle, split: str, ids: Any, n: int) -> list[Row]:
    """id, conversation and position of N utterances: video$_$clip, video[k], or (video, start, end)."""
    if ids is None:
        found.warnings.append(f"{found.path.name}: {split} has no ids: which utterances share a video is not known")
        return [{"id": f"{split}_{i:05d}"} for i in range(n)]
    if n and _length(ids[0]):
        return _timed(found.path, split, ids)
    rows = []
    for name in map(_string, ids):
        if match := _SEGMENT.fullmatch(name):
            rows.append({"id": name, "conversation": match[1], "position": int(match[2])})
            continue
        video, mark, clip = name.rpartition("$_$") if "$_$" in name else name.rpartition("_")
        if not (mark and video and clip):
            raise _bad(found.path, f"{split}: id '{name}' names no video and clip (video$_$clip)")
        rows.append({"id": f"{video}_{clip}", "conversation": video, "position": int(clip) if clip.isdecimal() else 0})
    return rows


def _timed(path: Path, split: str, ids: Any) -> list[Row]:
    """MulT: (video, start, end); the position is the rank in the video."""
    try:
        named = [(_string(v), float(_string(a)), float(_string(b))) for v, a, b in ids]
    except (ValueError, TypeError) as error:
        raise _bad(path, f"{split}: ids are not (video, start, end): {error}") from error
    order = sorted(range(len(named)), key=lambda i: named[i])
    seen: Counter[str] = Counter()
    rows: list[Row] = [{} for _ in named]
    for i in order:
        video, start, end = named[i]
        times = {"segment_start": start, "segment_end": end}
        rows[i] = {"id": f"{video}[{start:g}-{end:g}]", "conversation": video, "position": seen[video], **times}
        seen[video] += 1
    return rows


def _string(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value).encode("utf-8", "replace").decode()


def _window(path: Path, split: str, part: Mapping[str, Any], modality: str, names: tuple[str, ...]) -> Window:
    key = next((name for name in names if name in part), None)
    if key is None:
        raise _bad(path, f"{split} has no '{names[0]}', another split has")
    x = _array(path, split, key, part[key])
    n = _length(part.get("regression_labels", part.get("labels", part.get("tgt"))))
    if x.dtype.kind not in "fiu" or x.ndim != 3 or len(x) != n:
        raise _bad(path, f"{split}: {key} is {x.dtype}{list(x.shape)}, expected numbers [{n}, T, D]")
    used: np.ndarray = np.asarray(x.any(-1))  # what is not finite is not zero either
    mask = _mask(path, split, part, x) if modality == "text" else None
    first, last = _ends(used if mask is None else mask)
    return Window(x, used if mask is None else used & mask, first, last)


def _array(path: Path, split: str, key: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise _bad(path, f"{split}: {key} is not one array ({error})") from error


def _mask(path: Path, split: str, part: Mapping[str, Any], x: np.ndarray) -> np.ndarray | None:
    """BERT fills padding with numbers: its own attention mask, text_bert[:, 1], knows better."""
    if (tokens := part.get("text_bert")) is None:
        return None
    tokens = _array(path, split, "text_bert", tokens)
    if tokens.dtype.kind not in "fiub" or tokens.ndim != 3 or tokens.shape[:2] != (len(x), 3):
        raise _bad(path, f"{split}: text_bert is {tokens.dtype}{list(tokens.shape)}, expected numbers [{len(x)}, 3, L]")
    return tokens[:, 1] > 0 if tokens.shape[2] == x.shape[1] else None


def _ends(used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First used step and the step after the last [N]; (0, 0) where none is."""
    if used.shape[1] == 0:
        return np.zeros(len(used), int), np.zeros(len(used), int)
    any_ = used.any(1)
    return np.where(any_, used.argmax(1), 0), np.where(any_, used.shape[1] - used[:, ::-1].argmax(1), 0)


def _check_widths(found: FeaturePickle) -> None:
    for modality, parts in found.arrays.items():
        widths = {split: window.x.shape[2] for split, window in parts.items()}
        if len(set(widths.values())) > 1:
            raise _bad(found.path, f"{modality} has different widths per split: {widths}")


def _trim(found: FeaturePickle, split: str, part: Mapping[str, Any]) -> None:
    """Set the windows of a split: stated lengths first, else what is shared by streams on one time grid."""
    windows = {m: parts[split] for m, parts in found.arrays.items()}
    stated = {m: part.get(f"{m}_lengths") for m in windows}
    for modality, lengths in stated.items():
        if lengths is not None:
            _state(found, split, modality, lengths)
    one_grid = len({w.x.shape[1] for w in windows.values()}) == 1 and all(v is None for v in stated.values())
    if one_grid and len(windows) > 1:
        first, last = _ends(np.any([w.used for w in windows.values()], axis=0))
        for window in windows.values():
            window.first, window.last = first, last
    for modality, window in windows.items():
        if (holes := ~np.isfinite(window.x).all(-1)).any():
            count = int((~np.isfinite(window.x[holes])).sum())
            found.warnings.append(
                f"{found.path.name}: {split}: {count} numbers of {modality} in {int(holes.any(1).sum())} utterances "
                "are "
                "NaN or infinite; they count as missing"
            )


def _state(found: FeaturePickle, split: str, modality: Modality, lengths: Any) -> None:
    """Windows from stated lengths; padding may stand before (all zeros there) or after the utterance."""
    window = found.arrays[modality][split]
    steps, what = window.x.shape[1], f"{modality}_lengths"
    n = _numbers(found.path, split, what, lengths, len(window.x))[:, 0]
    if not ((n >= 0) & (n <= steps) & (n == np.round(n))).all():
        wrong = float(n[np.flatnonzero(~((n >= 0) & (n <= steps) & (n == np.round(n))))[0]])
        raise _bad(found.path, f"{split}: {what} holds {wrong:g}, the arrays have {steps} steps")
    n = n.astype(int)
    leading = (window.last > n) & (window.first >= steps - n)
    beyond = int(((window.last > n) & ~leading).sum())
    if beyond:
        found.warnings.append(
            f"{found.path.name}: {split}: {beyond} utterances have {modality} beyond their stated length; cut there"
        )
    window.first = np.where(leading, steps - n, 0)
    window.last = window.first + n


def _bad(path: Path, what: str) -> BadCorpus:
    return BadCorpus(f"{path}: {what}", "give a pickle as MMSA, MulT or CARAT publish it")
