"""How pleasant and arousing the words are, by a lexicon that the user brings: VADER's, or norms."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from affuse.core import io
from affuse.core.errors import BadConfig, BadFeatures
from affuse.core.types import Feature, StreamSpec
from affuse.features.networks import pretrained

if TYPE_CHECKING:
    from affuse.media.clip import Clip

CARD = {
    "summary": "valence, arousal, dominance by a lexicon, per utterance or word, with negation; bring the file",
    "source": "Hutto and Gilbert 2014 (VADER, negation); Warriner et al. 2013 (norms); Pang et al. 2002 (its scope)",
    "entry": "Lexicon",
    "modalities": ["text"],
    "licence": "that of the lexicon (VADER: MIT; Warriner: CC BY-NC-ND 3.0)",
    "version": 1,
    "download": "nothing; give lexicon=FILE (vader_lexicon.txt, 0.4 MB, or a csv or tsv table of norms) and sha256=",
    "rate": "utterance; with pool=none one step per word",
    "dim": "4 per dimension and 2 (VADER 6, norms of three dimensions 14); with pool=none the dimensions",
}
WHAT = (
    "a lexicon (vader_lexicon.txt of VADER, 0.4 MB, MIT; or a csv or tsv table of valence and arousal norms, e.g. "
    "Warriner et al. 2013)"
)
DAMPED = -0.74  # what a negated score is multiplied with; Hutto and Gilbert 2014, found with raters
REACH = 3  # words that a negator reaches; as above
STATISTICS = ("mean", "std", "max", "min")
SCALES = ((0, 1), (1, 5), (1, 7), (1, 9))  # usual scales of norms; with negative values: centred on 0
DIMENSIONS = ("valence", "arousal", "dominance")
NEGATOR = re.compile(
    r"(?:ai|are|ca|could|dare|did|does|do|had|has|have|is|might|must|need|ought|sha|should|was|were|wo|would)n'?t"
    r"|not|no|nor|neither|never|none|nope|nothing|nowhere|cannot|without|rarely|seldom|despite|uh-?uh"
)
_MARK = re.compile(r"[.,;:!?]|-{2,}")
_PART = re.compile(r"\w+(?:[-']\w+)*|[.,;:!?]+|-{2,}")
_ENDING = re.compile(r"'(?:s|m|d|re|ve|ll)$", re.IGNORECASE)
_PLAIN = str.maketrans({"’": "'", "‘": "'", "…": "...", "–": " -- ", "—": " -- "})


class Lexicon:
    """Clip -> [1, 4 K + 2]: per dimension mean, std, max, min over known words; share of words known, share negated.

    With `pool` "none": [T, K], the scores of each word, valid where the lexicon has it. `names` says what the numbers
    are. `lexicon`: VADER's (tab: word, mean, sd, ratings; of entries that come twice the last stands, as in VADER
    itself) or a csv/tsv table, whose columns are found by their names, or given: `columns` dimension (or "word") ->
    name or number from 0. `negation`: the valence v of a word within 3 words after a negator, no punctuation mark
    between, becomes c - 0.74 (v - c), c the `centre` of its scale (None: 0 where values are negative, else the middle
    of the narrowest of 0..1, 1..5, 1..7, 1..9 that holds them all). Words are looked up as written, then in lower case;
    entries of several words are not found. No words, or in the statistics no known one: absent.
    """

    def __init__(
        self,
        *,
        lexicon: Path | None = None,
        sha256: str = "",
        columns: dict[str, int | str] | None = None,
        negation: bool = True,
        centre: float | None = None,
        pool: Literal["none", "stats"] = "stats",
    ) -> None:
        self.lexicon, self.sha256, self.columns = lexicon, sha256, columns
        self.negation, self.centre, self.pool = negation, centre, pool

    @property
    def spec(self) -> StreamSpec:
        """One vector, or one per word; neither is a moment in time."""
        return StreamSpec("lexicon", "text", (len(self.names),))

    @property
    def names(self) -> list[str]:
        """What the numbers of a step are."""
        dimensions = list(self.scores.dimensions)
        if self.pool == "none":
            return dimensions
        return [f"{d}_{statistic}" for d in dimensions for statistic in STATISTICS] + ["known", "negated"]

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the lexicon; one that cannot be used fails here and not once per utterance."""
        _ = self._negation
        return io.file_sha256(self._file)

    @cached_property
    def _file(self) -> Path:
        return pretrained.file(self.lexicon, self.sha256, WHAT, "lexicon")

    @cached_property
    def scores(self) -> Scores:
        """The lexicon itself."""
        return read_lexicon(self._file, self.columns)

    @cached_property
    def _negation(self) -> tuple[list[int], float]:
        """The columns that negation turns, and the neutral score."""
        columns = [i for i, d in enumerate(self.scores.dimensions) if d == "valence" and self.negation]
        if not columns or self.centre is not None:
            return columns, self.centre or 0.0
        return columns, centre_of(self.scores.values, self._file)

    def __call__(self, clip: Clip) -> Feature:
        """The scores of the clip's words."""
        words, clause = split(clip.text or "", self.scores.row)
        rows = np.array([_row(word, self.scores.row) for word in words], np.int64)
        known, against = rows >= 0, negated(words, clause)
        values = np.zeros((len(rows), len(self.scores.dimensions)), np.float32)
        values[known] = self.scores.values[rows[known]]
        columns, centre = self._negation
        turned = np.ix_(known & against, columns)
        values[turned] = centre + DAMPED * (values[turned] - centre)
        if self.pool == "none":
            return Feature(values, None if known.all() else known)
        if not known.any():
            return Feature(np.zeros((0, *self.spec.shape), np.float32))
        x = values[known]
        statistics = np.stack([x.mean(0), x.std(0), x.max(0), x.min(0)], axis=1).ravel()
        return Feature(np.append(statistics, [known.mean(), against.mean()])[None].astype(np.float32))


def _row(word: str, index: Mapping[str, int]) -> int:
    return index.get(word, index.get(word.lower(), -1))


def split(text: str, index: Mapping[str, int]) -> tuple[list[str], np.ndarray]:
    """The words of a text and the number of the clause [T] that each stands in; a punctuation mark ends a clause.

    What stands between spaces is one word if `index` has it, emoticons too; else marks come off. Of words that `index`
    has not, hyphenated ones are split, and endings as in "he's" and "they'll" come off.
    """
    words: list[str] = []
    clause: list[int] = []
    at = 0
    for piece in text.translate(_PLAIN).split():
        for part in [piece] if _row(piece, index) >= 0 else _PART.findall(piece):
            if _MARK.match(part) and _row(part, index) < 0:
                at += 1
                continue
            whole = _row(part, index) >= 0 or NEGATOR.fullmatch(part.lower())
            found = [part] if whole else _ENDING.sub("", part).split("-")
            words += found
            clause += [at] * len(found)
    return words, np.array(clause, np.int64)


def negated(words: Sequence[str], clause: np.ndarray) -> np.ndarray:
    """Whether one of the 3 words before each, of the same clause [T], is a negator: [T] bool."""
    negator = np.array([NEGATOR.fullmatch(word.lower()) is not None for word in words], bool)
    found = np.zeros(len(words), bool)
    for back in range(1, min(REACH, len(words) - 1) + 1):
        found[back:] |= negator[:-back] & (clause[:-back] == clause[back:])
    return found


class Scores(NamedTuple):
    """A lexicon: values [V, K] float32 of the `dimensions`, and the row of each word."""

    dimensions: tuple[str, ...]
    row: dict[str, int]
    values: np.ndarray


_VADER = re.compile(r"\s*[^\t\n]+\t *[-+.\d]+\t *[.\d]+\t\[.*\]")


def read_lexicon(path: Path, columns: Mapping[str, int | str] | None = None) -> Scores:
    """The scores of a VADER file or of a table of norms (see `Lexicon`).

    Raises BadFeatures, naming line and value, for what is not text, ragged lines, scores that are not finite numbers
    and words with contradicting scores; BadConfig where the columns cannot be told.
    """
    text = _text(path)
    vader = columns is None and _VADER.match(text) is not None
    rows = _rows(text, vader, path)
    if vader:
        at = {"word": 0, "valence": 1}
    else:
        headed = bool(np.isnan([_number(cell) for cell in rows[0][1][1:]]).all())
        at = _columns(rows[0][1] if headed else None, len(rows[0][1]), columns, path)
        # Warriner's table in circulation ends with a row of zeros that nobody rated
        rows = rows[1:] if headed else [r for r in rows if at != WARRINER or r[1][3] != "0"]
    if not rows:
        raise BadFeatures(f"{path} has no words", "use the complete file")
    dimensions = tuple(d for d in at if d != "word")
    values = _values(rows, [at[d] for d in dimensions], path)
    words = [(number, row[at["word"]].strip()) for number, row in rows]
    return Scores(dimensions, _index(words, values, vader, path), values)


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFeatures(
            f"{path} is not UTF-8 text: {error}", "use the lexicon itself, unpacked, saved as UTF-8"
        ) from error
    if not text.strip() or "\0" in text:
        raise BadFeatures(f"{path} is {'not text' if text.strip() else 'empty'}", "download the lexicon again")
    return text


def _rows(text: str, vader: bool, path: Path) -> list[tuple[int, list[str]]]:
    """(line number, cells) of a table whose lines all have as many cells as the first."""
    first = next(filter(str.strip, text.split("\n")))
    reader = csv.reader(
        text.split("\n"),
        delimiter="\t" if "\t" in first else max(",;", key=first.count),
        quoting=csv.QUOTE_NONE if vader else csv.QUOTE_MINIMAL,
        strict=True,
    )
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise BadFeatures(f"{path}, line {reader.line_num}: {error}", "download the lexicon again") from error
    width = len(rows[0][1])
    if width < 2:
        raise BadFeatures(
            f"{path} begins with '{first.strip()[:40]}', which is no word with scores", "give a csv or tsv table"
        )
    for number, row in rows:
        if len(row) != width:
            raise BadFeatures(f"{path}, line {number}: {len(row)} cells, not {width}", "download the lexicon again")
    return rows


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return np.nan


WARRINER = {"word": 0, "valence": 1, "arousal": 4, "dominance": 7}  # without its head line, 64 columns
_WORD = re.compile(r"(english[ _])?(word|term|token|lemma|description)s?", re.IGNORECASE)


def _columns(
    header: Sequence[str] | None, width: int, given: Mapping[str, int | str] | None, path: Path
) -> dict[str, int]:
    """Which column holds the word and which each dimension; BadConfig says how to give them."""
    names = [n.strip().lower() for n in header or ()]
    if given:
        at = {"word": 0, **{d: _place(c, names, width, path) for d, c in given.items()}}
    elif header is None:
        at = WARRINER if width == 64 else {}
    else:
        found = {
            d: _first(names, rf"({d}|{d[:3]}|{d[0]})([ ._-]?(mean|mn|m|avg|score|rating))?([ ._-]?sum)?")
            for d in DIMENSIONS
        }
        at = {d: i for d, i in {"word": _first(names, _WORD.pattern), **found}.items() if i >= 0}
    if "word" not in at or len(at) < 2:
        seen = f"columns {', '.join(names[:12])}" if names else f"{width} columns without names"
        raise BadConfig(
            f"{path} has {seen}: word and scores cannot be told",
            "give columns, e.g. {word: 0, valence: 1, arousal: 2} (from 0)",
        )
    return at


def _place(column: int | str, names: Sequence[str], width: int, path: Path) -> int:
    if isinstance(column, int) and 0 <= column < width:
        return column
    if isinstance(column, str) and column.strip().lower() in names:
        return names.index(column.strip().lower())
    raise BadConfig(
        f"{path} has no column {column!r}", f"it has {width}: {', '.join(names[:12]) or f'0 to {width - 1}'}"
    )


def _first(names: Sequence[str], pattern: str) -> int:
    return next((i for i, name in enumerate(names) if re.fullmatch(pattern, name, re.IGNORECASE)), -1)


def _values(rows: Sequence[tuple[int, list[str]]], at: Sequence[int], path: Path) -> np.ndarray:
    """The scores [V, K]; BadFeatures names the first that is not a finite number."""
    with np.errstate(over="ignore"):
        values = np.array([[_number(row[i]) for i in at] for _, row in rows]).astype(np.float32)
    for i, k in np.argwhere(~np.isfinite(values))[:1]:
        number, row = rows[i]
        raise BadFeatures(
            f"{path}, line {number}: the score '{row[at[k]]}' is not a finite number", "correct or leave out the line"
        )
    return values


def _index(words: Sequence[tuple[int, str]], values: np.ndarray, last: bool, path: Path) -> dict[str, int]:
    """Row of each word, as written and, where that is free, in lower case; of repeats the `last`, or BadFeatures."""
    index: dict[str, int] = {}
    for i, (number, word) in enumerate(words):
        if not word:
            raise BadFeatures(f"{path}, line {number}: no word", "correct or leave out the line")
        if not last and word in index and not np.array_equal(values[index[word]], values[i]):
            raise BadFeatures(
                f"{path}, line {number}: '{word}' stands there twice with different scores", "leave one of them out"
            )
        index[word] = i
    return {word.lower(): i for word, i in reversed(index.items())} | index


def centre_of(values: np.ndarray, path: Path) -> float:
    """The middle of the scale of `values`: 0 if some are negative, else that of the narrowest usual scale."""
    low, high = float(values.min()), float(values.max())
    if low < 0:
        return 0.0
    for least, most in SCALES:
        if least <= low and high <= most:
            return (least + most) / 2
    raise BadConfig(
        f"{path}: scores from {low:g} to {high:g} are on no usual scale",
        "give centre=, the neutral score, or negation=false",
    )
