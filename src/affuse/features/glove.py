"""Word vectors from a file that the user brings: GloVe's text format, or word2vec's with its head line."""

from __future__ import annotations

import gzip
import json
import re
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from affuse.core import io
from affuse.core.errors import BadConfig, BadFeatures
from affuse.core.types import Feature, StreamSpec
from affuse.features.networks import pretrained

if TYPE_CHECKING:
    import pyarrow as pa

    from affuse.media.clip import Clip

CARD = {
    "summary": "word vectors (GloVe, word2vec or fastText as text), mean per utterance or one per word; bring the file",
    "source": "Pennington et al. 2014, GloVe; words split as in the Penn Treebank",
    "entry": "GloVe",
    "modalities": ["text"],
    "licence": "that of the file (Stanford's GloVe vectors: PDDL 1.0)",
    "version": 1,
    "download": "nothing; give weights=FILE (.txt, .vec, .gz, or .zip with member=; GloVe 6B: 0.8 GB, 840B: 2 GB), "
    "sha256=",
    "rate": "utterance; with pool=none one step per word",
    "dim": "that of the file",
}
WHAT = (
    "a file of word vectors (GloVe's text format, e.g. glove.6B.zip, 0.8 GB, or glove.840B.300d.zip, 2 GB; PDDL 1.0; "
    "nlp.stanford.edu/projects/glove)"
)
REMEDY = "download the file again; every line is a word and its numbers, separated by single spaces"
REPEATED = 1e-3  # share of words that may come twice, the first stands; more means that files were joined
HEAD, BLOCK = 512, 4 << 20  # bytes of the converted file's header, and of text that is parsed at a time
NUMBER = re.compile(rb"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|inf(?:inity)?)", re.IGNORECASE)


class GloVe:
    """Clip -> [1, D], the mean of its known words, or with `pool` "none" [T, D], one per word, valid [T] where known.

    `weights`: word v1 ... vD per line, also gzipped or in a .zip (`member`: which of its files); a first line with the
    two sizes is word2vec's. `lower`: words are looked up in lower case; the file's stay as they are. Punctuation marks
    are words (see `tokenise`). No words, or in the mean no known one: absent. The file is read once and kept converted,
    memory-mapped, in affuse's cache. Raises MissingDependency without a file, BadFeatures or BadConfig for a bad one.
    """

    def __init__(
        self,
        *,
        weights: Path | None = None,
        sha256: str = "",
        member: str = "",
        lower: bool = True,
        pool: Literal["none", "mean"] = "mean",
    ) -> None:
        self.weights, self.sha256, self.member, self.lower, self.pool = weights, sha256, member, lower, pool

    @property
    def spec(self) -> StreamSpec:
        """One vector, or one per word; neither is a moment in time."""
        return StreamSpec("glove", "text", (self._layout.dim,))

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the file; a damaged one fails here and not once per utterance."""
        _ = self.vectors
        return self._sha

    @cached_property
    def _file(self) -> Path:
        return pretrained.file(self.weights, self.sha256, WHAT)

    @cached_property
    def _sha(self) -> str:
        return self.sha256.lower() if self._file and self.sha256 else io.file_sha256(self._file)

    @cached_property
    def _layout(self) -> Layout:
        return _layout(self._file, self.member)

    @cached_property
    def vectors(self) -> WordVectors:
        """The file's words and vectors, converted on first use."""
        part = f"-{io.digest(self.member)}" if self.member else ""
        kept = io.cache_dir() / "word_vectors" / f"v1-{self._sha}{part}.safetensors"
        if not kept.is_file():
            convert(self._file, kept, self.member)
        return WordVectors(kept)

    def __call__(self, clip: Clip) -> Feature:
        """The vectors of the clip's words."""
        rows = self.vectors.rows(tokenise(clip.text or "", self.lower))
        known = rows >= 0
        found = np.asarray(self.vectors.values[rows[known]])
        if self.pool == "mean":
            return Feature(found.mean(0, keepdims=True) if len(found) else found)
        values = np.zeros((len(rows), found.shape[1]), np.float32)
        values[known] = found
        return Feature(values, None if known.all() else known)


_PLAIN = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "…": "...", "–": "--", "—": "--"})
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|m|d|re|ve|ll))(?!\w)", re.IGNORECASE)
_JOINED = re.compile(
    r"\b(can(?=not\b)|gon(?=na\b)|wan(?=na\b)|got(?=ta\b)|gim(?=me\b)|lem(?=me\b))|(?<!\w)('t(?=is\b|was\b))",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"(?<!\w)'(?:s|m|d|re|ve|ll|t|cause|em|til)(?!\w)"
    r"|(?:[^\W\d_]\.){2,}|\b(?:mr|mrs|ms|dr|prof|st|jr|sr|vs)\.(?!\.)"
    r"|\d+(?:[.,:]\d+)+|\w+(?:[-']\w+)*|\.{2,}|-{2,}|\S",
    re.IGNORECASE,
)


def tokenise(text: str, lower: bool = True) -> list[str]:
    """Words and marks as the Penn Treebank splits them: "I don't, Mr. X" -> i do n't , mr. x ("gonna" -> gon na).

    Hyphenated words, acronyms with dots and numbers stay whole; curly quotes and long dashes become plain ones.
    """
    text = text.translate(_PLAIN)
    separated = _JOINED.sub(r"\g<0> ", _CLITIC.sub(r" \1", text.lower() if lower else text))
    return _TOKEN.findall(separated)


class WordVectors:
    """A converted file, memory-mapped: `values` [V, D] float32, and the row of a word by binary search."""

    def __init__(self, path: Path) -> None:
        """Map the file; BadFeatures where it was damaged after it was made."""
        try:
            raw = np.asarray(np.memmap(path, mode="r"))
            header = json.loads(raw[8:HEAD].tobytes())
            parts = {
                name: raw[HEAD + entry["data_offsets"][0] : HEAD + entry["data_offsets"][1]]
                for name, entry in header.items()
            }
            self.values = parts["values"].view(np.float32).reshape(header["values"]["shape"])
            self._at, self._row = parts["offsets"].view(np.int32), parts["rows"].view(np.int32)
            self._words = parts["words"][: header["words"]["shape"][0]]
            if len(self._at) != len(self._row) + 1 or self._at[-1] != len(self._words):
                raise ValueError("it ends early")
        except (ValueError, KeyError, IndexError) as error:
            raise BadFeatures(
                f"converted word vectors {path} are damaged: {error}", "delete the file; it is made again"
            ) from error
        self._seen: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, i: int) -> bytes:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self._words[self._at[i] : self._at[i + 1]].tobytes()

    def rows(self, words: Sequence[str]) -> np.ndarray:
        """Row in `values` of each word, -1 where it is unknown: [T]."""
        self._seen |= {word: self._find(word.encode("utf-8", "replace")) for word in set(words) - self._seen.keys()}
        return np.array([self._seen[word] for word in words], np.int64)

    def _find(self, word: bytes) -> int:
        i = bisect_left(self, word)
        return int(self._row[i]) if i < len(self) and self[i] == word else -1


class Layout(NamedTuple):
    """Numbers per word, words that the head line promises (0: there is none), columns (a last space makes one more)."""

    dim: int
    promised: int
    columns: int


def convert(src: Path, dst: Path, member: str = "") -> None:
    """Write the vectors of the text file `src` as safetensors: values; rows, offsets and words, sorted by bytes.

    Memory stays flat: vectors go to disk block by block. Raises BadFeatures for lines that are not a word and D
    numbers, numbers that are not finite, many repeated words, another number of words than the head line says, and
    damaged archives.
    """
    import pyarrow as pa

    layout = _layout(src, member)
    names: list[pa.Array] = []
    with io.atomic(dst) as tmp, tmp.open("wb") as out:
        out.write(bytes(HEAD))
        for words, values in _blocks(src, member, layout):
            names.append(words)
            out.write(values.tobytes())
        total = sum(map(len, names))
        if layout.promised not in (0, total):
            raise BadFeatures(f"{src} promises {layout.promised} words and has {total}", REMEDY)
        index = _index(pa.concat_arrays(names), src)
        for array in index.values():
            out.write(array.tobytes())
        out.seek(0)
        out.write(_header({"values": ("F32", (total, layout.dim), 4), **{k: _entry(a) for k, a in index.items()}}))


def _entry(array: np.ndarray) -> tuple[str, tuple[int, ...], int]:
    return "U8" if array.itemsize == 1 else "I32", array.shape, array.itemsize


def _header(tensors: dict[str, tuple[str, tuple[int, ...], int]]) -> bytes:
    """The first HEAD bytes of a safetensors file with these (dtype, shape, item size), filled up with spaces."""
    header, at = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        end = at + int(np.prod(shape)) * size
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": (at, end)}
        at = end
    return (HEAD - 8).to_bytes(8, "little") + json.dumps(header).encode().ljust(HEAD - 8)


def _index(words: pa.Array, src: Path) -> dict[str, np.ndarray]:
    """Where the words are: row of each in the order of their bytes, offsets [V + 1] into those bytes, and the bytes."""
    import pyarrow.compute as pc

    order = pc.sort_indices(words)
    ranked = words.take(order)
    again = np.zeros(len(words), bool)
    again[1:] = pc.equal(ranked[1:], ranked[:-1]).to_numpy(zero_copy_only=False)
    if again.sum() > REPEATED * len(words):
        word = ranked[int(np.flatnonzero(again)[0])].as_py().decode("utf-8", "replace")
        raise BadFeatures(
            f"{src}: {again.sum()} of {len(words)} words come twice, the first is '{word}'",
            "use one file, not several joined",
        )
    ranked = ranked.filter(~again)
    offsets = np.frombuffer(ranked.buffers()[1], np.int32)[: len(ranked) + 1]
    letters = np.frombuffer(ranked.buffers()[2], np.uint8)[: offsets[-1]]
    return {"rows": order.to_numpy()[~again].astype(np.int32), "offsets": offsets, "words": letters}


@contextmanager
def _open(path: Path, member: str) -> Iterator[IO[bytes]]:
    """The text in the file, be it plain, gzipped or zipped; BadFeatures where the archive is damaged."""
    with path.open("rb") as file:
        magic = file.read(4)
    if member and magic != b"PK\3\4":
        raise BadConfig(f"member={member}, but {path} is no zip file", "leave member= away")
    try:
        if magic == b"PK\3\4":
            with zipfile.ZipFile(path) as archive, archive.open(_member(archive, member, path)) as inner:
                yield inner
        else:
            opener: Any = gzip.open if magic[:2] == b"\x1f\x8b" else open
            with opener(path, "rb") as plain:
                yield plain
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, RuntimeError) as error:
        raise BadFeatures(f"{path} cannot be unpacked: {error}", "download the file again") from error


def _member(archive: zipfile.ZipFile, member: str, path: Path) -> str:
    names = [n for n in archive.namelist() if not n.endswith("/") and not n.startswith("__MACOSX")]
    if member in names or (not member and len(names) == 1):
        return member or names[0]
    raise BadConfig(f"{path} has {len(names)} files and no '{member}'", f"give member= one of: {', '.join(names[:8])}")


def _layout(path: Path, member: str) -> Layout:
    """How the lines look, from the first two; BadFeatures where they are not words and numbers."""
    with _open(path, member) as file:
        first = file.readline(1 << 20).rstrip(b"\r\n")
        headed = re.fullmatch(rb"(\d+) (\d+) ?", first)
        line = file.readline(1 << 20).rstrip(b"\r\n") if headed else first
    fields = line.rstrip(b" ").split(b" ")
    numbers = sum(1 for _ in takewhile(NUMBER.fullmatch, reversed(fields)))
    dim = int(headed[2]) if headed else min(numbers, len(fields) - 1)
    if not 0 < dim <= numbers or len(fields) < dim + 1:
        raise BadFeatures(
            f"{path} does not begin with a word and its numbers, but with {line[:40] or first[:40]!r}", REMEDY
        )
    return Layout(dim, int(headed[1]) if headed else 0, dim + 1 + line.endswith(b" "))


def _blocks(path: Path, member: str, layout: Layout) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """(words, values [n, D]) block by block; lines whose word has spaces in it (GloVe 840B has some) come last."""
    import pyarrow as pa
    from pyarrow import csv

    odd: list[Any] = []

    def set_aside(row: Any) -> str:
        odd.append(row)
        return "skip"

    columns = [str(i) for i in range(layout.columns)]
    types = {"0": pa.binary(), **dict.fromkeys(columns[1 : layout.dim + 1], pa.float32())}
    parse = csv.ParseOptions(delimiter=" ", quote_char=False, invalid_row_handler=set_aside)
    read = csv.ReadOptions(
        column_names=columns, skip_rows=int(layout.promised > 0), block_size=BLOCK, use_threads=False
    )
    fill = csv.ConvertOptions(
        column_types=types, include_columns=list(types), null_values=[], strings_can_be_null=False
    )
    with _open(path, member) as file:
        try:
            for batch in csv.open_csv(file, read, parse, fill):
                yield (
                    batch.column(0),
                    _finite(np.column_stack([c.to_numpy() for c in batch.columns[1:]]), batch.column(0), path),
                )
                _check(odd, layout, path)
        except pa.ArrowInvalid as error:
            raise BadFeatures(f"{path}: {error}", REMEDY) from error
    _check(odd, layout, path)
    if odd:
        fields = [row.text.rstrip(" ").rsplit(" ", layout.dim) for row in odd]
        words = pa.array([f[0].encode() for f in fields], pa.binary())
        yield words, _finite(np.array([f[1:] for f in fields], np.float32), words, path)


def _check(odd: Sequence[Any], layout: Layout, path: Path) -> None:
    """BadFeatures for a line with too few numbers, or too many: what precedes the last D must be a word."""
    for row in odd:
        fields = row.text.rstrip(" ").encode().split(b" ")
        word, numbers = fields[: -layout.dim], fields[-layout.dim :]
        if not word or any(map(NUMBER.fullmatch, word[1:])) or not all(map(NUMBER.fullmatch, numbers)):
            raise BadFeatures(f"{path}: a line has not {layout.dim} numbers: '{row.text[:60]}'", REMEDY)


def _finite(values: np.ndarray, words: pa.Array, path: Path) -> np.ndarray:
    if (bad := ~np.isfinite(values).all(1)).any():
        word = words[int(np.flatnonzero(bad)[0])].as_py().decode("utf-8", "replace")
        raise BadFeatures(f"{path}: '{word}' has numbers that are not finite", REMEDY)
    return values
