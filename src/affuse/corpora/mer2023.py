"""MER2023: Chinese clips of films and series, six emotions and a valence; four labelled parts, one unlabelled pool."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from affuse.core import pickles
from affuse.core.errors import AffuseError, BadCorpus
from affuse.corpora.manifest import Corpus, check_counts, write_corpus
from affuse.corpora.reading.release import PICTURE, add_clips, check_labels, first, media, read_csv, read_json

CARD = {
    "summary": "MER2023: 5,030 Chinese clips of films and series, 6 emotions and a valence, and a pool without labels",
    "source": "Lian et al., MER 2023: Multi-label Learning, Modality Robustness, and Semi-Supervised Learning, MM 2023",
    "entry": "import_mer2023",
    "licence": "CC BY-NC 4.0 after signing the end-user licence; no redistribution",
    "download": "MERChallenge/MER2023 on Hugging Face, after signing the licence (merchallenge.contact@gmail.com)",
    "layout": "train/, test1/, test2/, test3/ and {train,test1,test2,test3}-label.csv (name, discrete, valence); or "
    "MERTools' video/, audio/, transcription.csv and label-6way.npz (or the same dictionaries as label-6way*.json)",
    "counts": {"train": 3373, "multi": 411, "noise": 412, "semi": 834},
    "splits": "MULTI (test1), NOISE (test2) and SEMI (test3) are the test split (column part; test=multi for one); no "
    "official validation, and nothing is published about speakers or films: carved by clip, it may share speakers",
}
PARTS = {"train": "train", "test1": "multi", "test2": "noise", "test3": "semi"}
# Of the 3,373 utterances of train.
EMOTIONS = {"neutral": 871, "angry": 822, "happy": 689, "sad": 383, "worried": 462, "surprise": 146}
WITHOUT_VALENCE = -10.0
Labels = dict[str, tuple[str, float]]  # name -> (emotion, valence or NaN)


def import_mer2023(
    src: Path,
    dst: Path,
    *,
    partial: bool = False,
    test: Literal["all", "multi", "noise", "semi"] = "all",
    unlabelled: bool = False,
) -> Corpus:
    """Import the labels below `src`, with clips and transcripts where they are there too.

    `test`: which of the three test parts to import. `unlabelled`: also the clips of test3/ without a label, as training
    rows without one. Column `part` is train, multi, noise, semi or unlabelled, `valence` is NaN where there is none;
    its task is {column: valence, space: mer2023-valence}.
    Raises BadCorpus for foreign columns, emotions or counts, missing parts or missing clips.
    """
    wanted = [p for p in PARTS.values() if test in ("all", p) or p == "train"]
    found, origin = _labels(src)
    rows = [_row(p, name, *label) for p in wanted for name, label in found.get(p, {}).items()]
    counts: dict[str, int] = {p: n for p, n in CARD["counts"].items() if p in wanted}  # type: ignore[attr-defined]
    short = check_counts(Counter(str(r["part"]) for r in rows), counts, f"{origin}: utterances per part", partial)
    check_labels("train", rows, EMOTIONS)
    if unlabelled:
        rows += _pool(src, {name for labels in found.values() for name in labels})
    short += add_clips(src, rows, "part", partial)
    _add_words(src, rows)
    extra = {"licence": CARD["licence"], "warnings": _warnings(wanted), **({"partial": short} if short else {})}
    return write_corpus(dst, rows, "mer2023", "mer2023-6", language="zh", **extra)


def _warnings(wanted: list[str]) -> list[str]:
    notes = ["neither speakers nor films are published: validation or folds carved from train may share speakers"]
    if len(wanted) > 2:
        notes.append(
            "the test split joins MULTI, NOISE and SEMI, scored apart: import each (test=multi, test=noise, test=semi)"
        )
    return notes


def _labels(src: Path) -> tuple[dict[str, Labels], Path]:
    """Part -> its labels, and the file (of several parts the folder) that they come from."""
    files = {theirs: path for theirs in PARTS if (path := first(src, f"{theirs}-label.csv"))}
    if files:
        return {PARTS[t]: _checked(path, _from_csv(path)) for t, path in files.items()}, src
    for path, read in ((first(src, "label-6way*.npz"), _from_npz), (first(src, "*label-6way*.json"), read_json)):
        if path:
            corpora = read(path)
            if not isinstance(corpora, Mapping) or not any(f"{t}_corpus" in corpora for t in PARTS):
                raise BadCorpus(
                    f"{path} has no train_corpus, test1_corpus, ...", "use MERTools' label-6way file of MER2023"
                )
            given = {ours: corpora[f"{t}_corpus"] for t, ours in PARTS.items() if f"{t}_corpus" in corpora}
            return {part: _checked(path, _pairs(path, corpus)) for part, corpus in given.items()}, path
    raise BadCorpus(f"no train-label.csv and no label-6way.npz or .json below {src}", "see: affuse show mer2023")


def _from_csv(path: Path) -> Iterator[tuple[str, object, object]]:
    """Rows of an official file; what SEMI (test3) has in its column of valences is no valence."""
    rated = not path.name.startswith("test3")
    table = read_csv(path, "name", "discrete", *(("valence",) if rated else ()))
    for row in table.to_dict("records"):
        yield row["name"], row["discrete"], (rated and row["valence"]) or WITHOUT_VALENCE


def _pairs(path: Path, corpus: Any) -> Iterator[tuple[str, object, object]]:
    """The dictionary {name: {"emo": ..., "val": ...}} of a part."""
    try:
        for name, label in corpus.items():
            yield name, label["emo"], label["val"]
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise BadCorpus(f"{path}: a part is not {{name: {{emo, val}}}} ({error!r})", "use MERTools' file") from error


def _checked(path: Path, labels: Iterator[tuple[str, object, object]]) -> Labels:
    """Labels by name; BadCorpus for a foreign emotion, a valence that is no number, a name given twice."""
    checked: Labels = {}
    for name, emotion, number in labels:
        try:
            valence = float(number)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise BadCorpus(f"{path}: valence {number!r} of {name} is not a number", "use the official file") from error
        if np.isinf(valence):
            raise BadCorpus(f"{path}: valence of {name} is infinite", "use the official file")
        if not isinstance(emotion, str) or emotion not in EMOTIONS:
            raise BadCorpus(f"{path}: unknown emotion {emotion!r} of {name}", f"known: {', '.join(EMOTIONS)}")
        if name in checked:
            raise BadCorpus(f"{path} names {name} twice", "use the official file")
        checked[name] = (emotion, float("nan") if valence == WITHOUT_VALENCE else valence)
    return checked


def _from_npz(path: Path) -> dict[str, Any]:
    """The dictionaries of an .npz whose members are pickled objects, read by the restricted unpickler."""
    try:
        with zipfile.ZipFile(path) as pack, TemporaryDirectory(prefix="affuse-") as aside:
            return {
                name.removesuffix(".npy"): _member(pack, name, Path(aside) / "member.pkl") for name in pack.namelist()
            }
    except AffuseError as error:  # of a member, which has no name that the user knows
        raise type(error)(f"{path}: {error.message}", error.remedy) from error
    except Exception as error:  # a damaged archive can raise anything
        raise BadCorpus(f"{path} is not a readable .npz: {error}", "download the official file again") from error


def _member(pack: zipfile.ZipFile, name: str, aside: Path) -> Any:
    with pack.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        if not read(file)[2].hasobject:
            raise ValueError(f"{name} holds no dictionary")
        aside.write_bytes(file.read())
    return pickles.load(aside).item()


def _row(part: str, name: str, emotion: str, valence: float) -> dict[str, object]:
    split = "train" if part in ("train", "unlabelled") else "test"
    return {"id": name, "source": name, "part": part, "split": split, "label": emotion, "valence": valence}


def _pool(src: Path, labelled: set[str]) -> list[dict[str, object]]:
    folder = first(src, "test3")
    names = [] if folder is None else [name for name in media(folder, PICTURE) if name not in labelled]
    if not names:
        raise BadCorpus(f"no unlabelled clips in a folder test3 below {src}", "leave unlabelled=true away")
    return [_row("unlabelled", name, "", float("nan")) for name in sorted(names)]


def _add_words(src: Path, rows: list[dict[str, object]]) -> None:
    path = first(src, "transcription.csv")
    if path is None:
        return
    table = read_csv(path, "name", "sentence")
    words = dict(zip(table["name"], table["sentence"], strict=True))
    for row in rows:
        row["text"] = words.get(str(row["id"]), "")
