"""FER2013: 48x48 grey faces from the web, seven emotions; from the official CSV or packed JPEGs."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from affuse.core.errors import AffuseError, BadCorpus, MissingFile
from affuse.core.types import Feature, StreamSpec
from affuse.corpora.manifest import Corpus, check_counts, write_corpus
from affuse.corpora.reading.release import below
from affuse.stores.store import StoreWriter, store_card

CARD = {
    "summary": "FER2013: 35,887 faces of 48x48 pixels, 7 emotions (pictures, stored as the stream 'faces')",
    "source": "Goodfellow et al., Challenges in Representation Learning, ICML 2013 workshop",
    "entry": "import_fer2013",
    "licence": "none stated; research use (Kaggle challenge data)",
    "download": "fer2013.csv of the Kaggle challenge",
    "layout": "fer2013.csv (emotion, pixels, Usage), or *.npz with {split}_jpeg, _offsets, _labels, _ids",
    "counts": {"train": 28709, "valid": 3589, "test": 3589},
    "splits": "as published: train, PublicTest is valid, PrivateTest is test",
}
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
USAGE = {"Training": "train", "PublicTest": "valid", "PrivateTest": "test"}
SIZE = 48
Picture = tuple[str, str, int, np.ndarray]  # id, split, class, uint8 [48, 48]


def import_fer2013(src: Path, dst: Path, *, partial: bool = False, without: Path | None = None) -> Corpus:
    """Import the pictures below `src` and write them as the store `faces`, [1, 48, 48, 3] uint8 each.

    `without`: a text file of ids to leave out, one per line (faces that another corpus tests on).
    The official splits are kept: Training, PublicTest as valid, PrivateTest as test.
    """
    csvs, packs = below(src, "fer2013.csv") or sorted(src.glob("[!.]*.csv")), sorted(src.glob("[!.]*.npz"))
    if not csvs and not packs:
        raise BadCorpus(f"no fer2013.csv and no .npz below {src}", "download fer2013.csv into that folder")
    if without and not without.is_file():
        raise MissingFile(f"without={without}: no such file", "give a text file of ids, one per line")
    left_out = set(without.read_text(encoding="utf-8", errors="replace").split()) if without else set()
    read = _from_csv(csvs[0]) if csvs else _from_jpegs(packs[0])
    pictures = list(_unique(p for p in read if p[0] not in left_out))
    found = {s: sum(split == s for _, split, _, _ in pictures) for s in USAGE.values()}
    short = check_counts(found, CARD["counts"], "pictures per split", partial)  # type: ignore[arg-type]
    extra = {"licence": CARD["licence"], **({"partial": short} if short else {})}
    rows = [{"id": i, "split": split, "label": EMOTIONS[c], "source": i} for i, split, c, _ in pictures]
    corpus = write_corpus(dst, rows, "fer2013", "ekman-7", **extra)
    spec = StreamSpec("faces", "vision", (SIZE, SIZE, 3), 0.0, 1 / 255)
    made = store_card(spec, "fer2013", 1, {"without": sorted(left_out)})
    shutil.rmtree(corpus.store_path("faces"), ignore_errors=True)  # of an import before
    with StoreWriter(corpus.store_path("faces"), made) as writer:
        for name, _, _, picture in pictures:
            writer.add(name, Feature(np.repeat(picture[None, :, :, None], 3, axis=3)))
    return corpus


def _unique(pictures: Iterable[Picture]) -> Iterator[Picture]:
    """The pictures with `#2`, `#3`... behind names that were already given."""
    seen: Counter[str] = Counter()
    for name, *rest in pictures:
        seen[name] += 1
        yield (name if seen[name] == 1 else f"{name}#{seen[name]}", *rest)  # type: ignore[misc]


def _from_csv(path: Path) -> Iterator[Picture]:
    import pandas as pd

    try:
        for chunk in pd.read_csv(path, chunksize=2000, dtype=str, keep_default_na=False):
            missing = {"emotion", "pixels", "Usage"} - set(chunk.columns)
            if missing or not isinstance(chunk.index, pd.RangeIndex):
                wrong = f"has no column '{missing.pop()}'" if missing else "has rows with more cells than the header"
                raise BadCorpus(f"{path} {wrong}", "use the official fer2013.csv")
            for i, row in zip(chunk.index, chunk.itertuples(), strict=True):
                if row.Usage not in USAGE:
                    raise BadCorpus(f"{path}, picture {i}: unknown Usage '{row.Usage}'", f"known: {', '.join(USAGE)}")
                yield _picture(path, f"{row.Usage}_{i}", USAGE[row.Usage], row.emotion, _pixels(row.pixels))
    except (ValueError, OSError) as error:
        raise BadCorpus(
            f"{path} is not a readable csv file: {error}", "download the official fer2013.csv again"
        ) from error


def _pixels(text: str) -> np.ndarray:
    """The picture that the numbers of a cell make; an empty array where they make none."""
    try:
        return np.array(text.split(), dtype=np.uint8).reshape(SIZE, SIZE)
    except (ValueError, OverflowError):
        return np.zeros(0, np.uint8)


def _picture(path: Path, name: str, split: str, emotion: object, pixels: np.ndarray) -> Picture:
    """A picture whose class and size are right; BadCorpus for others."""
    if not re.fullmatch("[0-6]", str(emotion)):
        raise BadCorpus(f"{path}: '{name}' has the emotion '{emotion}'", "emotions are 0 to 6: use the official file")
    if pixels.shape != (SIZE, SIZE):
        raise BadCorpus(f"{path}: '{name}' is not {SIZE} x {SIZE} pixels of 0 to 255", "use the official file")
    return name, split, int(str(emotion)), pixels


def _from_jpegs(path: Path) -> Iterator[Picture]:
    try:
        with np.load(path) as pack:
            for split in ("train", "valid", "test"):
                if f"{split}_jpeg" not in pack.files:
                    continue
                data, at = pack[f"{split}_jpeg"], pack[f"{split}_offsets"]
                for i, (name, label) in enumerate(zip(pack[f"{split}_ids"], pack[f"{split}_labels"], strict=True)):
                    yield _picture(path, str(name), split, label, decode_jpeg(data[at[i] : at[i + 1]].tobytes()))
    except AffuseError:
        raise
    except Exception as error:  # a damaged archive or picture can raise anything
        raise BadCorpus(f"{path} is not an .npz of packed pictures: {error!r}", "download the file again") from error


def decode_jpeg(data: bytes) -> np.ndarray:
    """Brightness of a JPEG, uint8 [48, 48]."""
    import av

    context = av.CodecContext.create("mjpeg", "r")
    frame = context.decode(av.Packet(data))[0]
    plane = frame.planes[0]
    return np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width].copy()
