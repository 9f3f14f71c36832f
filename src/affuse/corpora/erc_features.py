"""The feature pickles of conversational emotion recognition: MELD, IEMOCAP and kin as tuples of per-dialogue fields."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from affuse.core import pickles
from affuse.core.errors import BadConfig, BadCorpus, BadFeatures
from affuse.core.labels import canonical
from affuse.core.labels import space as label_space
from affuse.core.types import MODALITIES
from affuse.corpora.manifest import SPLITS, Corpus, write_corpus
from affuse.corpora.reading.erc_fields import Field, check_shapes, matrix, refusal, roles_of, sniff
from affuse.corpora.reading.release import below, mend
from affuse.stores.store import guess_modality, import_arrays

CARD = {
    "summary": "feature pickles of conversation models (DialogueGCN, MMGCN, MM-DFN, COSMIC, M3Net, SDT) as corpus and "
    "stores",
    "source": "loaders of declare-lab/conv-emotion (DialogueRNN, DialogueGCN, COSMIC), MMGCN (ACL 2021), MM-DFN, "
    "M3Net, SDT",
    "entry": "import_erc_features",
    "licence": "that of the corpus inside: IEMOCAP needs its signed licence, MELD is GPL-3.0; the files themselves "
    "state none",
    "download": "links in the README files of those repositories; one .pkl in the source folder, or file=NAME",
    "layout": "a tuple of 6 to 13 fields, distinguished by content: {dialogue: [ids | speakers | classes | vectors | "
    "words]}, id sets",
    "counts": {"iemocap": 7433, "meld": 13708},
    "splits": "the file's own; valid where it has one, else carved from train. MELD's share speakers, which one-hot "
    "places cannot show",
}
# Class indices as the loaders of these files document them.
ORDERS = {
    "iemocap-6": ("happy", "sad", "neutral", "angry", "excited", "frustrated"),
    "iemocap-4": ("happy", "sad", "neutral", "angry"),
    "meld-7": ("neutral", "surprise", "fear", "sad", "happy", "disgust", "angry"),
}
# Utterances per class of the whole test split, in the order above: a permuted order cannot meet them.
PUBLISHED_TEST = {"iemocap-6": (144, 245, 384, 170, 299, 381), "meld-7": (1256, 281, 50, 208, 402, 68, 345)}
# Widths that occur in one modality only: MELD's bcLSTM text, IS10 sound, DenseNet faces.
WIDTHS = {600: "text", 1582: "audio", 342: "vision"}
SUFFIXES = {".pkl", ".pickle", ".p"}
_IEMOCAP = re.compile(r"(Ses0[1-5])[FM]_\w+")


def import_erc_features(
    src: Path,
    dst: Path,
    *,
    partial: bool = False,
    file: str = "",
    space: str = "",
    order: str = "",
    fields: str = "",
    sets: str = "",
    name: str = "",
) -> Corpus:
    """Import the pickle in folder `src` (or `src`, or `file` in it): utterances, splits, a store per feature field.

    `space` and `order` (class names by index, comma-separated) name the classes; the published order is assumed, with a
    warning, where ids and class count decide it. `fields` names the feature fields in file order (default: text, audio,
    vision, text2... as published), `sets` the id sets (train, test, valid or none). A dialogue in several sets counts
    as test, then valid. Rows of zeros are absent. Raises BadCorpus (no file), BadFeatures (layout, damage), BadConfig.
    """
    path = _find(src, file)
    found = sniff(path, pickles.load(path))
    roles = roles_of(path, found)
    warnings: list[str] = []
    names = list(roles["labels"].content)
    short = check_shapes(path, found, roles["labels"].content, partial)
    splits, missing = _splits(path, found, names, sets, warnings)
    if missing and not partial:
        raise BadFeatures(
            f"{path}: its id sets name {missing}", "get the whole file, or pass --partial to use what is there"
        )
    classes, chosen = _classes(path, roles, splits, space, order, warnings)
    streams = _streams(path, [f for f in found if f.kind == "vectors"], fields, warnings)
    rows = _rows(path, roles, splits, classes, warnings)
    short += [f"dialogues: {missing}"] if missing else []
    stores = {stream: _values(stream, content, rows, warnings) for stream, content in streams.items()}
    extra = {"warnings": warnings, "licence": CARD["licence"], **({"partial": short} if short else {})}
    corpus = write_corpus(dst, rows, name or path.stem, chosen, **extra)
    for stream, (ids, values) in stores.items():
        if ids:
            modality = next((m for m in MODALITIES if stream.startswith(m)), None)
            import_arrays(corpus.store_path(stream), ids, values, modality=modality)
    return corpus


def _find(src: Path, file: str) -> Path:
    if src.is_file():
        return src
    files = [src / file] if file else [p for p in below(src) if p.suffix.lower() in SUFFIXES and p.is_file()]
    if not files:
        raise BadCorpus(f"no .pkl below {src}", "see: affuse show erc_features")
    if len(files) > 1:
        listed = ", ".join(str(p.relative_to(src)) for p in files[:6])
        raise BadCorpus(f"{len(files)} pickles below {src}: {listed}", "say which: file=NAME")
    return files[0]


def _splits(
    path: Path, found: list[Field], names: list[str], sets: str, warnings: list[str]
) -> tuple[dict[str, str], str]:
    """(dialogue -> split, what the id sets name that the fields lack)."""
    groups = [f.content for f in found if f.kind == "set"]
    order = [s.strip() for s in sets.split(",")] if sets else ["train", "test", "valid"][: len(groups)]
    named = [s for s in order if s != "none"]
    if not set(named) <= set(SPLITS) or "train" not in named or len(set(named)) < len(named):
        raise BadConfig(f"sets={sets} is not a list of train, test, valid, none", "for example sets=train,test,valid")
    if len(order) != len(groups) or len(groups) < 2:
        wanted = f"{len(order)} wanted ({', '.join(order)})"
        raise refusal(path, found, f"{len(groups)} id sets, {wanted}", "name them: sets=train,test")
    by_split = {s: dict.fromkeys(g) for s, g in zip(order, groups, strict=True) if s != "none"}
    if not sets and max(map(len, by_split.values())) > len(by_split["train"]):
        why = "the first id set is not the largest, so it may not be train"
        raise refusal(path, found, why, f"name them: sets={','.join(order)}")
    chosen: dict[str, str] = {}
    for split in SPLITS:  # of several sets the last one counts: what is tested on is not trained on
        shared = [n for n in by_split.get(split, ()) if n in chosen]
        if shared:
            warnings.append(
                f"{len(shared)} dialogues are in {split} and in an earlier set, e.g. {shared[0]}: kept in {split} only"
            )
        chosen |= dict.fromkeys(by_split.get(split, ()), split)
    if "train" not in chosen.values():
        raise refusal(path, found, "every dialogue of the train set is in another set, too")
    unused, absent = [n for n in names if n not in chosen], [n for n in chosen if n not in set(names)]
    if len(absent) == len(chosen):
        raise refusal(path, found, f"no dialogue of the id sets is in the fields, e.g. {absent[0]} against {names[0]}")
    warnings += [f"{len(unused)} dialogues are in no id set, e.g. {unused[0]}: left out"] if unused else []
    missing = f"{len(absent)} dialogues without fields, e.g. {absent[0]}" if absent else ""
    return {n: chosen[n] for n in names if n in chosen}, missing


def _classes(
    path: Path, roles: Mapping[str, Field], splits: Mapping[str, str], wanted: str, order: str, warnings: list[str]
) -> tuple[tuple[str, ...], str]:
    """(class names by index, label space or "" to infer it)."""
    labels = roles["labels"].content
    used = sorted({int(v) for part in labels.values() for v in part} - {-1})
    names = tuple(canonical(v) for v in order.split(",")) if order else ()
    if wanted and names and (strange := [n for n in names if n not in label_space(wanted).labels]):
        raise BadConfig(
            f"order names '{strange[0]}', which is no class of {wanted}",
            f"classes: {', '.join(label_space(wanted).labels)}",
        )
    if len(set(names)) < len(names) or "" in names:
        raise BadConfig(f"order={order} names a class twice, or none", "one name per index, separated by commas")
    if wanted and not names and wanted not in ORDERS:
        raise BadConfig(
            f"no published index order of {label_space(wanted).name} is known", "give it: order=NAME,NAME,..."
        )
    assumed = "" if names or wanted else _assume_space(labels, used, roles["speakers"].kind == "one-hot")
    if not (names or wanted or assumed):
        indices = f"{used[0]}..{used[-1]}" if used else "none"
        raise BadFeatures(
            f"{path}: which class is which of the indices {indices} cannot be told",
            "say it: space=meld-7, or order=NAME,NAME,...",
        )
    names = names or ORDERS[wanted or assumed]
    if used and used[-1] >= len(names):
        raise BadFeatures(
            f"{path}: a label is {used[-1]}, but only {len(names)} classes are named: {', '.join(names)}",
            "give order= with a name for each",
        )
    if assumed:
        listed = ", ".join(f"{i} {n}" for i, n in enumerate(names))
        warnings.append(f"class order assumed ({assumed}): {listed}; order= overrides it")
    _check_published(path, labels, splits, wanted or assumed, names)
    return names, wanted or assumed


def _assume_space(labels: Mapping[str, list[Any]], used: list[int], one_hot: bool) -> str:
    """The label space that ids and number of classes point to: IEMOCAP's dialogue names, or MELD's numbers; else ""."""
    if all(_IEMOCAP.fullmatch(name) for name in labels) and used and used[-1] < 6:
        return "iemocap-6" if used[-1] > 3 else "iemocap-4"
    flat = [int(v) for part in labels.values() for v in part]
    share = flat.count(0) / len(flat)
    # EmoryNLP and DailyDialog have seven classes and numbers, too, but not 47 % of class 0.
    alike = len(flat) < 1000 or 0.35 < share < 0.6
    numbered = all(re.fullmatch(r"dia\d+", name) for name in labels)
    return "meld-7" if numbered and one_hot and used == list(range(7)) and alike else ""


def _check_published(
    path: Path, labels: Mapping[str, list[Any]], splits: Mapping[str, str], chosen: str, names: tuple[str, ...]
) -> None:
    """BadFeatures where the whole published test split is there with other counts per class."""
    counts = PUBLISHED_TEST.get(chosen, ())
    tested = Counter(names[int(v)] for n, part in labels.items() if splits.get(n) == "test" for v in part if v >= 0)
    published = dict(zip(ORDERS.get(chosen, ()), counts, strict=False))
    if tested.total() == sum(counts) and tested != Counter(published):
        wrong = next(n for n in published if tested[n] != published[n])
        raise BadFeatures(
            f"{path}: {tested[wrong]} '{wrong}' in test, published are {published[wrong]}",
            "the class order is another one: give order=",
        )


def _streams(path: Path, vectors: list[Field], fields: str, warnings: list[str]) -> dict[str, dict[str, list[Any]]]:
    """Store name -> content: as `fields` says, else by number and width as published."""
    widths = [int(f.says.rsplit(" ", 1)[1]) for f in vectors]
    known = {(600, 300): ["text", "audio"], (600,): ["text"], (1024,): ["text"]}
    names = known.get(tuple(widths), [])
    if len(set(widths[:4])) == 1 and len(widths) in (4, 6):
        names = ["text", "text2", "text3", "text4", "audio", "vision"][: len(widths)]
    elif len(widths) == 3 and len(set(widths)) > 1:
        names = ["text", "audio", "vision"]
    if fields:
        names = [n.strip() for n in fields.split(",")]
        if strange := [n for n in names if not re.fullmatch(r"\w+", n) or names.count(n) > 1]:
            raise BadConfig(
                f"fields={fields}: '{strange[0]}' is no name, or occurs twice", "for example fields=text,audio,vision"
            )
        for n in names:
            guess_modality(n)
    elif clash := [(n, w) for n, w in zip(names, widths) if w in WIDTHS and not n.startswith(WIDTHS[w])]:
        name, width = clash[0]
        why = f"{width} numbers are a width of {WIDTHS[width]}, not of {name}"
        raise refusal(path, vectors, why, "name the fields: fields=text,audio,vision")
    if len(names) != len(widths):
        why = f"{len(widths)} feature fields of widths {widths}: which is which cannot be told"
        raise refusal(path, vectors, why, "name them in file order: fields=text,audio,vision")
    if widths[:2] == [600, 300]:
        warnings.append(
            "vectors of 600 and 300 numbers are known as outputs of bcLSTMs trained on MELD's labels: they hold labels "
            "and the future"
        )
    return {n: f.content for n, f in zip(names, vectors, strict=True)}


def _rows(
    path: Path, roles: Mapping[str, Field], splits: Mapping[str, str], classes: tuple[str, ...], warnings: list[str]
) -> list[dict[str, Any]]:
    rows = []
    for dialogue, split in splits.items():
        session = m[1] if (m := _IEMOCAP.fullmatch(dialogue)) else ""
        given = {k: roles[k].content[dialogue] for k in ("ids", "words", "sentiment") if k in roles}
        speakers = _speakers(roles["speakers"], dialogue, session)
        for i, index in enumerate(roles["labels"].content[dialogue]):
            row = {"id": f"{dialogue}_utt{i}", "conversation": dialogue, "position": i, "speaker": speakers[i]}
            row |= {"source": session or dialogue, "split": split, "label": classes[int(index)] if index >= 0 else ""}
            if "ids" in given:
                row["id"] = said if isinstance(said := given["ids"][i], str) else f"{dialogue}_utt{int(said)}"
            row |= {"text": _mend(given["words"][i])} if "words" in given else {}
            row |= {"sentiment_index": int(given["sentiment"][i])} if "sentiment" in given else {}
            rows.append(row)
    doubles = [i for i, n in Counter(str(r["id"]) for r in rows).items() if n > 1]
    for row in rows if doubles else ():  # numbers written as strings start anew in every dialogue
        row["id"] = f"{row['conversation']}_utt{row['position']}"
    if roles["speakers"].kind == "one-hot":
        warnings.append(
            "speakers are places within a dialogue: who speaks in several, and in several splits, cannot be told"
        )
    blank = sum(not r["label"] for r in rows)
    warnings += [f"{blank} of {len(rows)} utterances have the label -1: unlabelled"] if blank else []
    sessions = {str(r["source"]) for r in rows if r["split"] == "test" and _IEMOCAP.fullmatch(str(r["conversation"]))}
    tested = sorted(sessions - {"Ses05"})
    warnings += [f"test holds {', '.join(tested)}; the published test is session 5 alone"] if tested else []
    other = [
        r["id"]
        for r in rows
        if (m := re.fullmatch(r"Ses0\d[FM]_.*_([FM])\d+", str(r["id"]))) and not str(r["speaker"]).endswith(m[1])
    ]
    warnings += [f"{len(other)} utterances have another speaker than their id says, e.g. {other[0]}"] if other else []
    return rows


def _speakers(field: Field, dialogue: str, session: str) -> list[str]:
    """Speaker names; one-hot places, or M and F, are other persons in every dialogue (IEMOCAP: in every session)."""
    if field.kind == "one-hot":
        rows = np.asarray(field.content[dialogue], dtype=np.float32).reshape(len(field.content[dialogue]), -1)
        return [f"{dialogue}_s{int(row.argmax())}" if row.any() else "" for row in rows]
    names = [str(v).strip() for v in field.content[dialogue]]
    return [f"{session or dialogue}_{n}" if len(n) <= 2 else n for n in names]


def _mend(text: str) -> str:
    """The sentence; UTF-8 that Python 2 pickled as bytes arrives decoded as latin1, and is decoded again."""
    with suppress(UnicodeEncodeError, UnicodeDecodeError):
        text = text.encode("latin1").decode("utf-8")
    return mend(text)


def _values(
    stream: str, content: Mapping[str, list[Any]], rows: Sequence[Mapping[str, Any]], warnings: list[str]
) -> tuple[list[str], np.ndarray]:
    """(ids, [n, D]) of one feature field; rows of zeros stand for what was missing and become NaN."""
    held = list(dict.fromkeys(r["conversation"] for r in rows if content.get(r["conversation"])))
    ids = [r["id"] for r in rows if r["conversation"] in content]
    parts = [m for n in held if (m := matrix(content[n])) is not None]
    values = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
    absent = ~values.any(axis=1)
    values[absent] = np.nan
    if absent.any():
        warnings.append(f"{stream}: {absent.sum()} of {len(ids)} vectors are all zero and count as absent")
    return (ids, values) if not absent.all() else ([], values)
