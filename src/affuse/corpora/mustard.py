"""MUStARD and MUStARD++: lines of television comedies with the dialogue before them, sarcastic or sincere."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from affuse.core import pickles
from affuse.core.errors import BadCorpus
from affuse.core.labels import canonical
from affuse.corpora.manifest import Corpus, check_counts, write_corpus
from affuse.corpora.reading.release import PICTURE, first, media, mend, read_csv, read_json

CARD = {
    "summary": "MUStARD: 690 lines of comedies (MUStARD++: 1,202), sarcastic or sincere, with the dialogue before them",
    "source": "Castro et al., Towards Multimodal Sarcasm Detection, ACL 2019; Ray et al., A Multimodal Corpus for "
    "Emotion Recognition in Sarcasm, LREC 2022 (MUStARD++)",
    "entry": "import_mustard",
    "licence": "MIT (soujanyaporia/MUStARD), none stated (cfiltnlp/MUStARD_Plus_Plus); clips: research use",
    "download": "data/sarcasm_data.json and data/split_indices.p of github.com/soujanyaporia/MUStARD, or "
    "mustard++_text.csv of github.com/cfiltnlp/MUStARD_Plus_Plus; the MUStARD clips are linked in its README",
    "layout": "sarcasm_data.json with ID.mp4 and ID_c.mp4 (utterances_final, context_final), or mustard++_text.csv "
    "with ID_u.mp4 and ID_c.mp4 (final_utterance_videos, final_context_videos)",
    "counts": {"mustard": {"sarcastic": 345, "sincere": 345}, "mustard++": {"sarcastic": 601, "sincere": 601}},
    "splits": "default: the published speaker-independent one, test on Friends, train on the other shows (validation "
    "is carved from them by scene and shares characters; the lines of Golden Girls and Sarcasmaholics are nearly all "
    "sarcastic). split=folds: the five published folds, which share characters and scenes. split=none: nothing, so "
    "that the house groups by scene, which shares characters",
}
# Lines of this many words are taken for the same scene when two items share them; shorter ones are said everywhere.
TELLING = 4
# What MUStARD++ says of a labelled line: our column, its column, what an unlabelled line has there.
PLUS: dict[str, tuple[str, Any]] = {
    "sarcasm_type": ("Sarcasm_Type", ""),
    "implicit_emotion": ("Implicit_Emotion", ""),
    "explicit_emotion": ("Explicit_Emotion", ""),
    "valence": ("Valence", float("nan")),
    "arousal": ("Arousal", float("nan")),
}
UNNAMED = re.compile(r"PERSON\d*|MEMBER-(GIRL|BOY)|OTHER|MODERATOR")
EPISODE = re.compile(r"\d_(S\d+E\d+)_")
WARNINGS = {
    "friends": "validation carved from train is by scene: it shares characters with train; test (Friends) shares none",
    "folds": "the published folds share characters, scenes and lines between train and test: scores are optimistic",
    "none": "groups are scenes: splits made of them share characters; set split.group_by=show to keep shows apart",
}
Item = dict[str, Any]  # id, show, lines [(speaker, words)], the last one labelled; label; further columns


def import_mustard(
    src: Path,
    dst: Path,
    *,
    partial: bool = False,
    release: Literal["mustard", "mustard++"] = "mustard",
    split: Literal["friends", "folds", "none"] = "friends",
    context: Literal["utterances", "clip", "none"] = "utterances",
) -> Corpus:
    """Import the items below `src`, each a conversation whose last row is labelled; clips where they are there.

    `context`: the dialogue before as one unlabelled row of words per utterance, as one row with its clip (the release
    cuts it no finer), or left out. `source` is the scene: items that share a line, or with MUStARD++ an episode.
    MUStARD++ adds kind of sarcasm, implicit and explicit emotion (mustard-10), valence and arousal (1 to 9). Raises
    BadCorpus for damaged files, wrong counts, missing clips.
    """
    items = list(_mustard(src) if release == "mustard" else _plus(src))
    published: dict[str, int] = CARD["counts"][release]  # type: ignore[index]
    short = check_counts(Counter(item["label"] for item in items), published, "labelled lines", partial)
    short += _add_clips(src, items, partial)
    folds = _folds(src, items) if split == "folds" else [None] * len(items)
    rows: list[dict[str, Any]] = []
    for item, source, fold in zip(items, _scenes(items), folds, strict=True):
        facts = {"source": source, "show": item["show"], "split": _split(item) if split == "friends" else ""}
        rows += _rows(item, context, facts if fold is None else {**facts, "fold": fold})
    extra = {"licence": CARD["licence"], "warnings": [WARNINGS[split]], **({"partial": short} if short else {})}
    return write_corpus(dst, rows, release, "sarcasm-2", language="en", **extra)


def _split(item: Item) -> str:
    return "test" if item["show"] == "FRIENDS" else "train"


def _mustard(src: Path) -> Iterator[Item]:
    path = first(src, "sarcasm_data.json")
    if path is None:
        raise BadCorpus(
            f"no sarcasm_data.json below {src}", "see: affuse show mustard (release=mustard++ for MUStARD++)"
        )
    try:
        for name, said in read_json(path).items():
            label = {True: "sarcastic", False: "sincere"}[said["sarcasm"]]
            speakers, words = [*said["context_speakers"], said["speaker"]], [*said["context"], said["utterance"]]
            if not all(isinstance(text, str) for text in (*speakers, said["show"])):
                raise TypeError(f"a speaker or the show of {name} is not a text")
            lines = list(zip(speakers, map(mend, words), strict=True))
            yield {"id": name, "show": said["show"], "lines": lines, "label": label, "clip": name}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadCorpus(f"{path} is not MUStARD's file ({error!r})", "download the official file again") from error


def _plus(src: Path) -> Iterator[Item]:
    """The items of MUStARD++; the row with a Sarcasm cell is the labelled one (one key and one show are wrong)."""
    path = first(src, "mustard++_text.csv")
    if path is None:
        raise BadCorpus(f"no mustard++_text.csv below {src}", "see: affuse show mustard")
    columns = [c for c, _ in PLUS.values()]
    table = read_csv(path, "SCENE", "SENTENCE", "SPEAKER", "SHOW", "Sarcasm", *columns)
    for name, scene in table.groupby("SCENE", sort=False):
        last, labelled = scene.iloc[-1], (scene["Sarcasm"] != "").sum()
        if labelled != 1 or last["Sarcasm"] not in ("0", "1"):
            raise BadCorpus(
                f"{path}: scene {name} does not end in its one labelled line (0 or 1)", "use the official file"
            )
        more = {
            ours: canonical(last[theirs]) if missing == "" else _scale(path, name, last[theirs])
            for ours, (theirs, missing) in PLUS.items()
        }
        lines = list(zip(scene["SPEAKER"], map(mend, scene["SENTENCE"]), strict=True))
        label = "sarcastic" if last["Sarcasm"] == "1" else "sincere"
        yield {"id": name, "show": last["SHOW"], "lines": lines, "label": label, "clip": f"{name}_u", "more": more}


def _scale(path: Path, name: object, text: str) -> float:
    if text and not (text.isdecimal() and 1 <= int(text) <= 9):
        raise BadCorpus(f"{path}: '{text}' of scene {name} is not on the scale 1 to 9", "use the official file")
    return float(text or "nan")


def _scenes(items: Sequence[Item]) -> list[str]:
    """Name of each item's scene (its first item): those of a show that share a telling line or an episode are one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    node: dict[tuple[str, str], int] = {}
    edges = [
        (i, node.setdefault((item["show"], sign), len(items) + len(node)))
        for i, item in enumerate(items)
        for sign in [*EPISODE.findall(item["id"]), *(w.lower() for _, w in item["lines"] if len(w.split()) >= TELLING)]
    ]
    a, b = np.array(edges, dtype=int).reshape(-1, 2).T
    size = len(items) + len(node)
    scene = connected_components(coo_matrix((np.ones(len(a)), (a, b)), (size, size)), directed=False)[1][: len(items)]
    _, begins, of = np.unique(scene, return_index=True, return_inverse=True)
    return [f"{items[i]['show'].lower()} {items[i]['id']}" for i in begins[of]]


def _folds(src: Path, items: Sequence[Item]) -> list[int | None]:
    """The published test fold of every item (MUStARD's own order)."""
    path = first(src, "split_indices.p")
    if path is None:
        raise BadCorpus(f"no split_indices.p below {src}", "it is in data/ of github.com/soujanyaporia/MUStARD")
    try:
        tests = [np.asarray(test, dtype=int) for _, test in pickles.load(path)]
        order = np.concatenate(tests)
    except (TypeError, ValueError) as error:
        raise BadCorpus(f"{path} holds no folds ({error})", "download the official file again") from error
    if not np.array_equal(np.sort(order), np.arange(len(items))):
        raise BadCorpus(
            f"the folds of {path} are not of these {len(items)} items", "they are of the 690 of release=mustard"
        )
    fold = np.repeat(np.arange(len(tests)), [len(t) for t in tests])[np.argsort(order)]
    return [int(k) for k in fold]


def _add_clips(src: Path, items: Sequence[Item], partial: bool) -> list[str]:
    """Set the clips of the items; returns what is missing (nothing where there are words only)."""
    clips = media(src, PICTURE)
    for item in items:
        item["video"] = str(clips.get(item["clip"], ""))
        item["context_video"] = str(clips.get(f"{item['id']}_c", ""))
    kinds = {"utterances": "video", "contexts": "context_video"}
    found = {name: n for name, key in kinds.items() if (n := sum(bool(item[key]) for item in items))}
    if not found:
        return []
    return [f"clips of {line}" for line in check_counts(found, dict.fromkeys(kinds, len(items)), "clips", partial)]


def _rows(item: Item, context: str, facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The manifest rows of an item: its context, then the labelled line."""
    name, (*before, last) = item["id"], item["lines"]
    more = item.get("more", {})
    shared = {"conversation": name, **facts, **{column: PLUS[column][1] for column in more}}
    if context == "clip":
        words = " ".join(w for _, w in before)
        yield {**shared, "id": f"{name}_c", "position": 0, "text": words, "video": item["context_video"]}
    if context == "utterances":
        for i, (speaker, words) in enumerate(before):
            yield {**shared, "id": f"{name}_c{i:02d}", "position": i, "speaker": _speaker(speaker, item), "text": words}
    position = {"clip": 1, "utterances": len(before), "none": 0}[context]
    said = {"speaker": _speaker(last[0], item), "text": last[1], "video": item["video"], "label": item["label"]}
    yield {**shared, "id": name, "position": position, **said, **more}


def _speaker(name: str, item: Item) -> str:
    """Show and character, "" where the release does not say; an unnamed person is another one in every conversation."""
    name = name.strip().strip("-")
    return f"{name} of {item['id']}" if UNNAMED.fullmatch(name) else name and f"{item['show']} {name}"
