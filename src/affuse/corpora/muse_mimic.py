"""MuSe-Mimic (Hume-Vidmimic): people who mimic emotional clips; approval, disappointment and uncertainty per clip."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from affuse.core.errors import BadCorpus
from affuse.core.io import digest
from affuse.core.types import Feature, Modality, StreamSpec
from affuse.corpora.manifest import Corpus, check_counts, write_corpus
from affuse.corpora.reading.release import PICTURE, SOUND, first, media, read_csv
from affuse.corpora.sentiment.csd import LONGEST
from affuse.stores.store import StoreWriter, guess_modality, store_card

CARD = {
    "summary": "MuSe-Mimic: people mimic emotional clips; approval, disappointment and uncertainty (0..1); features",
    "source": "Christ et al., The MuSe 2023 Multimodal Sentiment Analysis Challenge, MuSe workshop at ACM MM 2023",
    "entry": "import_muse_mimic",
    "licence": "Hume AI's end-user licence (competitions@hume.ai); no redistribution",
    "download": "c1_muse_mimic of the MuSe 2023 challenge package, from Hume AI after signing the licence",
    "layout": "c1_muse_mimic/partition.csv (id first, partition last), labels.csv (filename, Approval_, "
    "Disappointment_, Uncertainty_) and features/SET/ID.csv (id, timestamp in ms, features); ids in double quotes",
    "splits": "the official partition (train, devel, test; speaker-independent); labels of test are withheld. "
    "Speakers are not named: validation or folds carved from train may share them",
}
PARTITIONS = {"train": "train", "devel": "valid", "test": "test"}
TARGETS = {"approval": "Approval_", "disappointment": "Disappointment_", "uncertainty": "Uncertainty_"}
MODALITY: dict[str, Modality] = {
    "egemaps": "audio",
    "deepspectrum": "audio",
    "w2v-msp": "audio",
    "faus": "vision",
    "facenet": "vision",
    "vit": "vision",
    "electra": "text",
}
# How far a time may lie from its step, in steps, before a set is taken for one without a clock (tokens).
TOLERANCE = 0.1


def import_muse_mimic(src: Path, dst: Path, *, partial: bool = False, features: bool = True) -> Corpus:
    """Import partition, labels and, unless features=false, the feature sets below `src` as stores muse_SET.

    Columns `approval`, `disappointment`, `uncertainty` (NaN: withheld) and `mimic`, the list of the three, for a task
    {column: mimic, space: muse-mimic-3}. Stores keep the timestamps' rate and mark steps that a file leaves out as
    absent; a set whose times fit no rate (words) is kept as a plain sequence. Raises BadCorpus for foreign columns,
    partitions or values, labels that do not fit the partition, missing feature files.
    """
    partition, labels = first(src, "partition.csv"), first(src, "labels.csv")
    if partition is None or labels is None:
        raise BadCorpus(f"no {'labels' if partition else 'partition'}.csv below {src}", "give the folder c1_muse_mimic")
    split, target = _partition(partition), _targets(labels)
    rows, short = _rows(split, target, labels, partial)
    pictures, sounds = media(src, PICTURE), media(src, SOUND)
    for row in rows:
        row["video"], row["audio"] = (str(found.get(row["id"], "")) for found in (pictures, sounds))
    sets = {p.name: p for p in sorted((partition.parent / "features").glob("*")) if p.is_dir()} if features else {}
    files = {name: {_bare(p.stem): p for p in sorted(folder.glob("[!.]*.csv"))} for name, folder in sets.items()}
    for name, found in files.items():
        counts, wanted = Counter(split.get(i, f"no partition ({i})") for i in found), Counter(split.values())
        short += [f"features {name} of {line}" for line in check_counts(counts, wanted, f"features {name}", partial)]
    warnings = ["speakers are not named: validation or folds carved from train may share them"]
    extra = {"licence": CARD["licence"], "warnings": warnings, **({"partial": short} if short else {})}
    for name, found in files.items():
        if found:
            _write_store(dst / "features" / f"muse_{name}", name, found)
    return write_corpus(dst, rows, "muse_mimic", "muse-mimic-3", **extra)


def _bare(name: str) -> str:
    """An id without the quotes that are part of the release's csv cells."""
    return name.strip().strip('"').strip()


def _partition(path: Path) -> dict[str, str]:
    """Id -> split."""
    table = read_csv(path)
    if table.shape[1] < 2:
        raise BadCorpus(f"{path} has {table.shape[1]} column, not id and partition", "use the official file")
    split: dict[str, str] = {}
    for name, part in zip(table.iloc[:, 0], table.iloc[:, -1], strict=True):
        if _bare(part) not in PARTITIONS:
            raise BadCorpus(f"{path}: unknown partition '{part}' of {name}", f"known: {', '.join(PARTITIONS)}")
        if _bare(name) in split:
            raise BadCorpus(f"{path} names {name} twice", "use the official file")
        split[_bare(name)] = PARTITIONS[_bare(part)]
    return split


def _targets(path: Path) -> dict[str, list[float]]:
    """Id -> the three values; all NaN where they are withheld."""
    import pandas as pd

    table = read_csv(path, "filename", *TARGETS.values())
    try:
        numbers = table[list(TARGETS.values())].replace("", "nan").astype(float).to_numpy()
    except (ValueError, TypeError) as error:
        raise BadCorpus(f"{path}: a target is not a number: {error}", "use the official file") from error
    names = [_bare(n) for n in table["filename"]]
    for at, problem in (
        (((numbers < 0) | (numbers > 1)).any(1), "has a target outside 0..1"),
        (np.isnan(numbers).any(1) & ~np.isnan(numbers).all(1), "has one target but lacks another"),
        (pd.Series(names, dtype=object).duplicated().to_numpy(), "is named twice"),
    ):
        if at.any():
            raise BadCorpus(f"{path}: {names[int(at.argmax())]} {problem}", "use the official file")
    return dict(zip(names, numbers.tolist(), strict=True))


def _rows(
    split: Mapping[str, str], target: Mapping[str, list[float]], path: Path, partial: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows, and what labels are missing: a label without a partition fails, train and devel must be labelled."""
    foreign = next((i for i in target if i not in split), None)
    if foreign is not None:
        raise BadCorpus(f"{path} has labels of {foreign}, which is in no partition", "use the partition.csv next to it")
    unknown = [float("nan")] * len(TARGETS)
    rows: list[dict[str, Any]] = []
    for i, s in split.items():
        values = target.get(i, unknown)
        rows.append({"id": i, "source": i, "split": s, "mimic": values, **dict(zip(TARGETS, values, strict=True))})
    wanted = Counter(s for s in split.values() if s != "test")
    found = Counter(r["split"] for r in rows if r["split"] != "test" and not np.isnan(r["approval"]))
    return rows, [f"labels of {line}" for line in check_counts(found, wanted, f"{path}: labels", partial)]


def _write_store(to: Path, name: str, files: Mapping[str, Path]) -> None:
    """A feature set as a store, in place of an older one; the times of all files are read first: they give the rate."""
    times = {i: _times(path) for i, path in files.items()}
    dim, rate = _dim(next(iter(files.values()))), _rate(list(times.values()))
    spec = StreamSpec(to.name, MODALITY.get(name) or guess_modality(name), (dim,), rate)
    aside = to.parent.parent / f".aside-{to.name}"
    shutil.rmtree(aside, ignore_errors=True)  # of an import that broke off
    content = digest({i: path.stat().st_size for i, path in files.items()})
    try:
        with StoreWriter(aside, store_card(spec, "muse_mimic", 1, {"set": name}, content_hash=content)) as writer:
            for i, path in files.items():
                writer.add(i, _feature(path, times[i], spec))
        shutil.rmtree(to, ignore_errors=True)
        to.parent.mkdir(exist_ok=True)
        aside.rename(to)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _dim(path: Path) -> int:
    with path.open(encoding="utf-8-sig") as file:
        return len(file.readline().split(",")) - 2


def _read(path: Path, **options: Any) -> np.ndarray:
    """Numbers of a feature file, parsed as numbers (release.read_csv keeps text, which is slow at 1,024 columns)."""
    import pandas as pd

    try:
        return pd.read_csv(path, **options).to_numpy(dtype=float)
    except (ValueError, TypeError, OSError) as error:
        raise BadCorpus(
            f"{path} is not a csv of id, timestamp and numbers: {error}", "download the set again"
        ) from error


def _times(path: Path) -> np.ndarray:
    """Times [T] in seconds from the column `timestamp` (ms)."""
    times = _read(path, usecols=["timestamp"])[:, 0] / 1000
    if not (times <= LONGEST).all() or (np.diff(times) < 0).any():
        raise BadCorpus(f"{path}: the timestamps do not rise, or lie beyond a day", "download the set again")
    return times


def _rate(times: Sequence[np.ndarray]) -> float:
    """Steps per second of the one grid (with gaps) that all times [T] of a set lie on; 0 where there is none."""
    gaps = np.concatenate([np.diff(t) for t in times])
    if not len(gaps) or gaps.min() <= 0:
        return 0.0
    steps = np.round(gaps / np.median(gaps))
    step = float(gaps.sum() / max(steps.sum(), 1))
    at = np.concatenate([(t - t[0]) / step for t in times if len(t)])
    return 1 / step if steps.min() >= 1 and np.abs(at - np.round(at)).max() < TOLERANCE else 0.0


def _feature(path: Path, times: np.ndarray, spec: StreamSpec) -> Feature:
    """The values at their steps; steps that the file leaves out, or that hold no number, are absent."""
    (dim,) = spec.shape
    if _dim(path) != dim:
        raise BadCorpus(f"{path} has {_dim(path)} features, the set has {dim}", "download the set again")
    values = _read(path, usecols=range(2, dim + 2)).astype(np.float32)
    if not len(values):
        return Feature(values)
    at = np.round((times - times[0]) * spec.rate).astype(int) if spec.rate > 0 else np.arange(len(times))
    full = np.full((at[-1] + 1, dim), np.nan, dtype=np.float32)
    full[at] = np.where(np.isfinite(values), values, np.nan)
    valid = np.asarray(~np.isnan(full).all(axis=1))
    if not valid.any():
        return Feature(full[:0])
    return Feature(full, None if valid.all() else valid, float(times[0]) if spec.rate > 0 else 0.0)
