"""The fields of an ERC feature pickle, distinguished by what they hold: file names and tuple lengths lie."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from affuse.core.errors import BadFeatures


@dataclass(frozen=True)
class Field:
    """One field of the tuple: its kind (by content), its name in messages, its content by dialogue (or id set)."""

    kind: str
    says: str
    content: Any = None


def name_of(key: object) -> str:
    """A dialogue's name; 12, numpy's 12 and "12" are the same dialogue."""
    text = key.decode("latin1") if isinstance(key, bytes) else str(key)
    return f"dia{int(text)}" if re.fullmatch(r"\d{1,9}", text) else text


def sniff(path: Path, content: Any) -> list[Field]:
    """The fields of the tuple; BadFeatures where it is none."""
    if not isinstance(content, tuple | list) or not 2 <= len(content) <= 64:
        what = f"{type(content).__name__} of {len(content)}" if hasattr(content, "__len__") else type(content).__name__
        keys = f" with keys {sorted(map(str, content))[:6]}" if isinstance(content, dict) else ""
        raise BadFeatures(
            f"{path} holds a {what}{keys}, not a tuple of fields", "see the layout: affuse show erc_features"
        )
    return [_field(part) for part in content]


def _field(part: Any) -> Field:
    if isinstance(part, dict) and part:
        by_name = {name_of(k): v for k, v in part.items()}
        lists = [_items(v) for v in by_name.values()]
        if len(by_name) == len(part) and all(v is not None for v in lists):
            kind, says = _kind([v for v in lists if v is not None])
            return Field(kind, says, dict(zip(by_name, lists, strict=True)))
        return Field("unknown", f"dict of {len(part)} {type(next(iter(part.values()))).__name__}s")
    size = part.size if isinstance(part, np.ndarray) else len(part) if isinstance(part, Collection) else 1
    if part is None or size == 0:
        return Field("empty", "nothing")
    items = list(part) if isinstance(part, set | frozenset) else _items(part)
    if items is not None and all(
        isinstance(v, str | bytes | int | np.integer) and not isinstance(v, bool) for v in items
    ):
        return Field("set", f"set of {len(items)} ids", [name_of(v) for v in items])
    return Field("unknown", type(part).__name__)


def _items(value: Any) -> list[Any] | None:
    """The utterances of one dialogue, None where the value is no sequence."""
    listed = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)
    return list(value) if listed else None


def _kind(lists: list[list[Any]]) -> tuple[str, str]:
    """Kind and description of a per-dialogue field, by its content alone."""
    flat = [v for part in lists for v in part]
    if not flat:
        return "empty", "empty lists"
    if all(isinstance(v, str) for v in flat):
        return _kind_of_strings(lists, flat)
    if all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in flat):
        if max(map(len, lists)) > 1 and all(a < b for part in lists for a, b in zip(part, part[1:])):
            return "ids", "utterance numbers"
        low, high = int(min(flat)), int(max(flat))
        fits = low >= -1 and high < 64
        return ("classes", f"classes {low}..{high}") if fits else ("unknown", f"integers {low}..{high}")
    return _kind_of_vectors(lists)


def _kind_of_strings(lists: list[list[str]], flat: list[str]) -> tuple[str, str]:
    different, blanks = len(set(flat)), sum(bool(re.search(r"\s", v.strip())) for v in flat)
    unique = all(len(set(part)) == len(part) for part in lists)
    if unique and not blanks and all(re.search(r"\d", v) for v in flat):
        return "ids", f"utterance ids like {flat[0]}"
    if blanks > 0.2 * len(flat) and different > 0.5 * len(flat):
        return "words", f"{len(flat)} sentences"
    return "speakers", f"{different} speaker names"


def _kind_of_vectors(lists: list[list[Any]]) -> tuple[str, str]:
    matrices = [matrix(part) for part in lists if part]
    if any(m is None for m in matrices):
        first = next(v for part in lists for v in part)
        return "unknown", f"lists of {type(first).__name__}s that are no vectors of one width"
    widths = Counter(m.shape[1] for m in matrices if m is not None)
    if len(widths) > 1:
        return "unknown", f"vectors of widths {', '.join(map(str, sorted(widths)[:6]))} in one field"
    width = next(iter(widths))
    every = np.concatenate([m for m in matrices if m is not None])
    single = (np.isin(every, (0, 1)).all(axis=1) & (every.sum(axis=1) == 1)).mean() if width < 64 else 0.0
    return ("one-hot", f"one-hot speakers of {width}") if single > 0.5 else ("vectors", f"vectors of {width}")


def matrix(part: Sequence[Any]) -> np.ndarray | None:
    """[n, D] float32 of the utterances of a dialogue, None where they are no numbers of one width."""
    try:
        rows = np.asarray(part)
    except (ValueError, TypeError, MemoryError):
        return None
    fits = rows.ndim == 2 and rows.dtype.kind in "fiub" and rows.shape[1] > 0
    with np.errstate(over="ignore"):
        return rows.astype(np.float32) if fits else None


def refusal(path: Path, found: Sequence[Field], why: str, remedy: str = "") -> BadFeatures:
    """The error that says why, and what each field of the file was taken for."""
    listed = "; ".join(f"{i}: {f.says}" for i, f in enumerate(found, start=1))
    return BadFeatures(f"{path}: {why}. Its fields: {listed}", remedy or "see the layouts: affuse show erc_features")


def roles_of(path: Path, found: list[Field]) -> dict[str, Field]:
    """labels and speakers, and where there: sentiment, ids, words; BadFeatures where content does not decide."""
    kinds: dict[str, list[Field]] = {}
    for field in found:
        kinds.setdefault("speakers" if field.kind == "one-hot" else field.kind, []).append(field)
    if kinds.get("unknown", []) not in ([], [found[-1]]):  # the loaders of 10 and 13 fields drop the last one unread
        raise refusal(path, found, "a field is of no known kind")
    for kind, most in (("ids", 1), ("words", 1), ("speakers", 1), ("classes", 2)):
        if len(kinds.get(kind, [])) > most:
            raise refusal(path, found, f"{len(kinds[kind])} fields look like {kind}")
    for kind in ("classes", "speakers", "set"):
        if kind not in kinds:
            raise refusal(path, found, f"no field holds {'id sets' if kind == 'set' else kind}")
    # Of two class fields the one of at most three classes is the sentiment.
    few = [len({int(v) for part in f.content.values() for v in part}) <= 3 for f in kinds["classes"]]
    if len(few) == 2 and few[0] == few[1]:
        raise refusal(path, found, "two fields hold classes, and which is the emotion cannot be told")
    labels = kinds["classes"][few.index(False) if len(few) == 2 else 0]
    rest = [f for f in kinds["classes"] if f is not labels]
    roles: dict[str, Field] = {kind: kinds[kind][0] for kind in ("speakers", "ids", "words") if kind in kinds}
    return {"labels": labels, **roles, **({"sentiment": rest[0]} if rest else {})}


def check_shapes(path: Path, found: list[Field], labels: Mapping[str, list[Any]], partial: bool) -> list[str]:
    """Every field tells of the same dialogues and as many utterances of each; what feature fields lack otherwise."""
    short = []
    for i, field in enumerate(found, start=1):
        if not isinstance(field.content, dict) or field.kind in ("empty", "unknown"):
            continue
        foreign, absent = sorted(set(field.content) - set(labels)), sorted(set(labels) - set(field.content))
        if foreign or (absent and not (partial and field.kind == "vectors")):
            wrong, how = (foreign, "has") if foreign else (absent, "lacks")
            raise refusal(path, found, f"field {i} {how} {len(wrong)} dialogues against the labels, e.g. {wrong[0]}")
        short += [f"field {i} ({field.says}): {len(absent)} of {len(labels)} dialogues"] if absent else []
        for name, part in field.content.items():
            if len(part) != len(labels[name]):
                why = f"field {i} has {len(part)} utterances of dialogue {name}, the labels {len(labels[name])}"
                raise refusal(path, found, why)
    return short
