"""affuse import: a release, a table or a feature file becomes a checked corpus."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from rich.markup import escape

from affuse.cli.console import note, output
from affuse.core import registry
from affuse.core.errors import BadConfig, BadFeatures, MissingFile

if TYPE_CHECKING:
    from affuse.corpora.manifest import Corpus
    from affuse.stores.store import FeatureStore

app = App(
    name="import", help="Import a corpus release, your own table, or your own features.", result_action="return_value"
)


@app.default
def release(
    name: str,
    src: Path,
    dst: Path,
    *options: str,
    partial: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Import the release NAME from SRC into folder DST, with its key=value OPTIONS.

    NAME: see affuse list corpora. SRC: a folder, or a file of features.

    Parameters
    ----------
    partial
        Accept a release of which parts are missing; what is missing is reported and recorded.
    dry_run
        Read and check everything and say what would be imported, but leave DST alone.
    """
    entry = registry.load("corpora", name)
    if name in ("table", "synthetic"):
        raise BadConfig(f"'{name}' is not a release", f"see: affuse import {name} --help")
    if not src.exists():
        raise MissingFile(f"no file or folder {src}", f"see: affuse show {name}")
    chosen = registry.resolve("corpora", name, {**pairs(list(options), "option"), "partial": partial}, name)
    if not dry_run:
        return summary(entry(src, dst, **chosen))
    with TemporaryDirectory(prefix="affuse-") as aside:
        summary(entry(src, Path(aside) / "corpus", **chosen), f"would go to {dst}")
    return 0


@app.command
def table(
    file: Path,
    dst: Path,
    *,
    root: Path | None = None,
    columns: Annotated[list[str] | None, Parameter(name="--map", consume_multiple=True, negative="")] = None,
    labels: Annotated[list[str] | None, Parameter(name="--label", consume_multiple=True, negative="")] = None,
    space: str = "",
    name: str = "",
) -> int:
    """Import a CSV, TSV or Parquet table into folder DST: one utterance per row.

    Parameters
    ----------
    root
        Folder that media paths are relative to (default: the table's).
    columns
        name=column pairs; names: id, video, audio, text, label, speaker, source, conversation, position, start, end, \
        split; value for numbers to regress on (value=valence,arousal: two); file for media that are audio or video.
    labels
        label=spelling pairs, for labels that the table spells its own way.
    space
        Label space, for example ekman-7 (default: found from the labels).
    name
        Name of the corpus (default: the file's).
    """
    from affuse.corpora.table import import_table

    spelling = {theirs: ours for ours, theirs in pairs(labels, "--label").items()}
    return summary(
        import_table(file, dst, root=root, columns=pairs(columns, "--map"), labels=spelling, space=space, name=name)
    )


@app.command
def features(
    corpus: Path,
    name: str,
    file: Path,
    *,
    modality: Literal["audio", "vision", "text"] | None = None,
    rate: float = 0.0,
    tables: Literal["openface", "opensmile"] | None = None,
    columns: str = "*",
) -> int:
    """Import FILE as the feature store NAME of CORPUS.

    FILE: an .npz (ids, values, optional offsets; or an array per id), or a folder of tables.

    Parameters
    ----------
    modality
        audio, vision or text (default: read from NAME).
    rate
        Steps per second of sequences.
    tables
        FILE is a folder of ID.csv written by OpenFace or openSMILE.
    columns
        Which of their columns, for example AU*_r.
    """
    from affuse.corpora.manifest import Corpus
    from affuse.stores.arrays import read_npz
    from affuse.stores.store import import_arrays

    opened = Corpus.open(corpus)
    if name in ("", "..") or Path(name).name != name:
        raise BadConfig(
            f"'{name}' is no name of a feature store", "give a word such as openface; the store is made in the corpus"
        )
    if tables is not None:
        return _tables(opened, name, file, tables, modality, columns, rate)
    known = set(opened.table["id"])
    given = read_npz(file, known)
    foreign = [i for i in given.ids if i not in known]
    if len(foreign) == len(given.ids):
        raise BadFeatures(
            f"none of the {len(foreign)} ids is an utterance of {corpus}",
            f"e.g. '{foreign[0]}' against '{opened.table['id'].iloc[0]}'",
        )
    store = import_arrays(opened.store_path(name), *given, modality, rate)
    output.print(
        f"{len(store)} utterances, {store.spec.modality}, {list(store.spec.shape)} per step -> {store.path}",
        soft_wrap=True,
        markup=False,
    )
    if foreign:
        note(f"[yellow]{len(foreign)} ids are not in the corpus[/], e.g. {escape(foreign[0])}")
    if holes := store.card["missing"]:
        note(
            f"[yellow]{holes} of {given.values.size} numbers are missing[/] (NaN, infinite, or too large for float32): "
            "encoders put the training mean there; empty rows count as absent"
        )
    _absent(opened, store)
    return 0


def _tables(
    corpus: Corpus,
    name: str,
    folder: Path,
    kind: Literal["openface", "opensmile"],
    modality: Any,
    columns: str,
    rate: float,
) -> int:
    from affuse.stores.tables import find_tables, import_tables

    files, strange = find_tables(folder, set(corpus.table["id"]))
    if not files:
        raise BadFeatures(
            f"no ID.csv of an utterance of {corpus.path} below {folder}",
            f"name the tables by id, e.g. {min(corpus.table['id'])}.csv",
        )
    store = import_tables(corpus.store_path(name), files, kind, modality=modality, columns=columns, rate=rate)
    output.print(
        f"{len(store)} utterances, {list(store.spec.shape)} per step, {store.spec.rate:g} per second -> {store.path}",
        soft_wrap=True,
        markup=False,
    )
    for i, error in store.failures.items():
        note("  [red]failed[/] " + escape(f"{i}: {error['message']}"))
    if strange:
        note(f"[yellow]{len(strange)} tables belong to no utterance[/], e.g. {escape(strange[0].name)}")
    usable = _absent(corpus, store)
    return 1 if store.failures or not usable else 0


def _absent(corpus: Corpus, store: FeatureStore) -> int:
    """Say how many utterances the store has nothing for; returns for how many it has something."""
    ids = corpus.table["id"].tolist()
    usable = sum(i in store and store.usable(i) for i in ids)
    if usable < len(ids):
        note(
            f"[yellow]{len(ids) - usable} of {len(ids)} utterances have no usable step in it[/]: there the stream "
            "counts as absent"
        )
    return usable


@app.command
def synthetic(dst: Path, *options: str) -> int:
    """Generate the synthetic corpus into DST, with key=value knobs (see: affuse show synthetic)."""
    from affuse.core.config import parse_value

    given = {k: parse_value(v) for k, v in pairs(list(options), "option").items()}
    entry = registry.load("corpora", "synthetic")
    return summary(entry(dst, **registry.resolve("corpora", "synthetic", given, "synthetic")))


def pairs(items: list[str] | None, option: str) -> dict[str, str]:
    """name=value words as a dictionary."""
    split = [item.partition("=") for item in items or []]
    wrong = [a for a, sep, _ in split if not sep]
    if wrong:
        raise BadConfig(f"{option} {wrong[0]} is not name=value", f"write {option} name=value")
    return {a: b for a, _, b in split}


def summary(corpus: Corpus, where: str = "") -> int:
    """Print what was imported: counts per split, label space, shortfalls, warnings, the leak check."""
    from rich.table import Table

    info: dict[str, Any] = corpus.info
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("split", "utterances", "speakers", "sources", "labels"):
        grid.add_column(column)
    for split, count in info["counts"].items():
        labels = ", ".join(f"{k or 'none'} {v}" for k, v in list(count["labels"].items())[:12])
        grid.add_row(split, str(count["utterances"]), str(count["speakers"]), str(count["sources"]), labels)
    output.print(grid)
    if info["synthetic"]:
        output.print("[yellow]synthetic corpus[/]: numbers on it say nothing about people")
    for line in info.get("partial") or []:
        note(f"[yellow]incomplete[/] {escape(line)}")
    for line in info.get("warnings") or []:
        note(f"[yellow]take care[/]: {escape(line)}")
    for column, shared in info["overlap"].items():
        for pair, values in shared.items():
            note(f"[yellow]leak check[/]: {len(values)} {column}s occur in both {pair}, e.g. {escape(values[0])}")
    output.print(
        f"{info['name']} ({info['label_space']}, {info['hash']}) {where or f'-> {corpus.path}'}",
        soft_wrap=True,
        markup=False,
    )
    return 0
