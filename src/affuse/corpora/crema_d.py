"""CREMA-D: 91 actors, twelve sentences, six acted emotions, and the votes of a crowd for voice, face and both."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from affuse.core.errors import BadCorpus
from affuse.core.labels import space
from affuse.corpora.manifest import Corpus, check_counts, write_corpus
from affuse.corpora.reading.release import PICTURE, check_labels, first, media, read_csv

CARD = {
    "summary": "CREMA-D: 7,442 clips of 91 actors, 6 acted emotions, crowd votes for voice, face and both; sound, "
    "picture",
    "source": "Cao et al., CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset, IEEE TAFFC 5(4), 2014",
    "entry": "import_crema_d",
    "licence": "Open Database License 1.0; contents: Database Contents License 1.0",
    "download": "github.com/CheyneyComputerScience/CREMA-D with git lfs (a zip download has pointers instead of media)",
    "layout": "AudioWAV (or AudioMP3), VideoFlash, SentenceFilenames.csv, VideoDemographics.csv, "
    "processedResults/tabulatedVotes.csv; clips are ACTOR_SENTENCE_EMOTION_LEVEL. Four clips are damaged (README.md "
    "of the release) and keep no picture: 1064_IEO_DIS_MD, 1064_TIE_SAD_XX, 1076_MTI_NEU_XX, 1076_MTI_SAD_XX (the "
    "last has no sound either)",
    "counts": {"clips": 7442},
    "splits": "default none, grouped by actor (--folds 5); audeering and hicmae are by actor; ogm shares all 91 actors",
}
EMOTIONS = {"NEU": "neutral", "HAP": "happy", "SAD": "sad", "FEA": "fear", "DIS": "disgust", "ANG": "angry"}
LEVELS = {"XX": "unspecified", "LO": "low", "MD": "medium", "HI": "high"}
SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
PUBLISHED = {"neutral": 1087, "happy": 1271, "sad": 1271, "fear": 1271, "disgust": 1271, "angry": 1271}
# Column of the manifest -> leading figure of the row number in tabulatedVotes.csv (queryType of the release's README).
VOTES = {"votes_voice": 1, "votes_face": 2, "votes": 3}
LETTERS = ["N", "H", "S", "F", "D", "A"]
# Named as damaged in the release's README: picture and mp3 of the first, the wav too of the second.
DAMAGED = {"1064_IEO_DIS_MD", "1064_TIE_SAD_XX", "1076_MTI_NEU_XX", "1076_MTI_SAD_XX"}
SILENT = {"1076_MTI_SAD_XX"}
OGM = {"train": 6698, "test": 744}
AUDEERING = {
    "valid": {
        1049, 1053, 1054, 1055, 1058, 1059, 1061, 1062, 1063, 1064, 1065, 1066, 1067, 1068, 1070, 1075, 1080, 1085,
    },
    "test": {1048, 1069, 1071, 1074, 1076, 1077, 1078, 1079, 1082, 1083, 1084, 1086, 1087, 1088, 1089, 1090, 1091},
}
HICMAE_FIRST = (1001, 1019, 1037, 1055, 1073)  # the first actor of every fold
_NAME = re.compile(rf"(10(?:0[1-9]|[1-8]\d|9[01]))_({'|'.join(SENTENCES)})_({'|'.join(EMOTIONS)})_({'|'.join(LEVELS)})")
_FIX = "use the official file"
Row = dict[str, Any]


def import_crema_d(
    src: Path,
    dst: Path,
    *,
    partial: bool = False,
    labels: Literal["acted", "crowd"] = "acted",
    split: Literal["", "ogm", "audeering", "hicmae"] = "",
) -> Corpus:
    """Import the clips and tables below `src`; `source` is the actor.

    labels: the emotion that was acted (also in the column `acted`), or the one that most of the crowd named for sound
    and picture together, which is summaryTable.csv's MultiModalVote (no label where that has several). votes,
    votes_voice and votes_face count the crowd's answers in the order of crema-d-6; `intensity` is the acted level.

    split: ogm reads OGM-GE's train.csv and test.csv (or ogmge_*.csv), which must lie below `src`; audeering is by
    actor; hicmae keeps the five folds by actor in `fold`. Raises BadCorpus for foreign names, wrong counts, changed
    labels or votes, and missing parts.
    """
    rows = [_row(name) for name in _names(src)]
    short = check_counts({"clips": len(rows)}, CARD["counts"], "release", partial)  # type: ignore[arg-type]
    check_labels("", [{"split": "", "label": r["acted"]} for r in rows], PUBLISHED)
    short += _link(rows, src, partial) + _votes(rows, src, partial) + _actors(rows, src, partial)
    warnings = _crowd(rows, src) if labels == "crowd" else []
    warnings += _split(rows, split, src, partial)
    known = {"licence": CARD["licence"], "partial": short, "warnings": warnings}
    return write_corpus(dst, rows, "crema_d", "crema-d-6", language="en", **{k: v for k, v in known.items() if v})


def _names(src: Path) -> list[str]:
    """Names of the clips: of SentenceFilenames.csv, else of the media; media that the table lacks are refused."""
    path = first(src, "SentenceFilenames.csv")
    found = sorted(name for name in media(src) if _NAME.fullmatch(name))
    if path is None:
        if not found:
            raise BadCorpus(f"no SentenceFilenames.csv and no clip of CREMA-D below {src}", "see: affuse show crema_d")
        return found
    names = list(read_csv(path, "Filename")["Filename"])
    foreign = next((n for n in names if not _NAME.fullmatch(n)), None)
    if foreign is not None:
        raise BadCorpus(f"{path}: '{foreign}' is not ACTOR_SENTENCE_EMOTION_LEVEL", _FIX)
    extra = sorted(set(found) - set(names))
    if extra:
        raise BadCorpus(f"{len(extra)} clips are not in {path}, e.g. '{extra[0]}'", "remove foreign files")
    return names


def _row(name: str) -> Row:
    actor, sentence, emotion, level = name.split("_")
    return {
        "id": name,
        "speaker": actor,
        "source": actor,
        "text": SENTENCES[sentence],
        "label": EMOTIONS[emotion],
        "acted": EMOTIONS[emotion],
        "intensity": LEVELS[level],
    }


def _link(rows: list[Row], src: Path, partial: bool) -> list[str]:
    """Fill in sound (wav, else mp3) and picture; what is missing of the clips that are not damaged."""
    waves, tapes, pictures = (_clips(src, suffixes, partial) for suffixes in ({".wav"}, {".mp3"}, PICTURE))
    for row in rows:
        name = row["id"]
        sound = waves.get(name, "") if name in DAMAGED else waves.get(name) or tapes.get(name, "")
        row["audio"] = "" if name in SILENT else sound
        row["video"] = "" if name in DAMAGED else pictures.get(name, "")
    sane = [r for r in rows if r["id"] not in DAMAGED]
    found = {
        "clips with sound": sum(bool(r["audio"] or r["video"]) for r in sane),
        "clips with picture": sum(bool(r["video"]) for r in sane),
    }
    return check_counts(found, dict.fromkeys(found, len(sane)), "media", partial)


def _clips(src: Path, suffixes: set[str], partial: bool) -> dict[str, str]:
    """Name -> file of the clips; the pointers that a clone without git lfs leaves in their place do not count."""
    found = {name: path for name, path in media(src, suffixes).items() if _NAME.fullmatch(name)}
    pointers = [
        name
        for name, path in found.items()
        if path.stat().st_size < 1024 and path.read_bytes().startswith(b"version https://git-lfs")
    ]
    if pointers and not partial:
        raise BadCorpus(
            f"{len(pointers)} files are git-lfs pointers, e.g. {found[pointers[0]]}", "git lfs pull, or --partial"
        )
    return {name: str(path) for name, path in found.items() if name not in set(pointers)}


def _votes(rows: list[Row], src: Path, partial: bool) -> list[str]:
    """Fill in the crowd's votes per clip; clips that the table lacks have none (zeros)."""
    path = first(src, "tabulatedVotes.csv")
    found = _read_votes(path) if path else {}
    for row in rows:
        row |= {column: found.get((kind, row["id"]), [0.0] * len(LETTERS)) for column, kind in VOTES.items()}
    counts = {f"clips with {column}": sum((kind, r["id"]) in found for r in rows) for column, kind in VOTES.items()}
    return check_counts(counts, dict.fromkeys(counts, len(rows)), "tabulatedVotes.csv", partial)


def _read_votes(path: Path) -> dict[tuple[int, str], list[float]]:
    table = read_csv(path, "fileName", "numResponses", *LETTERS)
    try:
        kinds = table.iloc[:, 0].astype(int) // 100_000
        votes, total = table[LETTERS].astype(float), table["numResponses"].astype(float)
    except (ValueError, OverflowError) as error:
        raise BadCorpus(f"{path}: a row number or a vote is no number: {error}", _FIX) from error
    wrong = table["fileName"][(votes.sum(axis=1) != total) | ~kinds.isin(VOTES.values()) | ~(votes >= 0).all(axis=1)]
    if len(wrong):
        raise BadCorpus(f"{path}: the votes for '{wrong.iloc[0]}' are not the numResponses of one presentation", _FIX)
    keys = list(zip(kinds.tolist(), table["fileName"], strict=True))
    twice = [key for key, n in Counter(keys).items() if n > 1]
    if twice:
        raise BadCorpus(f"{path}: '{twice[0][1]}' occurs twice for presentation {twice[0][0]}", _FIX)
    return dict(zip(keys, votes.to_numpy().tolist(), strict=True))


def _actors(rows: list[Row], src: Path, partial: bool) -> list[str]:
    path = first(src, "VideoDemographics.csv")
    table = read_csv(path, "ActorID", "Age", "Sex", "Race", "Ethnicity") if path else None
    people = {r["ActorID"]: r for r in table.to_dict("records")} if table is not None else {}
    for row in rows:
        person = people.get(row["speaker"], {})
        age = person.get("Age", "nan")
        if not re.fullmatch(r"\d+|nan", age):
            raise BadCorpus(f"{path}: actor {row['speaker']} has age '{age}'", _FIX)
        row |= {"age": float(age), "gender": person.get("Sex", "").lower()}
        row |= {"race": person.get("Race", ""), "ethnicity": person.get("Ethnicity", "")}
    actors = {r["speaker"] for r in rows}
    return check_counts(
        {"actors": len(actors & set(people))}, {"actors": len(actors)}, "VideoDemographics.csv", partial
    )


def _crowd(rows: list[Row], src: Path) -> list[str]:
    """Replace the acted emotion by the crowd's, "" where several have the most votes."""
    names = space("crema-d-6").labels
    for row in rows:
        votes = row["votes"]
        row["label"] = names[votes.index(max(votes))] if votes.count(max(votes)) == 1 else ""
    tied = sum(not r["label"] for r in rows)
    if tied == len(rows):
        raise BadCorpus(f"labels=crowd: no processedResults/tabulatedVotes.csv with votes below {src}", "put it there")
    return [f"labels=crowd: {tied} clips without a single majority have no label"] if tied else []


def _split(rows: list[Row], split: str, src: Path, partial: bool) -> list[str]:
    """Fill in a published split or its folds; what its users must know."""
    if split == "ogm":
        return _split_ogm(rows, src, partial)
    for row in rows:
        actor = int(row["speaker"])
        if split == "audeering":
            row["split"] = next((name for name, actors in AUDEERING.items() if actor in actors), "train")
        elif split == "hicmae":
            row["fold"] = bisect_right(HICMAE_FIRST, actor) - 1
    if split != "hicmae":
        return []
    return ["split=hicmae: HiCMAE leaves out five clips, which are here in their actor's fold"]


def _split_ogm(rows: list[Row], src: Path, partial: bool) -> list[str]:
    where: dict[str, str] = {}
    for name in OGM:
        path = first(src, f"ogmge_{name}.csv") or first(src, f"{name}.csv")
        if path is None:
            raise BadCorpus(
                f"split=ogm: no {name}.csv below {src}", "put data/CREMAD/*.csv of GeWu-Lab/OGM-GE_CVPR2022 there"
            )
        for line in path.read_text(encoding="utf-8-sig", errors="replace").split():
            clip, _, emotion = line.partition(",")
            if not _NAME.fullmatch(clip) or clip[9:12] != emotion or clip in where:
                raise BadCorpus(f"{path}: '{line}' is not a clip and its emotion, or occurs twice", _FIX)
            where[clip] = name
    short = check_counts(Counter(where.values()), OGM, "split=ogm", partial)
    for row in rows:
        row["split"] = where.get(row["id"], "")
    groups = {name: {r["speaker"] for r in rows if r["split"] == name} for name in OGM}
    shared = len(groups["train"] & groups["test"])
    return [
        f"split=ogm is speaker-dependent: {shared} actors are in train and in test",
        *(f"split=ogm: {line}" for line in short),
    ]
