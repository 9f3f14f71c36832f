"""FeatureStore: one extractor's values for a corpus, in memory-mapped safetensors shards.

A store is a folder: `card.json` (what made it), `shard-00000.safetensors` ... (per utterance id: `x:ID` values, `v:ID`
validity where content can be absent; `t0`, and the `text` that ids stand for, in the header), `failures.json`, and
`manifest.json` once it is complete.
Shards are written aside and renamed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, get_args

import numpy as np

from affuse.core import io, registry
from affuse.core.errors import BadConfig, BadFeatures, MissingFile
from affuse.core.types import Feature, Modality, StreamSpec, steps_between
from affuse.stores.align import How, at_rate

FORMAT = 1
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, MemoryError, OverflowError, RecursionError)
IDENTITY = ("extractor", "version", "parameters", "weights_hash", "content_hash")


class FeatureStore:
    """Features of one stream; `store[id]` is a Feature whose arrays are views of the file where possible."""

    def __init__(self, path: Path | str, shards: Sequence[Path] | None = None) -> None:
        """Open a store, or only these of its shards."""
        self.path = Path(path)
        if not (self.path / "card.json").is_file():
            raise MissingFile(f"no feature store at {self.path}", f"extract it: affuse extract CORPUS {self.path.name}")
        self.card: dict[str, Any] = io.read_json(self.path / "card.json")
        self._handles: dict[Path, Any] = {}
        self._index: dict[str, tuple[Path, bool, float]] = {}
        self._length: dict[str, int] = {}
        self._values: dict[str, tuple[np.dtype[Any], int]] = {}  # their type, and where in the shard they begin
        self._text: dict[str, str] = {}
        self._grid: tuple[float, How] | None = None
        # before-* is what an extraction has not yet moved to where a changed corpus wants it
        parts = [p for kind in ("before", "shard") for p in sorted(self.path.glob(f"{kind}-*.safetensors"))]
        for shard in parts if shards is None else shards:
            self._read_header(shard)

    def at(self, rate: float, how: How = "mean") -> FeatureStore:
        """The store as read at `rate` steps per second (0: its own), see align.at_rate."""
        if not 0 <= rate < math.inf:
            raise BadConfig(
                f"store '{self.path.name}' cannot be read at {rate} steps per second",
                "give a rate above 0, or 0 for its own",
            )
        read = copy(self)
        if rate > 0 and rate != self.card["rate"]:
            if self.card["rate"] <= 0:
                raise BadConfig(f"store '{self.path.name}' has no rate that could become {rate}", "read it as it is")
            read._grid = (rate, how)
        return read

    def without(self, ids: Iterable[str]) -> FeatureStore:
        """The store as if it did not hold these ids."""
        less, gone = copy(self), set(ids)
        less._index = {k: v for k, v in self._index.items() if k not in gone}
        return less

    def _read_header(self, shard: Path) -> None:
        """Add a shard's ids to the index; BadFeatures names a damaged shard."""
        try:
            with shard.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size))
            t0 = json.loads(header["__metadata__"]["t0"])
            self._text |= json.loads(header["__metadata__"].get("text", "{}"))
            last = max((v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"), default=0)
            if shard.stat().st_size != 8 + size + last:
                raise ValueError("its size is not what its header says")
            for name in (key[2:] for key in header if key.startswith("x:")):
                self._index[name] = (shard, f"v:{name}" in header, t0.get(name, 0.0))
                about = header[f"x:{name}"]
                self._length[name] = about["shape"][0]
                self._values[name] = (_dtype(about["dtype"]), 8 + size + about["data_offsets"][0])
        except UNREADABLE as error:
            raise _damaged(shard, error) from error

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": {}}

    def length(self, name: str) -> int:
        """Number of steps of an id; 0 where it is absent."""
        stored = self._length.get(name, 0)
        return stored if self._grid is None else math.ceil(stored * self._grid[0] / self.card["rate"])

    def usable(self, name: str) -> bool:
        """Whether an id has a step with content."""
        if not self._length[name]:
            return False
        shard, has_valid, _ = self._index[name]
        return not has_valid or bool(self._open(shard).get_tensor(f"v:{name}").any())

    def text(self, name: str) -> str:
        """The text that the ids of an utterance stand for; empty where the extractor made none."""
        return self._text.get(name, "")

    def file(self, name: str) -> Path:
        """The shard that holds an id."""
        return self._index[name][0]

    @property
    def shards(self) -> dict[str, int]:
        """Utterances per shard."""
        return dict(sorted(Counter(shard.name for shard, _, _ in self._index.values()).items()))

    def check(self, card: Mapping[str, Any]) -> None:
        """BadFeatures unless the store was made by the extractor, version, parameters and weights of `card`."""
        mine, asked = ({k: c.get(k) for k in IDENTITY} for c in (self.card, card))
        if mine != asked:
            imported = mine["extractor"] == "imported"
            rename = "import your features under another name, which is no extractor's, or"
            remedy = rename if imported else "to extract it anew,"
            raise BadFeatures(f"{self.path} holds {mine}, not {asked}", f"{remedy} delete {self.path}")

    @property
    def ids(self) -> list[str]:
        """Ids that the store holds."""
        return list(self._index)

    @property
    def spec(self) -> StreamSpec:
        """What one step of the stream is."""
        c = self.card
        rate = c["rate"] if self._grid is None else self._grid[0]
        return StreamSpec(c["name"], c["modality"], tuple(c["shape"]), rate, c["scale"])

    @property
    def hash(self) -> str:
        """Hash of what made the store: extractor, version, parameters, weights (or the imported values)."""
        keys = ("extractor", "version", "parameters", "weights_hash", "shape", "rate", "content_hash")
        stored = {"dtype": self.card["dtype"]} if "dtype" in self.card else {}  # where it is not what was computed
        return io.digest({k: self.card.get(k) for k in keys} | stored)

    @property
    def failures(self) -> dict[str, dict[str, str]]:
        """Id -> {type, message, remedy} of the utterances that could not be extracted."""
        path = self.path / "failures.json"
        return dict(io.read_json(path)) if path.exists() else {}

    def get(self, name: str, start: float = 0.0, end: float | None = None) -> Feature:
        """The stored Feature of an id, or its steps with start <= time < end (seconds on the clip's clock).

        Raises BadFeatures for an id that the store does not hold.
        """
        if self._grid is None:
            return self._stored(name, start, end)
        rate, (wanted, how) = self.card["rate"], self._grid
        around = 2 / min(rate, wanted)  # s: a step of the grid takes steps that begin before it or end after it
        part = self._stored(name, start - around, None if end is None else end + around)
        return at_rate(part, rate, wanted, how, start, end)

    def __getitem__(self, name: str) -> Feature:
        return self.get(name)

    def _stored(self, name: str, start: float = 0.0, end: float | None = None) -> Feature:
        if name not in self._index:
            raise BadFeatures(f"'{name}' is not in store {self.path.name}", "run affuse extract again: it resumes")
        shard, has_valid, t0 = self._index[name]
        handle = self._open(shard)
        if start <= 0.0 and end is None:
            valid = handle.get_tensor(f"v:{name}") if has_valid else None
            return Feature(handle.get_tensor(f"x:{name}"), valid, t0, self.text(name))
        rate = self.card["rate"]
        part = steps_between(self._length[name], rate, t0, start, end)
        if part.start == part.stop:
            return Feature(handle.get_tensor(f"x:{name}")[:0], None, t0)
        valid = handle.get_slice(f"v:{name}")[part] if has_valid else None
        return Feature(self._read(name, part), valid, t0 + part.start / rate if rate > 0 else t0)

    def _read(self, name: str, part: slice) -> np.ndarray:
        """Values of some steps, read and not mapped: pages of a long recording that were seen do not stay in memory."""
        (dtype, begin), step = self._values[name], tuple(self.card["shape"])
        count, size = part.stop - part.start, math.prod(step)
        values = np.fromfile(self.file(name), dtype, count * size, offset=begin + part.start * size * dtype.itemsize)
        return values.reshape(count, *step)

    def _open(self, shard: Path) -> Any:
        handle = self._handles.get(shard)
        if handle is None:
            from safetensors import SafetensorError, safe_open

            try:
                handle = self._handles[shard] = safe_open(shard, framework="numpy")
            except SafetensorError as error:
                raise _damaged(shard, error) from error
        return handle


def _dtype(name: str) -> np.dtype[Any]:
    """The type that a safetensors header names, such as F32 or U8."""
    return np.dtype(bool) if name == "BOOL" else np.dtype(f"<{name[0].lower()}{int(name[1:]) // 8}")


def _damaged(shard: Path, error: Exception) -> BadFeatures:
    return BadFeatures(f"shard {shard} is damaged: {error}", "delete it and run affuse extract again")


class StoreWriter:
    """Collects features and writes them as shards; `with` flushes what is complete, also on Ctrl-C."""

    def __init__(self, path: Path, card: Mapping[str, Any], shard_bytes: int = 64 << 20) -> None:
        self.path, self.shard_bytes = path, shard_bytes
        if (path / "card.json").is_file():
            FeatureStore(path).check(card)
        io.write_json(path / "card.json", {"format": FORMAT, **card})
        self._pending: dict[str, Feature] = {}
        self._bytes = 0

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.flush()

    def add(self, name: str, feature: Feature) -> None:
        """Queue one utterance; a shard is written when enough are waiting."""
        self._pending[name] = feature
        self._bytes += feature.values.nbytes
        if self._bytes >= self.shard_bytes:
            self.flush()

    def flush(self) -> None:
        """Write the waiting features as one new shard."""
        if self._pending:
            number = 1 + max((int(p.stem[6:]) for p in self.path.glob("shard-*.safetensors")), default=-1)
            write_shard(shard_path(self.path, number), self._pending)
        self._pending, self._bytes = {}, 0


def shard_path(store: Path, number: int) -> Path:
    """Where the shard of that number is."""
    return store / f"shard-{number:05d}.safetensors"


def write_shard(path: Path, features: Mapping[str, Feature]) -> None:
    """Write features as one shard, atomically."""
    from safetensors.numpy import save_file

    tensors = {f"x:{k}": np.ascontiguousarray(f.values) for k, f in features.items()}
    tensors |= {f"v:{k}": np.ascontiguousarray(f.valid) for k, f in features.items() if f.valid is not None}
    header = {"t0": json.dumps({k: f.t0 for k, f in features.items() if f.t0})}
    if texts := {k: f.text for k, f in features.items() if f.text}:
        header["text"] = json.dumps(texts)
    with io.atomic(path) as tmp:
        save_file(tensors, tmp, header)


def store_card(
    spec: StreamSpec, extractor: str, version: int, parameters: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """The JSON card of a store; BadConfig for a rate that is none."""
    if not 0 <= spec.rate < math.inf:
        raise BadConfig(
            f"'{spec.name}' has {spec.rate} steps per second",
            "give a rate above 0, or 0 for steps that are no moments in time",
        )
    return {
        "name": spec.name,
        "modality": spec.modality,
        "shape": list(spec.shape),
        "rate": spec.rate,
        "scale": spec.scale,
        "extractor": extractor,
        "version": version,
        "parameters": stated(extractor, parameters),
        "weights_hash": "",
        **more,
    }


def stated(extractor: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters for a card: JSON values without files and their checksums (`weights_hash` stands for these)."""
    known = extractor in registry.cards("extractors")
    fields = registry.schema(registry.load("extractors", extractor)) if known else {}
    files = {k for k, (kind, _) in fields.items() if k.endswith("sha256") or Path in (kind, *get_args(kind))}
    return dict(json.loads(json.dumps({k: v for k, v in parameters.items() if k not in files})))


_HINTS: dict[Modality, tuple[str, ...]] = {
    "vision": ("vision", "video", "visual", "face", "openface", "image", "frame", "au", "landmark", "vit", "clip"),
    "text": ("text", "word", "bert", "roberta", "albert", "glove", "transcript", "minilm", "language"),
    "audio": ("audio", "speech", "voice", "acoustic", "wav", "mfcc", "mel", "egemaps", "opensmile", "sound", "prosody"),
}


def guess_modality(name: str) -> Modality:
    """The modality that a store's name points to; BadFeatures asks for --modality where it points to none."""
    words = name.lower().replace("-", "_").split("_")
    for exact in (True, False):
        for modality, hints in _HINTS.items():
            if any(h in words if exact else (len(h) > 2 and h in name.lower()) for h in hints):
                return modality
    raise BadFeatures(f"cannot tell the modality of '{name}'", "add --modality audio, vision or text")


def import_arrays(
    path: Path,
    ids: Sequence[str],
    values: np.ndarray,
    offsets: np.ndarray | None = None,
    modality: Modality | None = None,
    rate: float = 0.0,
) -> FeatureStore:
    """Write a user's arrays as a store: values [n, D] (one vector each) or [total, D] with offsets [n+1].

    A step without any finite number is marked absent; single missing numbers (NaN, infinite, or beyond float32; the
    card counts them as `missing`) are NaN, and the encoders' normalisation replaces them by the training mean. Raises
    BadFeatures for shapes that do not fit, doubled ids, and values without any number.
    """
    ids = [str(i) for i in ids]
    if values.dtype.kind not in "fiu" or values.ndim < 2 or 0 in values.shape[1:]:
        raise BadFeatures(
            f"values are {values.dtype}{list(values.shape)}", "give numbers of shape [n, D] or [total, D]"
        )
    bounds = np.arange(len(values) + 1) if offsets is None else np.asarray(offsets)
    numeric = bounds.ndim == 1 and bounds.dtype.kind in "iuf"
    if not numeric or not (np.isfinite(bounds).all() and (bounds % 1 == 0).all()):
        raise BadFeatures(
            f"offsets are {bounds.dtype}{list(bounds.shape)}", "give whole numbers, one more than the ids"
        )
    bounds = bounds.astype(np.int64)
    if len(bounds) != len(ids) + 1 or bounds[0] != 0 or bounds[-1] != len(values) or (np.diff(bounds) < 0).any():
        raise BadFeatures(
            f"{len(ids)} ids, {len(values)} rows, {len(bounds)} offsets do not fit together",
            "offsets must rise from 0 to the number of rows and number one more than the ids",
        )
    if doubled := [i for i, n in Counter(ids).items() if n > 1]:
        raise BadFeatures(
            f"ids are not unique: {len(doubled)} occur more than once, e.g. '{doubled[0]}'", "give every utterance once"
        )
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    missing = ~np.isfinite(values)  # after the cast, which a number beyond float32 does not survive
    values[missing] = np.nan
    valid = ~missing.all(axis=tuple(range(1, values.ndim)))
    if not valid.any():
        raise BadFeatures(
            f"none of the {values.size} values is a finite number", "check how they were computed and saved"
        )
    spec = StreamSpec(path.name, modality or guess_modality(path.name), values.shape[1:], rate)
    content = io.digest([ids, bounds.tolist(), _sum(values)])
    card = store_card(spec, "imported", 1, {}, content_hash=content, missing=int(missing.sum()))
    with StoreWriter(path, card) as writer:
        have = set(FeatureStore(path).ids)
        for i, name in enumerate(ids):
            if name in have:
                continue
            part = slice(bounds[i], bounds[i + 1])
            ok = valid[part]
            keep = values[part] if ok.any() else values[:0]
            writer.add(name, Feature(keep, None if ok.all() or not ok.any() else ok))
    return FeatureStore(path)


def _sum(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
